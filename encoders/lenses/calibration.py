"""Makes probabilities hold on validation images, and says below which one a class is unsure."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, softmax

from datagen.errors import ConfigError
from encoders.calibration import share_to_keep

MAX_STEPS = 100
TOLERANCE = 1e-10
# Above it, all classes are about equally likely.
HOTTEST = 100.0
# Largest factor by which one step changes the temperature.
LONGEST_STEP = 2.0


def check_coverage(coverage: float) -> float:
    """Return the share of images that a classifier must be sure of.

    Raises:
        ConfigError: It is not in (0, 1].
    """
    if not 0.0 < coverage <= 1.0:
        raise ConfigError(
            f"expected 0 < model.calibration.coverage <= 1, but got coverage = {coverage}", coverage
        )
    return float(coverage)


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


def unsure_threshold(confidence: Tensor, coverage: float) -> float:
    """Return the confidence below which an image is unsure.

    Args:
        confidence: Highest probability of each validation image (n,).
        coverage: Share of the images that stay.

    Returns:
        A confidence that at least this share of the images reaches; 0 without images.
    """
    if not len(confidence):
        return 0.0
    ordered = confidence.sort(descending=True).values
    n_kept = max(1, round(coverage * len(ordered)))
    return float(ordered[n_kept - 1])


def cross_entropy(logits: Tensor, labels: Tensor) -> float:
    """Return the mean of -ln p of the true class; 0 without images."""
    if not len(logits):
        return 0.0
    return -float(log_softmax(logits, dim=1).gather(1, labels[:, None]).mean())
