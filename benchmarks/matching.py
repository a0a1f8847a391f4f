"""How fast suites are matched: the k-d tree against all pairs, on equal tables in one run.

`python benchmarks/matching.py` prints CPU seconds, the matched share and the balance of each
strategy. The tables have a redshift, a magnitude and a radius, as galaxies do, and the published
tolerances: 0.01, 0.1 mag, 5 px (arXiv:2310.19904). Brute force compares each target with all
sources, and takes targets in the order of `nearest`, whose partners must be the same.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datagen.prepared.balance import ks_statistic
from datagen.prepared.matching import STRATEGIES, match

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
TOLERANCE = np.array([0.01, 0.1, 5.0])


@dataclass(frozen=True)
class Result:
    """What one way of matching found.

    Args:
        name: Of the way.
        seconds: CPU time [s].
        partner: Row of the partner of each target, -1 for none (n,).
        ks: Kolmogorov-Smirnov statistic of the pairs, mean over fields.
    """

    name: str
    seconds: float
    partner: Rows
    ks: float

    @property
    def matched(self) -> float:
        """Share of the targets that have a partner."""
        return float((self.partner >= 0).mean())


def main() -> None:
    """Match, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n-targets", type=int, default=5000)
    parser.add_argument("--n-sources", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    targets, sources = tables(options.n_targets, options.n_sources, options.seed)
    before = mean_ks(targets, sources)
    print(f"{len(targets)} targets, {len(sources)} sources, KS before matching {before:.3f}")
    print(f"{'':12} {'CPU-s':>8} {'speed-up':>9} {'matched':>8} {'KS':>6}  same partners")
    results = compare(targets, sources, options.seed)
    for one in results:
        speed_up = results[0].seconds / one.seconds
        is_same = np.array_equal(one.partner, results[0].partner)
        print(
            f"{one.name:12} {one.seconds:8.3f} {speed_up:9.1f} {one.matched:8.1%} {one.ks:6.3f}  "
            f"{is_same}"
        )


def compare(targets: Array, sources: Array, seed: int) -> list[Result]:
    """Match in all ways, by brute force first.

    Args:
        targets: Fields (n, 3).
        sources: Fields (m, 3).
        seed: Of the order of the targets.
    """

    def strategy(name: str) -> Rows:
        return match(targets, sources, TOLERANCE, name, np.random.default_rng(seed))

    ways: dict[str, Callable[[], Rows]] = {"brute force": lambda: brute(targets, sources, seed)}
    ways |= {name: lambda name=name: strategy(name) for name in STRATEGIES}  # type: ignore[misc]
    results = []
    for name, way in ways.items():
        start = time.process_time()
        partner = way()
        seconds = time.process_time() - start
        is_in = partner >= 0
        results.append(
            Result(name, seconds, partner, mean_ks(targets[is_in], sources[partner[is_in]]))
        )
    return results


def tables(n_targets: int, n_sources: int, seed: int) -> tuple[Array, Array]:
    """Return redshift, magnitude and radius [px] of two suites; the second is farther and fainter.

    Returns:
        (n, 3) and (m, 3).
    """
    rng = np.random.default_rng(seed)
    suites = []
    for n, shift in ((n_targets, 0.0), (n_sources, 0.5)):
        z = rng.beta(2.0 + shift, 2.0, n) * 0.35
        magnitude = 19.0 + shift + 5.0 * np.log10((z + 0.05) / 0.2) + rng.normal(0.0, 0.8, n)
        radius = 25.0 * 10.0 ** (-0.1 * (magnitude - 19.0) + rng.normal(0.0, 0.15, n))
        suites.append(np.stack([z, magnitude, radius], axis=1))
    return suites[0], suites[1]


def brute(targets: Array, sources: Array, seed: int) -> Rows:
    """Match to the nearest by comparing each target with all sources."""
    partner, is_free = np.full(len(targets), -1, np.int64), np.ones(len(sources), bool)
    for target in np.random.default_rng(seed).permutation(len(targets)):
        offsets = np.abs(sources - targets[target])
        is_candidate = (offsets <= TOLERANCE).all(axis=1) & is_free
        distance = np.where(is_candidate, ((offsets / TOLERANCE) ** 2).sum(axis=1), np.inf)
        best = int(distance.argmin())
        if is_candidate[best]:
            partner[target], is_free[best] = best, False
    return partner


def mean_ks(a: Array, b: Array) -> float:
    """Return the Kolmogorov-Smirnov statistic of two tables, mean over fields."""
    return float(np.mean([ks_statistic(a[:, k], b[:, k]) for k in range(a.shape[1])]))


if __name__ == "__main__":
    main()
