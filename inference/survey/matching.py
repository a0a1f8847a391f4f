"""One-to-one matching of two catalogues on the sky; pure functions of arrays.

The three steps and their rules follow ClEvaR (LSST DESC; Aguena et al., "ClEvaR"): all pairs within
a radius, then for each side the best free partner, then the pairs on which both sides agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree

from datagen.errors import ConfigError
from datagen.tiles.geometry import chord, separation_rad, unit_vectors

PREFERENCES = ("angular_proximity", "more_massive", "redshift_proximity")


@dataclass(frozen=True)
class SkyCatalog:
    """Positions and what decides between partners.

    Args:
        ra: Right ascension [deg], shape (n,).
        dec: Declination [deg], shape (n,).
        mass: What ranks the objects: mass, richness or score, shape (n,).
        redshift: Shape (n,), NaN where unknown.
    """

    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    mass: NDArray[np.float64]
    redshift: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ra)


@dataclass(frozen=True)
class Pairs:
    """All pairs within reach.

    Args:
        first: Rows of the first catalogue, shape (n,).
        second: Rows of the second catalogue, shape (n,).
        separation: Angle between them [rad], shape (n,).
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    separation: NDArray[np.float64]


def multiple_match(
    first: SkyCatalog,
    second: SkyCatalog,
    radius_arcmin: ArrayLike,
    redshift_tolerance: float | None = None,
) -> Pairs:
    """Return all pairs of objects within a radius, sorted by first, then second row.

    Args:
        first: A catalogue.
        second: Another one.
        radius_arcmin: One radius, or one for each object of the second catalogue [arcmin].
        redshift_tolerance: Largest |dz| / (1 + z of the second), where both are known; None for
            any.
    """
    radii = np.broadcast_to(np.radians(np.asarray(radius_arcmin, float) / 60), (len(second),))
    if not len(first) or not len(second):
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    here, there = unit_vectors(first.ra, first.dec), unit_vectors(second.ra, second.dec)
    # A hair more than the radius: the exact comparison follows.
    near = KDTree(here).query_ball_point(there, chord(np.minimum(radii, np.pi)) * (1 + 1e-9))
    i = np.array([row for rows in near for row in rows], np.int64)
    j = np.repeat(np.arange(len(second)), [len(rows) for rows in near])
    separation = separation_rad(here[i], there[j])
    keep = separation <= radii[j]
    if redshift_tolerance is not None:
        offset = np.abs(first.redshift[i] - second.redshift[j]) / (1 + second.redshift[j])
        keep &= ~(offset > redshift_tolerance)
    order = np.lexsort((j[keep], i[keep]))
    return Pairs(i[keep][order], j[keep][order], separation[keep][order])


def unique_match(
    pairs: Pairs, first: SkyCatalog, second: SkyCatalog, preference: str
) -> NDArray[np.int64]:
    """Return for each object of the first catalogue its partner in the second, or -1.

    The objects choose in order of falling mass. With `more_massive` each takes its most massive
    free partner. With a proximity each takes its nearest partner that is free or that it is closer
    to than the one who holds it; who loses a partner chooses again.

    Args:
        pairs: What `multiple_match` gave.
        first: The catalogue that chooses.
        second: The catalogue that is chosen from.
        preference: One of `PREFERENCES`.

    Raises:
        ConfigError: The preference is unknown, or needs redshifts that are not there.
    """
    cost = _cost(pairs, first, second, preference)
    choices: list[list[tuple[float, int]]] = [[] for _ in range(len(first))]
    for i, j, c in zip(pairs.first.tolist(), pairs.second.tolist(), cost.tolist(), strict=True):
        choices[i].append((c, j))
    for wishes in choices:
        wishes.sort()
    partner = np.full(len(first), -1)
    holder: dict[int, tuple[float, int]] = {}
    may_replace = preference != "more_massive"
    for start in np.argsort(-first.mass, kind="stable").tolist():
        chooser = start
        while chooser >= 0:
            chooser = _choose(chooser, choices[chooser], holder, partner, may_replace)
    return partner


def cross_match(
    first: SkyCatalog, second: SkyCatalog, pairs: Pairs, preference: str
) -> NDArray[np.int64]:
    """Return for each object of the first catalogue the partner on which both agree, or -1."""
    forward = unique_match(pairs, first, second, preference)
    mirrored = Pairs(pairs.second, pairs.first, pairs.separation)
    backward = unique_match(mirrored, second, first, preference)
    partner = np.full(len(first), -1)
    chosen = np.flatnonzero(forward >= 0)
    agreed = chosen[backward[forward[chosen]] == chosen]
    partner[agreed] = forward[agreed]
    return partner


def wilson_interval(
    successes: ArrayLike, trials: ArrayLike, z: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the Wilson score interval of a fraction; (0, 1) where there are no trials.

    (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), Wilson 1927,
    doi:10.1080/01621459.1927.10502953.

    Args:
        successes: Counts.
        trials: Counts.
        z: Half width in standard deviations; 1 covers 68 %.
    """
    n = np.asarray(trials, np.float64)
    k = np.asarray(successes, np.float64)
    safe = np.maximum(n, 1)
    p = k / safe
    centre = p + z**2 / (2 * safe)
    half = z * np.sqrt(p * (1 - p) / safe + z**2 / (4 * safe**2))
    scale = 1 + z**2 / safe
    low = np.where(n > 0, np.clip((centre - half) / scale, 0, 1), 0.0)
    high = np.where(n > 0, np.clip((centre + half) / scale, 0, 1), 1.0)
    return low, high


def _choose(
    chooser: int,
    wishes: Sequence[tuple[float, int]],
    holder: dict[int, tuple[float, int]],
    partner: NDArray[np.int64],
    may_replace: bool,
) -> int:
    """Give `chooser` its best partner; return who lost it and chooses next, or -1."""
    for cost, wish in wishes:
        held = holder.get(wish)
        if held is None or (may_replace and cost < held[0]):
            holder[wish] = (cost, chooser)
            partner[chooser] = wish
            if held is None:
                return -1
            partner[held[1]] = -1
            return held[1]
    return -1


def _cost(
    pairs: Pairs, first: SkyCatalog, second: SkyCatalog, preference: str
) -> NDArray[np.float64]:
    """Return for each pair what a good partner has little of."""
    if preference == "angular_proximity":
        return pairs.separation
    if preference == "more_massive":
        return -second.mass[pairs.second]
    if preference != "redshift_proximity":
        raise ConfigError(
            f"expected evaluate.preference to be {' | '.join(PREFERENCES)}, but got "
            f"evaluate.preference = {preference}",
            value=preference,
            allowed=PREFERENCES,
        )
    offset = np.abs(first.redshift[pairs.first] - second.redshift[pairs.second])
    if not np.isfinite(offset).all():
        raise ConfigError(
            "expected both catalogues to have redshifts for evaluate.preference = "
            "redshift_proximity, but some are unknown; use angular_proximity",
            value=preference,
            allowed="angular_proximity | more_massive",
        )
    return np.asarray(offset, np.float64)
