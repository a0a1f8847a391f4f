"""Conformal intervals: against the textbook, brute force, and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.halos.conformal import (
    coverage,
    pooled_quantile,
    quantile_shift,
    shifted,
    width_factor,
)


@pytest.mark.parametrize("level", [0.05, 0.5, 0.68, 0.9, 0.95])
@pytest.mark.parametrize("n", [1, 9, 19, 20, 99, 100])
def test_single_maps_give_the_order_statistic_of_split_conformal(n: int, level: float) -> None:
    scores = np.random.default_rng(n).normal(size=n)
    k = math.ceil(round((n + 1) * level, 9))
    expected = np.sort(scores)[k - 1] if k <= n else np.inf
    assert pooled_quantile(scores, np.arange(n), level) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 6)), min_size=1, max_size=30),
       st.floats(0.01, 0.99))  # fmt: skip
def test_the_quantile_is_the_least_score_with_enough_weight(
    rows: list[tuple[int, int]], level: float
) -> None:
    scores, clusters = np.array(rows).T
    found = pooled_quantile(scores, clusters, level)
    n_clusters = len(set(clusters.tolist()))

    def weight(score: float) -> float:
        shares = [np.mean(scores[clusters == k] <= score) for k in set(clusters.tolist())]
        return float(np.sum(shares)) / (n_clusters + 1)

    enough = [s for s in scores if weight(s) >= level - 1e-9]
    assert found == (min(enough) if enough else np.inf)


def simulated(
    rng: np.random.Generator, n_clusters: int, first: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return target, mean, sigma, clusters: errors are skew, shared, and twice what sigma says."""
    counts = rng.integers(1, 13, n_clusters)
    clusters = first + np.repeat(np.arange(n_clusters), counts)
    shared = np.repeat(rng.gumbel(size=n_clusters), counts)
    sigma = rng.uniform(0.1, 0.5, len(clusters))
    target = rng.uniform(size=len(clusters))
    noise = 2.0 * sigma * (shared + 0.5 * rng.normal(size=len(clusters)))
    return target, target + noise, sigma, clusters


@pytest.mark.parametrize("level", [0.68, 0.9])
def test_intervals_cover_maps_of_new_clusters(level: float) -> None:
    """Over 300 calibrations with 60 clusters, coverage is the level or at most 1/61 more."""
    rng = np.random.default_rng(1)
    held = []
    for _ in range(300):
        known, new = simulated(rng, 60, 0), simulated(rng, 60, 1000)
        factor = width_factor(*known, level)
        shift = quantile_shift(known[0], known[1] - known[2], known[1] + known[2], known[3], level)
        target, mean, sigma, clusters = new
        both = [
            (mean - factor * sigma, mean + factor * sigma),
            shifted(mean - sigma, mean + sigma, shift),
        ]
        # One map of each new cluster counts as much as many of it.
        weight = 1.0 / np.bincount(clusters - 1000)[clusters - 1000]
        held.append([np.sum(weight * ((low <= target) & (target <= high))) / 60
                     for low, high in both])  # fmt: skip
    share, error = np.mean(held, axis=0), np.std(held, axis=0) / 300**0.5
    assert (error < 0.007).all()
    assert (share > level - 3 * error).all()
    assert (share < level + 1 / 61 + 3 * error).all()


def test_counting_maps_as_clusters_would_not_cover() -> None:
    """Nine clusters with many maps are nine clusters: at 85 % only their largest error will do."""
    rng = np.random.default_rng(2)
    held: list[list[bool]] = []
    for _ in range(1000):
        errors = np.abs(rng.normal(size=10))
        known = np.repeat(errors[:9], 50)
        clusters = np.repeat(np.arange(9), 50)
        limits = (
            pooled_quantile(known, clusters, 0.85),
            pooled_quantile(known, np.arange(450), 0.85),
        )
        held.append([bool(errors[9] <= limit) for limit in limits])
    by_cluster, by_map = np.mean(held, axis=0)
    assert by_cluster == pytest.approx(0.9, abs=0.03)
    assert by_map == pytest.approx(0.8, abs=0.03)
    assert pooled_quantile(known, clusters, 0.95) == np.inf


def test_unknown_targets_do_not_count() -> None:
    target, mean, sigma, clusters = simulated(np.random.default_rng(5), 60, 0)
    is_known = np.random.default_rng(6).random(len(target)) < 0.6
    some = np.where(is_known, target, np.nan)
    low, high = mean - sigma, mean + sigma
    kept = [x[is_known] for x in (target, mean, sigma, clusters)]
    assert width_factor(some, mean, sigma, clusters, 0.68) == width_factor(*kept, 0.68)
    ends = (low[is_known], high[is_known], clusters[is_known])
    shift = quantile_shift(some, low, high, clusters, 0.68)
    assert shift == quantile_shift(kept[0], *ends, 0.68)
    assert coverage(some, low, high, clusters) == coverage(kept[0], *ends)
    none = np.full(len(target), np.nan)
    assert width_factor(none, mean, sigma, clusters, 0.68) == np.inf
    assert np.isnan(coverage(none, low, high, clusters)).all()


def test_a_shift_does_not_turn_intervals_around() -> None:
    low, high = shifted([0.0, 0.0], [1.0, 0.2], -0.2)
    np.testing.assert_allclose(low, [0.2, 0.1])
    np.testing.assert_allclose(high, [0.8, 0.1])


def test_the_error_of_coverage_is_that_of_clusters() -> None:
    rng = np.random.default_rng(3)
    hits = rng.random(500) < 0.7
    target = np.where(hits, 0.5, 2.0)
    share, error = coverage(target, np.zeros(500), np.ones(500), np.arange(500))
    assert share == hits.mean()
    assert error == pytest.approx(np.std(hits, ddof=1) / 500**0.5)
    # Ten copies of each map know no more.
    copies = (np.repeat(x, 10) for x in (target, np.zeros(500), np.ones(500), np.arange(500)))
    assert coverage(*copies) == pytest.approx((share, error))
    assert np.isnan(coverage(target, np.zeros(500), np.ones(500), np.zeros(500))[1])
