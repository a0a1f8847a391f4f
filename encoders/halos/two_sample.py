"""Are two sets of maps drawn from the same distribution? Tests on features or latents.

Whole clusters are permuted, since maps of one cluster are alike. A cluster of many maps is not
exchangeable with one of few, so that of each as many maps are drawn as the smallest one has: then
p-values are exact whatever the test statistic, as long as clusters are independent. Sets of matched
initial conditions, where a cluster of one set has a twin in the other, are closer than that; their
p-values are too large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
# Smallest scale of an axis or a kernel.
TINY = 1e-12


@dataclass(frozen=True)
class TestResult:
    """What a permutation test found.

    Args:
        statistic: Larger where the sets differ more.
        p_value: Share of permutations with a statistic at least as large, these sets included.
    """

    __test__ = False  # pytest shall not collect it

    statistic: float
    p_value: float


@dataclass(frozen=True)
class Pair:
    """Two sets.

    Args:
        a: Features (n, D).
        b: Features (m, D).
        clusters_a: Cluster of each map of a (n,).
        clusters_b: Cluster of each map of b; the same number in a is another cluster (m,).
    """

    a: Numbers
    b: Numbers
    clusters_a: NDArray[np.int64]
    clusters_b: NDArray[np.int64]

    @property
    def features(self) -> Numbers:
        """Of both sets, each axis with mean 0 and standard deviation 1 over both (n + m, D)."""
        both = np.concatenate([self.a, self.b]).astype(np.float64)
        return np.asarray((both - both.mean(axis=0)) / np.maximum(both.std(axis=0), TINY))

    @property
    def clusters(self) -> NDArray[np.int64]:
        """Clusters of both sets, numbered from 0, those of a first (n + m,)."""
        a = np.unique(self.clusters_a, return_inverse=True)[1].reshape(-1)
        b = np.unique(self.clusters_b, return_inverse=True)[1].reshape(-1)
        return np.concatenate([a, a.max() + 1 + b]).astype(np.int64)

    def drawn(self, rng: np.random.Generator) -> Pair:
        """Return the pair with the same number of maps of each cluster, drawn where it has more."""
        clusters = self.clusters
        counts = np.bincount(clusters)
        if counts.min() == counts.max():
            return self
        order = rng.permutation(len(clusters))
        order = order[np.argsort(clusters[order], kind="stable")]
        place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        chosen = np.sort(order[place < counts.min()])
        a, b = chosen[chosen < len(self.a)], chosen[chosen >= len(self.a)] - len(self.a)
        return Pair(self.a[a], self.b[b], self.clusters_a[a], self.clusters_b[b])

    def memberships(self, n_permutations: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Return which maps are in a: as they are, then permuted (1 + n_permutations, n + m)."""
        clusters = self.clusters
        is_in_a = np.zeros(clusters.max() + 1, bool)
        is_in_a[clusters[: len(self.a)]] = True
        order = [is_in_a, *(rng.permutation(is_in_a) for _ in range(n_permutations))]
        return np.stack(order)[:, clusters]


def mmd_test(pair: Pair, n_permutations: int, rng: np.random.Generator) -> TestResult:
    """Test with the maximum mean discrepancy.

    `MMD^2 = mean k(a, a') + mean k(b, b') - 2 mean k(a, b)` without pairs of a map with itself
    (Gretton et al. 2012, JMLR 13, 723, eq. 3), with a Gaussian kernel as wide as the median
    distance of all maps.

    Args:
        pair: The sets.
        n_permutations: p-values are multiples of 1 / (n_permutations + 1).
        rng: Draws maps and permutations.
    """
    pair = pair.drawn(rng)
    kernel = gaussian_kernel(pair.features)
    np.fill_diagonal(kernel, 0.0)
    is_in_a = pair.memberships(n_permutations, rng).astype(np.float64)
    sums = is_in_a @ kernel
    aa = (sums * is_in_a).sum(axis=1)
    ab = sums.sum(axis=1) - aa
    bb = kernel.sum() - aa - 2.0 * ab
    n = is_in_a.sum(axis=1)
    m = is_in_a.shape[1] - n
    pairs_a, pairs_b = (np.maximum(k * (k - 1.0), 1.0) for k in (n, m))
    return _result(aa / pairs_a + bb / pairs_b - 2.0 * ab / (n * m))


def classifier_test(
    pair: Pair, n_permutations: int, rng: np.random.Generator, n_folds: int, ridge: float
) -> TestResult:
    """Test with a classifier that tries to tell the sets apart (C2ST).

    The statistic is its accuracy on clusters that it was not trained on, the mean of those on both
    sets: 0.5 where they are the same (Lopez-Paz & Oquab 2017, arXiv:1610.06545). The classifier is
    kernel ridge regression on +-1, which is linear in them, so that it is trained for all
    permutations at once.

    Args:
        pair: The sets.
        n_permutations: p-values are multiples of 1 / (n_permutations + 1).
        rng: Draws maps, permutations and folds.
        n_folds: Parts of the clusters; each part is classified by what the others taught.
        ridge: Added to the diagonal of the kernel matrix, whose elements are 0 to 1.
    """
    pair = pair.drawn(rng)
    kernel, clusters = gaussian_kernel(pair.features), pair.clusters
    is_in_a = pair.memberships(n_permutations, rng)
    signs = np.where(is_in_a, 1.0, -1.0).T
    fold = rng.permutation(clusters.max() + 1)[clusters] % n_folds
    score = np.zeros(signs.shape)
    for k in range(n_folds):
        test, rest = fold == k, fold != k
        if not test.any():
            continue
        middle = signs[rest].mean(axis=0)
        matrix = kernel[np.ix_(rest, rest)] + ridge * np.eye(int(rest.sum()))
        taught = np.linalg.solve(matrix, signs[rest] - middle)
        score[test] = kernel[np.ix_(test, rest)] @ taught
    is_right = (np.where(score > 0, 1.0, -1.0) == signs).T
    shares = [(is_right & side).sum(axis=1) / side.sum(axis=1) for side in (is_in_a, ~is_in_a)]
    return _result(0.5 * (shares[0] + shares[1]))


def gaussian_kernel(features: Numbers) -> Numbers:
    """Return exp(-d^2 / (2 w^2)) of all pairs, with w the median of their distances (n, n)."""
    square = (features**2).sum(axis=1)
    distance2 = np.maximum(square[:, None] + square - 2.0 * features @ features.T, 0.0)
    width = np.median(np.sqrt(distance2[np.triu_indices(len(features), 1)]))
    return np.asarray(np.exp(-0.5 * distance2 / max(float(width) ** 2, TINY)))


def _result(statistics: Numbers) -> TestResult:
    """Return the result of the first statistic among those of permutations."""
    # Equal sets of maps, summed in another order, differ in the last bits.
    is_as_large = statistics >= statistics[0] - TINY
    return TestResult(float(statistics[0]), float(is_as_large.mean()))
