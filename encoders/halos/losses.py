"""Losses of a latent space: compact by class, and ordered by cross-section along its first axis.

All are functions of the embeddings of a whole batch, in single precision at least, also where
training is mixed.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from encoders.precision import double, precise

UNLABELLED = -1
# Share of a step that goes anywhere, and what keeps a class without members from a division by 0.
UNIFORM, TINY = 1e-5, 1e-5


def cclp(z: Tensor, classes: Tensor, n_classes: int, n_steps: int, per_row: bool) -> Tensor:
    """Return the loss of compact clustering via label propagation.

    Kamnitsas et al. (2018, arXiv:1806.02679, section 3.2). With the transitions H of `transitions`
    and the class probabilities Phi of `propagate`, walks of 1 to S steps that stay within their
    class shall end anywhere in it with the same probability:

    `T_ij = sum_c Phi_ic Phi_jc / (m_c + 1e-5)` with `m_c = sum_i Phi_ic`, `M = Phi Phi^T`,
    `H(1) = H`, `H(s) = (H o M) H(s-1)`, `L = -1/S sum_s mean_ij T_ij log H(s)_ij`.

    Args:
        z: Latents (B, L).
        classes: -1 for maps without a label (B,), int64.
        n_classes: Number of classes.
        n_steps: S, the longest walk.
        per_row: Take the sum over j instead of its mean, so that the weight of the loss does not
            depend on the number of maps in a batch.

    Returns:
        Scalar; 0 where the batch has no labels. It is computed in double precision also where
        training is mixed: maps far from all labels make `I - H_uu` singular but for the share of
        1e-5, which single precision hardly holds.
    """
    with torch.autocast(z.device.type, enabled=False):
        h = transitions(double(z))
        phi = propagate(h, classes, n_classes)
        per_map = _chains(h, phi, n_steps)
    return (per_map.mean() if per_row else per_map.mean() / len(z)).to(precise(z).dtype)


def _chains(h: Tensor, phi: Tensor, n_steps: int) -> Tensor:
    """Return `-1/S sum_s sum_j T_ij log H(s)_ij` of each map (B,)."""
    target = phi @ (phi / (phi.sum(dim=0) + TINY)).T
    within = h * (phi @ phi.T)
    least = torch.finfo(h.dtype).tiny
    walk, total = h, target * h.log()
    for _ in range(n_steps - 1):
        walk = within @ walk
        total = total + target * walk.clamp_min(least).log()
    return -total.sum(dim=1) / n_steps


def transitions(z: Tensor) -> Tensor:
    """Return the probabilities (B, B) of a step from one map to another.

    Rows of `softmax(Z Z^T)`, of which a share of 1e-5 is spread over all maps.

    Args:
        z: Latents (B, L).
    """
    return UNIFORM / len(z) + (1.0 - UNIFORM) * torch.softmax(z @ z.T, dim=1)


def propagate(h: Tensor, classes: Tensor, n_classes: int) -> Tensor:
    """Return the probabilities of the classes of all maps, by label propagation.

    `Phi_u = (I - H_uu)^-1 H_ul Y_l` for maps without a label, `Phi_l = Y_l` for the others (Zhu &
    Ghahramani 2002). Both are the solution of one system of the whole batch, whose shape does not
    depend on the labels.

    Args:
        h: Transitions (B, B), rows of sum 1.
        classes: -1 for maps without a label (B,), int64.
        n_classes: Number of classes.

    Returns:
        (B, n_classes); rows of sum 1, or 0 where the batch has no labels.
    """
    is_open = (classes == UNLABELLED) & (classes != UNLABELLED).any()
    known = one_hot(classes.clamp_min(0), n_classes).to(h) * (classes != UNLABELLED)[:, None]
    system = torch.eye(len(h), dtype=h.dtype, device=h.device) - is_open[:, None] * h
    phi: Tensor = torch.linalg.solve(system, known)
    return phi.clamp_min(0.0)


def distance(first: Tensor, classes: Tensor, class_targets: Tensor) -> Tensor:
    """Return the mean squared distance of the classes from their places on the first axis.

    `mean_c (median of z_0 over class c - t_c)^2`, over the classes in the batch whose place is
    known.

    Args:
        first: First latent of each map, z_0 (B,).
        classes: -1 for maps without a label (B,), int64.
        class_targets: t_c, scaled logarithm of the cross-section; NaN where unknown (K,).

    Returns:
        Scalar; 0 without such a class.
    """
    z = precise(first)
    is_member = classes == torch.arange(len(class_targets), device=z.device)[:, None]
    counts = is_member.sum(dim=1)
    ordered = torch.where(is_member, z, torch.inf).sort(dim=1).values
    middle = torch.stack(((counts - 1) // 2, counts // 2), dim=1).clamp_min(0)
    is_used = (counts > 0) & class_targets.isfinite()
    medians = torch.where(is_used[:, None], ordered.gather(1, middle), 0.0).mean(dim=1)
    targets = torch.where(is_used, class_targets.to(z), 0.0)
    return (medians - targets).square().sum() / is_used.sum().clamp_min(1)


def regression(first: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared distance of each map from its place on the first axis.

    Args:
        first: First latent of each map, z_0 (B,).
        targets: Scaled logarithm of the cross-section; NaN where unknown (B,).

    Returns:
        Scalar; 0 where no cross-section is known.
    """
    z, is_known = precise(first), targets.isfinite()
    error = torch.where(is_known, z - torch.where(is_known, targets.to(z), 0.0), 0.0)
    return error.square().sum() / is_known.sum().clamp_min(1)


def classification(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the mean cross-entropy of maps with a label; 0 without any.

    Args:
        logits: (B, K).
        classes: -1 for maps without a label (B,), int64.
    """
    total = cross_entropy(precise(logits), classes, ignore_index=UNLABELLED, reduction="sum")
    return total / (classes != UNLABELLED).sum().clamp_min(1)


def bound(z: Tensor) -> Tensor:
    """Return the mean square of how far latents (B, L) lie outside of [0, 1]."""
    z = precise(z)
    return (z - z.clamp(0.0, 1.0)).square().mean()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the mean divergence of normal distributions of latents from the standard one.

    `KL = (mean^2 + variance - log variance - 1) / 2` (Kingma & Welling 2014, arXiv:1312.6114,
    appendix B), mean over maps and axes.

    Args:
        mean: (B, L).
        log_variance: (B, L).
    """
    mean, log_variance = precise(mean), precise(log_variance)
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1.0).mean()
