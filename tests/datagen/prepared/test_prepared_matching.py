"""Matching against literal transcriptions, and balance against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import ks_2samp

from benchmarks import matching as benchmark
from datagen.errors import ConfigError
from datagen.prepared.balance import balance, ks_statistic, mean_difference
from datagen.prepared.matching import BLOCK, STRATEGIES, candidates, match

Array = NDArray[np.float64]


def fields(rng: np.random.Generator, n: int, k: int, kind: str) -> Array:
    """Random rows: smooth ones, or multiples of a tenth, full of ties and of exact limits."""
    if kind == "smooth":
        return rng.normal(10.0, 1.0, (n, k))
    return np.asarray(rng.integers(0, 6, (n, k)) / 10 + 1e3 * (kind == "far"))


def are_close(a: Array, b: Array, tolerance: Array) -> bool:
    with np.errstate(invalid="ignore"):  # inf - inf
        return all(abs(x - y) <= limit for x, y, limit in zip(a, b, tolerance, strict=True))


def brute_nearest(targets: Array, sources: Array, tolerance: Array, order: list[int]) -> list[int]:
    """The rules word by word."""
    partner, used = [-1] * len(targets), set()
    for t in order:
        best, nearest = -1, np.inf
        for s in range(len(sources)):
            distance = float((((sources[s] - targets[t]) / tolerance) ** 2).sum())
            is_free = s not in used and are_close(targets[t], sources[s], tolerance)
            if is_free and distance < nearest:
                best, nearest = s, distance
        if best >= 0:
            partner[t] = best
            used.add(best)
    return partner


TABLES = {
    "seed": st.integers(0, 10**6),
    "n": st.tuples(st.integers(0, 25), st.integers(0, 25)),
    "k": st.integers(1, 3),
    "kind": st.sampled_from(["smooth", "ties", "far"]),
    "width": st.sampled_from([0.1, 0.3, 1.0, 5.0]),
}


@given(**TABLES)
@settings(max_examples=35, deadline=None)
def test_nearest_agrees_with_brute_force(
    seed: int, n: tuple[int, int], k: int, kind: str, width: float
) -> None:
    rng = np.random.default_rng(seed)
    targets, sources = (fields(rng, count, k, kind) for count in n)
    tolerance = width * rng.uniform(0.5, 1.0, k) if kind == "smooth" else np.full(k, width)
    order = np.random.default_rng(seed).permutation(n[0]).tolist()
    expected = brute_nearest(targets, sources, tolerance, order)
    found = match(targets, sources, tolerance, "nearest", np.random.default_rng(seed))
    assert found.tolist() == expected


@given(**TABLES)
@settings(max_examples=35, deadline=None)
def test_every_strategy_respects_tolerances_and_uses_rows_once(
    seed: int, n: tuple[int, int], k: int, kind: str, width: float
) -> None:
    rng = np.random.default_rng(seed)
    targets, sources = (fields(rng, count, k, kind) for count in n)
    for rows in (targets, sources):
        rows[rng.random(rows.shape) < 0.05] = rng.choice([np.nan, np.inf])
    tolerance = np.full(k, width)
    close = np.array([[are_close(t, s, tolerance) for s in sources] for t in targets])
    close = close.reshape(n)
    n_pairs = {}
    for strategy in STRATEGIES:
        found = match(targets, sources, tolerance, strategy, np.random.default_rng(seed))
        pairs = np.flatnonzero(found >= 0)
        assert close[pairs, found[pairs]].all()
        assert len(set(found[pairs].tolist())) == len(pairs)
        # Nobody is left who could still have had somebody.
        is_used = np.isin(np.arange(n[1]), found)
        assert not close[found < 0][:, ~is_used].any()
        n_pairs[strategy] = len(pairs)
    rows, columns = linear_sum_assignment(close, maximize=True)
    assert n_pairs["max"] == close[rows, columns].sum()
    assert n_pairs["max"] >= max(n_pairs.values())


def test_random_takes_each_candidate_equally_often() -> None:
    sources = np.array([[0.0], [0.4], [0.8], [3.0]])
    counts = np.zeros(4)
    for seed in range(300):
        rng = np.random.default_rng(seed)
        counts[match(np.array([[0.5]]), sources, np.ones(1), "random", rng)] += 1
    assert counts[3] == 0
    assert (np.abs(counts[:3] - 100) < 4 * np.sqrt(300 * 2 / 9)).all()


def test_targets_of_several_blocks_share_the_sources() -> None:
    targets, sources = benchmark.tables(3 * BLOCK, 2 * BLOCK, seed=0)
    found = benchmark.compare(targets, sources, seed=5)
    assert [one.name for one in found] == ["brute force", "nearest", "random", "max"]
    np.testing.assert_array_equal(found[0].partner, found[1].partner)
    assert 0.2 < found[1].matched < found[3].matched
    close = (np.abs(targets[:, None] - sources) <= benchmark.TOLERANCE).all(axis=2)
    i, j, distance = (
        np.concatenate(x)
        for x in zip(*candidates(targets, sources, benchmark.TOLERANCE), strict=True)
    )
    np.testing.assert_array_equal(np.argwhere(close), np.stack([i, j], axis=1))
    expected = (((targets[i] - sources[j]) / benchmark.TOLERANCE) ** 2).sum(axis=1)
    np.testing.assert_allclose(distance, expected, rtol=1e-12)


def test_a_difference_of_exactly_the_tolerance_counts() -> None:
    """0.5 - 0.25 is 0.25; 0.8 - 0.7 is a little more than 0.1 in floating point."""
    for values, limit, expected in (((0.5, 0.25), 0.25, 0), ((0.8, 0.7), 0.1, -1)):
        a, b = (np.array([[value]]) for value in values)
        for strategy in STRATEGIES:
            found = match(a, b, np.array([limit]), strategy, np.random.default_rng(0))
            assert found.tolist() == [expected]


def test_an_unknown_strategy_is_named() -> None:
    with pytest.raises(ConfigError, match="expected strategy to be one of nearest, random, max"):
        match(np.zeros((1, 1)), np.zeros((1, 1)), np.ones(1), "best", np.random.default_rng(0))


@given(seed=st.integers(0, 10**6), n=st.tuples(st.integers(1, 30), st.integers(1, 30)))
@settings(max_examples=20, deadline=None)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # scipy's p-value of one row
def test_ks_agrees_with_scipy(seed: int, n: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, 12, count) / 3.0 for count in n)
    assert ks_statistic(a, b) == pytest.approx(ks_2samp(a, b, method="asymp").statistic, abs=1e-12)


def test_mean_difference_of_known_samples() -> None:
    """Means 2 and 5, variances 1 and 7: -3 / 2."""
    a, b = np.array([1.0, 2.0, 3.0]), np.array([2.0, 6.0, 7.0])
    assert mean_difference(a, b) == pytest.approx(-1.5)
    assert mean_difference(np.ones(3), np.ones(2)) == 0.0
    assert mean_difference(np.ones(3), np.zeros(2)) == np.inf
    assert np.isnan(mean_difference(np.ones(1), np.ones(2)))
    assert np.isnan(ks_statistic(np.ones(0), np.ones(2)))


def test_matching_balances_what_it_matches() -> None:
    rng = np.random.default_rng(2)
    targets, sources = rng.normal(0.0, 1.0, (400, 1)), rng.normal(1.0, 1.0, (400, 1))
    partner = match(targets, sources, np.array([0.1]), "nearest", rng)
    found = balance(targets[:, 0], sources[:, 0], partner)
    assert found["ks_before"] > 0.3
    assert abs(found["mean_difference_before"]) > 0.8
    assert found["ks_after"] < 0.08
    assert abs(found["mean_difference_after"]) < 0.1
