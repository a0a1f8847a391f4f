"""Intervals that hold as often as they say, for maps of clusters that were not seen before."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]
# Sums of weights that should be equal to a level may differ from it in the last bits.
ROUNDING = 1e-9


def pooled_quantile(scores: ArrayLike, clusters: ArrayLike, level: float) -> float:
    """Return the score that a map of a new cluster stays below, with probability `level` at least.

    `Q_level(sum_k sum_i delta(s_ki) / ((K + 1) n_k) + delta(inf) / (K + 1))` over the n_k maps of
    each of K clusters (Lee, Barber & Willett 2023, arXiv:2306.06342, section 3; with one map each
    this is split conformal prediction, Vovk et al. 2005). Maps of one cluster may depend on each
    other in any way: what counts is the number of clusters.

    Args:
        scores: Of maps that trained nothing, larger where a prediction is worse (n,).
        clusters: Their clusters (n,).
        level: In (0, 1).

    Returns:
        The score; inf where there are too few clusters for the level.
    """
    values = np.asarray(scores, np.float64)
    _, inverse, counts = np.unique(np.asarray(clusters), return_inverse=True, return_counts=True)
    order = np.argsort(values, kind="stable")
    weights = 1.0 / ((len(counts) + 1.0) * counts[inverse.reshape(-1)])
    place = np.searchsorted(np.cumsum(weights[order]), level - ROUNDING)
    return float(values[order][place]) if place < len(values) else np.inf


def width_factor(
    target: ArrayLike, mean: ArrayLike, sigma: ArrayLike, clusters: ArrayLike, level: float
) -> float:
    """Return q such that mean +- q sigma holds the target of a new cluster's map.

    The score is |target - mean| / sigma (Lei et al. 2018, arXiv:1604.04173, section 5.2).

    Args:
        target: True values of maps that trained nothing; NaN, unknown, does not count (n,).
        mean: Predictions (n,).
        sigma: Their widths, > 0 (n,).
        clusters: Their clusters (n,).
        level: Share of maps that the intervals shall hold.
    """
    value, middle, width, of = _known(target, mean, sigma, clusters)
    return pooled_quantile(np.abs(value - middle) / width, of, level)


def quantile_shift(
    target: ArrayLike, lower: ArrayLike, upper: ArrayLike, clusters: ArrayLike, level: float
) -> float:
    """Return q such that [lower - q, upper + q] holds the target of a new cluster's map.

    Conformalised quantile regression (Romano, Patterson & Candes 2019, arXiv:1905.03222): intervals
    keep their asymmetry. q is negative where they were too wide.

    Args:
        target: True values of maps that trained nothing; NaN, unknown, does not count (n,).
        lower: Predicted lower quantiles (n,).
        upper: Predicted upper quantiles (n,).
        clusters: Their clusters (n,).
        level: Share of maps that the intervals shall hold.
    """
    value, low, high, of = _known(target, lower, upper, clusters)
    return pooled_quantile(np.maximum(low - value, value - high), of, level)


def shifted(lower: ArrayLike, upper: ArrayLike, shift: float) -> tuple[Numbers, Numbers]:
    """Return [lower - shift, upper + shift]; what would turn around becomes its middle."""
    low, high = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    middle = 0.5 * (low + high)
    return np.minimum(low - shift, middle), np.maximum(high + shift, middle)


def coverage(
    target: ArrayLike, lower: ArrayLike, upper: ArrayLike, clusters: ArrayLike
) -> tuple[float, float]:
    """Return how many intervals hold their target, and the standard error of this share.

    Maps of one cluster are hit or missed together, so that the error is that of a mean over
    clusters: `sum_k (sum_i (h_ki - p))^2 K / (K - 1) / n^2` is its square (Liang & Zeger 1986,
    doi:10.1093/biomet/73.1.13).

    Args:
        target: True values; NaN, unknown, does not count (n,).
        lower: Lower ends (n,).
        upper: Upper ends (n,).
        clusters: Clusters of the maps (n,).

    Returns:
        Share and error; the error is NaN for fewer than two clusters, both without known targets.
    """
    value, low, high, of = _known(target, lower, upper, clusters)
    if not len(value):
        return np.nan, np.nan
    is_held = (low <= value) & (value <= high)
    share = float(is_held.mean())
    _, inverse = np.unique(of, return_inverse=True)
    sums = np.bincount(inverse.reshape(-1), is_held - share)
    n_clusters = len(sums)
    if n_clusters < 2:
        return share, np.nan
    square = float((sums**2).sum()) * n_clusters / (n_clusters - 1.0)
    return share, square**0.5 / len(value)


def coverage_curve(
    target: ArrayLike, lower: Numbers, upper: Numbers, clusters: ArrayLike
) -> Numbers:
    """Return share and error of `coverage` for intervals at several levels (levels, 2).

    Args:
        target: True values (n,).
        lower: Lower ends (levels, n).
        upper: Upper ends (levels, n).
        clusters: Clusters of the maps (n,).
    """
    pairs = zip(lower, upper, strict=True)
    return np.array([coverage(target, low, high, clusters) for low, high in pairs])


def _known(target: ArrayLike, *others: ArrayLike) -> list[NDArray[Any]]:
    """Return targets, and what belongs to them, where the target is known."""
    value = np.asarray(target, np.float64)
    return [np.asarray(one)[np.isfinite(value)] for one in (value, *others)]
