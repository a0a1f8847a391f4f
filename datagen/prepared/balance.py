"""How alike the distributions of a field are in two samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def ks_statistic(a: Array, b: Array) -> float:
    """Return the largest difference of two empirical distribution functions (Kolmogorov-Smirnov).

    Args:
        a: Values (n,).
        b: Values (m,).

    Returns:
        In [0, 1]; nan where a sample is empty.
    """
    if not len(a) or not len(b):
        return float("nan")
    both = np.concatenate([a, b])
    shares = [np.searchsorted(np.sort(x), both, side="right") / len(x) for x in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def mean_difference(a: Array, b: Array) -> float:
    """Return the standardised mean difference, (mean a - mean b) / sqrt((var a + var b) / 2).

    Austin 2011, Multivariate Behav. Res. 46, 399, doi:10.1080/00273171.2011.568786: below 0.1 in
    absolute value samples count as balanced. Variances are those of samples, with n - 1.

    Returns:
        nan where a sample has less than two values; 0 where all values are equal.
    """
    if min(len(a), len(b)) < 2:
        return float("nan")
    offset = float(a.mean() - b.mean())
    width = float(np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2.0))
    if width == 0.0:
        return 0.0 if offset == 0.0 else float(np.copysign(np.inf, offset))
    return offset / width


def balance(targets: Array, sources: Array, partner: NDArray[np.int64]) -> dict[str, float]:
    """Compare a field before and after matching, where it is finite.

    Args:
        targets: Of all target rows (n,).
        sources: Of all source rows (m,).
        partner: Row of sources for each target, -1 for none (n,).
    """
    is_matched = partner >= 0
    before = (targets[np.isfinite(targets)], sources[np.isfinite(sources)])
    pairs = np.stack([targets[is_matched], sources[partner[is_matched]]])
    after = pairs[:, np.isfinite(pairs).all(axis=0)]
    return {
        "ks_before": ks_statistic(*before),
        "ks_after": ks_statistic(after[0], after[1]),
        "mean_difference_before": mean_difference(*before),
        "mean_difference_after": mean_difference(after[0], after[1]),
    }
