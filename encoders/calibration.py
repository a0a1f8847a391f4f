"""Makes probabilities hold on validation data, as far as these agree."""

from __future__ import annotations

import torch
from scipy import stats
from torch import Tensor
from torch.nn.functional import log_softmax, softmax

CONFIDENCE = 0.95
MAX_STEPS = 100
TOLERANCE = 1e-10
# Above it, all classes are about equally likely.
HOTTEST = 100.0
# Largest factor by which one step changes the temperature.
LONGEST_STEP = 2.0


def share_to_keep(total: Tensor, square: Tensor) -> Tensor:
    """Return which share of a fitted change of K parameters to keep, 0 to 1.

    `W = G^T J^-1 G` is a score test that takes groups (fields, not their cells; images) for
    independent (Liang & Zeger 1986, doi:10.1093/biomet/73.1.13). Chance alone gives it a
    chi-squared distribution with K degrees of freedom, and the share is `max(0, 1 - q / W)` with
    its quantile q of 95 %: shrinkage as in van Houwelingen & le Cessie (1990,
    doi:10.1002/sim.4780091109), but with q for the mean K, since a change by chance does harm and
    networks need little change.

    Args:
        total: G, the sum of the gradients g_f of all groups (K,).
        square: J, the sum of g_f g_f^T (K, K), or what chance would give.
    """
    strength: Tensor = total @ torch.linalg.pinv(square, hermitian=True) @ total
    by_chance = float(stats.chi2.ppf(CONFIDENCE, len(total)))
    return 1.0 - by_chance / strength.clamp_min(by_chance)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Fit `p = softmax(logits / T)` to validation images: the least cross-entropy.

    Guo et al. (2017, arXiv:1706.04599, section 4.2). Of each label K / (n + K) is spread over all
    K classes, so that T stays above 0 where all images are right (as in Platt 1999, section 2.2).
    The cross-entropy is convex in 1 / T; Newton's method finds its minimum. A change of T is kept
    only as far as the images agree on it: all of it on many images, nothing where it may be chance
    (see `share_to_keep`).

    Args:
        logits: (n, K), float64.
        labels: (n,), int64.

    Returns:
        T, at most 100; 1 without images, and for logits that are not finite.
    """
    if not len(logits) or not torch.isfinite(logits).all():
        return 1.0
    n_images, n_classes = logits.shape
    gradients = _slopes(logits, labels, 1.0, spread=0.0)[0][:, None]
    share = float(share_to_keep(gradients.sum(dim=0), gradients.T @ gradients))
    if share == 0.0:
        return 1.0
    inverse, spread = 1.0, n_classes / (n_images + n_classes)
    for _ in range(MAX_STEPS):
        slope, curvature = (rows.sum() for rows in _slopes(logits, labels, inverse, spread))
        wanted = inverse - float(slope / curvature.clamp_min(TOLERANCE))
        before = inverse
        inverse = min(max(wanted, before / LONGEST_STEP), before * LONGEST_STEP)
        if abs(inverse - before) <= TOLERANCE * before:
            break
    # Where higher logits do not mean a likelier class, the minimum is at 1 / T <= 0.
    return float(min(1.0 / inverse, HOTTEST) ** share)


def _slopes(logits: Tensor, labels: Tensor, inverse: float, spread: float) -> tuple[Tensor, Tensor]:
    """Return first and second derivatives of the cross-entropy to 1 / T per image (n,)."""
    p = softmax(inverse * logits, dim=1)
    mean = (p * logits).sum(dim=1)
    own = logits.gather(1, labels[:, None])[:, 0]
    wanted = (1.0 - spread) * own + spread * logits.mean(dim=1)
    return mean - wanted, (p * (logits - mean[:, None]) ** 2).sum(dim=1)


def cross_entropy(logits: Tensor, labels: Tensor) -> float:
    """Return the mean of -ln p of the true class; 0 without images."""
    if not len(logits):
        return 0.0
    return -float(log_softmax(logits, dim=1).gather(1, labels[:, None]).mean())
