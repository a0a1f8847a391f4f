"""Pairs rows of two tables whose fields agree within tolerances, each row at most once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree

from datagen.errors import ConfigError

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
RANDOM, NEAREST, MAX = "random", "nearest", "max"
STRATEGIES = (NEAREST, RANDOM, MAX)
# Targets whose candidates are in memory at once, 24 bytes for each pair.
BLOCK = 256


def match(
    targets: Array, sources: Array, tolerance: Array, strategy: str, rng: np.random.Generator
) -> Rows:
    """Find a partner in `sources` for rows of `targets`.

    A source row is a candidate if every field differs by at most its tolerance. `nearest` and
    `random` take the targets in random order, and for each one, of the candidates that no other
    target has, the nearest (Euclidean, in units of the tolerances; of equally near ones the first)
    or any. `max` makes as many pairs as there can be (Hopcroft & Karp 1973).

    Args:
        targets: Fields (n, K).
        sources: Fields (m, K).
        tolerance: Largest difference of each field, > 0 (K,).
        strategy: `nearest`, `random` or `max`.
        rng: Draws first the order of the targets, as a permutation of those without nan or inf.

    Returns:
        Row of the partner of each target, -1 for none (n,). Rows with nan or inf have none.

    Raises:
        ConfigError: The strategy is unknown.
    """
    if strategy not in STRATEGIES:
        raise ConfigError(
            f"expected strategy to be one of {', '.join(STRATEGIES)}, but got {strategy}", strategy
        )
    partner = np.full(len(targets), -1, np.int64)
    rows, columns = (np.flatnonzero(np.isfinite(x).all(axis=1)) for x in (targets, sources))
    if not len(rows) or not len(columns):
        return partner
    rows = rows[rng.permutation(len(rows))]
    near = candidates(targets[rows], sources[columns], tolerance)
    if strategy == MAX:
        chosen = _largest(near, (len(rows), len(columns)))
    else:
        chosen = _greedy(near, (len(rows), len(columns)), rng if strategy == RANDOM else None)
    partner[rows] = np.where(chosen >= 0, columns[chosen], -1)
    return partner


def candidates(
    targets: Array, sources: Array, tolerance: Array
) -> Iterator[tuple[Rows, Rows, Array]]:
    """Yield all pairs within the tolerances, for a block of targets at a time.

    Args:
        targets: Finite fields (n, K).
        sources: Finite fields (m, K).
        tolerance: Largest difference of each field, > 0 (K,).

    Yields:
        Rows of targets, rows of sources, squared distances in units of the tolerances; sorted by
        target, then by source.
    """
    middle = np.median(sources, axis=0)
    a, b = (targets - middle) / tolerance, (sources - middle) / tolerance
    # The tree looks a little too far, since dividing rounds; the exact test follows.
    radius = 1.0 + 1e-12 + 8.0 * np.finfo(float).eps * max(np.abs(a).max(), np.abs(b).max())
    tree = cKDTree(b)
    for first in range(0, len(a), BLOCK):
        block = cKDTree(a[first : first + BLOCK])
        found = block.sparse_distance_matrix(tree, radius, p=np.inf, output_type="ndarray")
        i, j = found["i"].astype(np.int64) + first, found["j"].astype(np.int64)
        offset = np.abs(targets[i] - sources[j])
        is_close = (offset <= tolerance).all(axis=1)
        i, j, distance = i[is_close], j[is_close], ((offset[is_close] / tolerance) ** 2).sum(axis=1)
        order = np.lexsort((j, i))
        yield i[order], j[order], distance[order]


def _greedy(
    near: Iterator[tuple[Rows, Rows, Array]],
    shape: tuple[int, int],
    rng: np.random.Generator | None,
) -> Rows:
    """Give each target in turn the best candidate that is left: the nearest, or by chance."""
    chosen, is_free = np.full(shape[0], -1, np.int64), np.ones(shape[1], bool)
    for i, j, distance in near:
        rank = distance if rng is None else rng.random(len(i))
        # A stable order: of equally near candidates the first one comes first.
        order = np.lexsort((rank, i))
        i, j = i[order], j[order]
        starts = np.flatnonzero(np.diff(i, prepend=-1))
        ends = np.flatnonzero(np.diff(i, append=-1)) + 1
        for start, end in zip(starts, ends, strict=True):
            left = is_free[j[start:end]]
            best = int(left.argmax())
            if left[best]:
                chosen[i[start]] = j[start + best]
                is_free[j[start + best]] = False
    return chosen


def _largest(near: Iterator[tuple[Rows, Rows, Array]], shape: tuple[int, int]) -> Rows:
    """Return a matching with as many pairs as there can be."""
    pairs = [(i, j) for i, j, _ in near]
    i, j = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = csr_array((np.ones(len(i), np.int8), (i, j)), shape=shape)
    return np.asarray(maximum_bipartite_matching(graph, perm_type="column"), np.int64)
