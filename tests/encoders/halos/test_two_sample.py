"""Two-sample tests: slow transcriptions, level under the null hypothesis, power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import binom
from sklearn.kernel_ridge import KernelRidge

from encoders.halos.two_sample import (
    Pair,
    TestResult,
    classifier_test,
    gaussian_kernel,
    mmd_test,
)


def pair(rng: np.random.Generator, n: int, m: int, shift: float = 0.0, maps: int = 1) -> Pair:
    """Return two sets whose clusters have so many maps, alike but for a little noise."""
    a, b = (
        np.repeat(rng.normal(size=(k, 3)), maps, axis=0) + 0.1 * rng.normal(size=(k * maps, 3))
        for k in (n, m)
    )
    clusters = [np.repeat(np.arange(k), maps) for k in (n, m)]
    return Pair(a, b + shift, clusters[0], clusters[1])


def run(name: str, sets: Pair, seed: int, n_permutations: int = 39) -> TestResult:
    rng = np.random.default_rng(seed)
    if name == "mmd":
        return mmd_test(sets, n_permutations, rng)
    return classifier_test(sets, n_permutations, rng, n_folds=4, ridge=0.1)


def test_kernel_and_mmd_against_scipy_and_double_sums() -> None:
    sets = pair(np.random.default_rng(0), 9, 12, shift=0.5)
    distances = pdist(sets.features)
    kernel = np.exp(-0.5 * squareform(distances) ** 2 / np.median(distances) ** 2)
    np.testing.assert_allclose(gaussian_kernel(sets.features), kernel, rtol=1e-10)
    aa = np.mean([kernel[i, j] for i in range(9) for j in range(9) if i != j])
    bb = np.mean([kernel[i, j] for i in range(9, 21) for j in range(9, 21) if i != j])
    ab = np.mean([kernel[i, j] for i in range(9) for j in range(9, 21)])
    assert run("mmd", sets, 0).statistic == pytest.approx(aa + bb - 2 * ab, rel=1e-10)


def test_the_classifier_is_kernel_ridge_regression_over_folds() -> None:
    sets = pair(np.random.default_rng(1), 12, 10, shift=0.8, maps=2)
    found = run("c2st", sets, 5, n_permutations=0)
    kernel, clusters = gaussian_kernel(sets.features), sets.clusters
    sign = np.r_[np.ones(24), -np.ones(20)]
    fold = np.random.default_rng(5).permutation(22)[clusters] % 4
    score = np.zeros(44)
    for k in range(4):
        test, rest = fold == k, fold != k
        model = KernelRidge(alpha=0.1, kernel="precomputed")
        model.fit(kernel[np.ix_(rest, rest)], sign[rest] - sign[rest].mean())
        score[test] = model.predict(kernel[np.ix_(test, rest)])
    right = np.sign(score) == sign
    assert found.statistic == pytest.approx(0.5 * (right[:24].mean() + right[24:].mean()))
    assert found.p_value == 1.0


@pytest.mark.parametrize("name", ["mmd", "c2st"])
def test_equal_sets_are_rejected_as_often_as_the_level_says(name: str) -> None:
    """Also where maps of a cluster are alike; counting maps alone would reject nearly always."""
    n_sets = 120
    by_cluster, by_map = [], []
    for seed in range(n_sets):
        sets = pair(np.random.default_rng(100 + seed), 6, 8, maps=4)
        alone = Pair(sets.a, sets.b, np.arange(24), np.arange(32))
        by_cluster.append(run(name, sets, seed, 19).p_value <= 0.1)
        by_map.append(name == "mmd" and run(name, alone, seed, 19).p_value <= 0.1)
    low, high = binom.ppf([0.005, 0.995], n_sets, 0.1)
    assert low <= sum(by_cluster) <= high
    assert name != "mmd" or sum(by_map) > 0.5 * n_sets


@pytest.mark.parametrize("name", ["mmd", "c2st"])
@pytest.mark.parametrize("maps", [(1, 12), (12, 2)])
def test_clusters_of_many_and_of_few_maps_are_rejected_as_often(
    name: str, maps: tuple[int, int]
) -> None:
    n_sets, found = 120, []
    for seed in range(n_sets):
        rng = np.random.default_rng(500 + seed)
        one, other = (pair(rng, 16, 6, maps=n) for n in maps)
        sets = Pair(one.a, other.b, one.clusters_a, other.clusters_b)
        found.append(run(name, sets, seed, 19).p_value <= 0.1)
    low, high = binom.ppf([0.005, 0.995], n_sets, 0.1)
    assert low <= sum(found) <= high


def test_as_many_maps_of_each_cluster_are_drawn() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(9, 2)), rng.normal(size=(10, 2))
    sets = Pair(a, b, np.array([5, 5, 5, 2, 2, 2, 2, 9, 9]), np.repeat([2, 7], 5))
    few = sets.drawn(rng)
    assert np.unique(few.clusters_a, return_counts=True)[1].tolist() == [2, 2, 2]
    assert np.unique(few.clusters_b, return_counts=True)[1].tolist() == [2, 2]
    for values, clusters, all_values, all_clusters in (
        (few.a, few.clusters_a, a, sets.clusters_a),
        (few.b, few.clusters_b, b, sets.clusters_b),
    ):
        rows = [np.flatnonzero((all_values == value).all(axis=1)) for value in values]
        assert np.array_equal(all_clusters[np.concatenate(rows)], clusters)
        assert len({int(row[0]) for row in rows}) == len(values)
    assert few.drawn(rng) is few


@pytest.mark.parametrize("name", ["mmd", "c2st"])
def test_sets_that_differ_are_told_apart(name: str) -> None:
    sets = pair(np.random.default_rng(3), 40, 30, shift=1.0, maps=2)
    assert run(name, sets, 0).p_value == 1 / 40
    rng = np.random.default_rng(4)
    # Equal means, other shapes.
    ring = rng.normal(size=(60, 2))
    ring *= (2.0 / np.linalg.norm(ring, axis=1))[:, None]
    blob = rng.normal(size=(60, 2)) * 0.5
    shapes = Pair(ring, blob, np.arange(60), np.arange(60))
    assert run(name, shapes, 0).p_value == 1 / 40


def test_axes_without_scatter_do_no_harm() -> None:
    flat = np.zeros((8, 3))
    sets = Pair(flat, flat, np.arange(8), np.arange(8))
    for name in ("mmd", "c2st"):
        assert run(name, sets, 0).p_value == 1.0
