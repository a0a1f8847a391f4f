"""How much of what validation data suggest a calibration keeps."""

from __future__ import annotations

import torch
from scipy import stats
from torch import Tensor

CONFIDENCE = 0.95


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
