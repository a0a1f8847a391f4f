"""Losses: cross-entropy of cell membership and of redshifts, likelihood of cluster properties."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from datagen.errors import ConfigError

# Edges of the redshift classes, finest where red-sequence colours change fastest.
REDSHIFT_EDGES = (0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.95)
STAR = len(REDSHIFT_EDGES) + 1
N_REDSHIFT_CLASSES = STAR + 1
NO_CLASS = -1


def redshift_classes(redshifts: Tensor) -> Tensor:
    """Return the class of each redshift: its interval, `STAR` for 0, `NO_CLASS` below 0."""
    edges = torch.tensor(REDSHIFT_EDGES, device=redshifts.device)
    classes = torch.bucketize(redshifts.contiguous(), edges, right=True)
    classes = torch.where(redshifts == 0, STAR, classes)
    return torch.where(redshifts < 0, NO_CLASS, classes)


def redshift_loss(logits: Tensor, redshifts: Tensor) -> Tensor:
    """Return the mean cross-entropy of redshift classes where there is a bright source.

    Args:
        logits: (B, `N_REDSHIFT_CLASSES`, h, w).
        redshifts: Redshift map: 0 for a star, -1 without source (B, h, w).

    Returns:
        Scalar; 0 where there is no source at all.
    """
    classes = redshift_classes(redshifts)
    total = cross_entropy(logits.float(), classes, ignore_index=NO_CLASS, reduction="sum")
    return total / (classes != NO_CLASS).sum().clamp_min(1)


def membership_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor,
    pos_weight: float = 1.0,
    focal_gamma: float = 0.0,
) -> Tensor:
    """Return the mean cross-entropy over cells, weighted by cell.

    `L = sum_i w_i f_i c_i / sum_i w_i`, with the cross-entropy c_i, whose positive term is
    multiplied by `pos_weight`, and the focal factor `f_i = (1 - p_i)^gamma`, where p_i is the
    probability given to the true class (Lin et al. 2017, eq. 4, arXiv:1708.02002).

    Args:
        logits: (B, ny, nx).
        target: 1 for a cell with a member, else 0 (B, ny, nx).
        weight: >= 0; cells with weight 0 do not count (B, ny, nx).
        pos_weight: Weight of positive cells; other than 1 it shifts the logits by its logarithm.
        focal_gamma: 0 is plain cross-entropy; above, probabilities are no longer calibrated.

    Returns:
        Scalar; 0 where no cell counts.
    """
    logits = logits.float()
    factor = torch.where(target > 0, pos_weight, 1.0)
    entropy = factor * binary_cross_entropy_with_logits(logits, target, reduction="none")
    if focal_gamma > 0:
        # 1 - p of the true class, from the logit directly: exact where p is close to 1.
        entropy = entropy * torch.sigmoid(torch.where(target > 0, -logits, logits)) ** focal_gamma
    return (weight * entropy).sum() / weight.sum().clamp_min(torch.finfo(logits.dtype).tiny)


def cluster_loss(mean: Tensor, log_sigma: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of cluster properties with normal errors.

    `L = sum_i w_i sum_k [ln s_ik + (y_ik - m_ik)^2 / (2 s_ik^2)] / sum_i w_i` (Nix & Weigend 1994,
    doi:10.1109/ICNN.1994.374138, without the constant).

    Args:
        mean: Estimates m (B, K, ny, nx).
        log_sigma: Logarithms of their standard deviations s (B, K, ny, nx).
        target: True values y (B, K, ny, nx).
        weight: >= 0; 0 for cells without a cluster (B, ny, nx).

    Returns:
        Scalar; 0 where no cell counts.
    """
    mean, log_sigma = mean.float(), log_sigma.float()
    pull = (target - mean) * torch.exp(-log_sigma)
    total = (weight[:, None] * (log_sigma + 0.5 * pull**2)).sum()
    return total / weight.sum().clamp_min(torch.finfo(mean.dtype).tiny)


def check_loss(
    pos_weight: float, focal_gamma: float, redshift_weight: float, cluster_weight: float
) -> None:
    """Raise `ConfigError` unless the options of the loss are in range."""
    if pos_weight <= 0:
        raise ConfigError(
            f"expected model.loss.pos_weight > 0, but got pos_weight = {pos_weight}", pos_weight
        )
    if focal_gamma < 0:
        raise ConfigError(
            f"expected model.loss.focal_gamma >= 0, but got focal_gamma = {focal_gamma}",
            focal_gamma,
        )
    for name, value in (("redshift_weight", redshift_weight), ("cluster_weight", cluster_weight)):
        if value < 0:
            raise ConfigError(f"expected model.loss.{name} >= 0, but got {name} = {value}", value)
