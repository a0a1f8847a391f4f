from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord, search_around_sky
from astropy.stats import binom_conf_interval
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.errors import ConfigError
from inference.survey.matching import (
    PREFERENCES,
    Pairs,
    SkyCatalog,
    cross_match,
    multiple_match,
    unique_match,
    wilson_interval,
)
from inference.survey.references import read_reference


def random_catalog(rng: np.random.Generator, n: int, ra0: float, dec0: float) -> SkyCatalog:
    width = 0.2
    ra = (ra0 + rng.uniform(-width, width, n) / max(np.cos(np.radians(dec0)), 0.02)) % 360
    dec = dec0 + rng.uniform(-width, width, n)
    # Beyond the pole it goes down again: many objects at the pole itself would be ties.
    dec = np.where(np.abs(dec) > 90, np.sign(dec) * 180 - dec, dec)
    return SkyCatalog(ra, dec, rng.permutation(n).astype(float), rng.uniform(0.1, 0.9, n))


def brute_pairs(a: SkyCatalog, b: SkyCatalog, radius_arcmin: float) -> set[tuple[int, int]]:
    here, there = (SkyCoord(c.ra, c.dec, unit="deg") for c in (a, b))
    pairs = itertools.product(range(len(a)), range(len(b)))
    return {(i, j) for i, j in pairs if here[i].separation(there[j]).arcmin <= radius_arcmin}


def brute_unique(a: SkyCatalog, b: SkyCatalog, pairs: Pairs, preference: str) -> dict[int, int]:
    """The rules word by word: choose in order of falling mass; losers choose again at once."""
    cost = {}
    for i, j, s in zip(pairs.first, pairs.second, pairs.separation, strict=True):
        offset = abs(a.redshift[i] - b.redshift[j])
        options = {"angular_proximity": s, "more_massive": -b.mass[j], "redshift_proximity": offset}
        cost[int(i), int(j)] = options[preference]
    partner: dict[int, int] = {}

    def choose(i: int) -> None:
        for j in sorted((j for k, j in cost if k == i), key=lambda j: cost[i, j]):
            holder = next((k for k, held in partner.items() if held == j), None)
            if holder is None:
                partner[i] = j
                return
            if preference != "more_massive" and cost[i, j] < cost[holder, j]:
                del partner[holder]
                partner[i] = j
                choose(holder)
                return

    for i in np.argsort(-a.mass):
        choose(int(i))
    return partner


@given(
    seed=st.integers(0, 10**6),
    n=st.tuples(st.integers(0, 14), st.integers(0, 14)),
    place=st.sampled_from([(0.0, 0.0), (359.99, 45.0), (10.0, 90.0), (200.0, -89.95)]),
    preference=st.sampled_from(PREFERENCES),
)
@settings(max_examples=60, deadline=None)
def test_matching_agrees_with_brute_force(
    seed: int, n: tuple[int, int], place: tuple[float, float], preference: str
) -> None:
    rng = np.random.default_rng(seed)
    a, b = (random_catalog(rng, count, *place) for count in n)
    pairs = multiple_match(a, b, 6.0)
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert found == brute_pairs(a, b, 6.0)
    forward = brute_unique(a, b, pairs, preference)
    got = unique_match(pairs, a, b, preference)
    assert {i: j for i, j in enumerate(got.tolist()) if j >= 0} == forward
    mirrored = Pairs(pairs.second, pairs.first, pairs.separation)
    backward = brute_unique(b, a, mirrored, preference)
    both = {i: j for i, j in forward.items() if backward.get(j) == i}
    cross = cross_match(a, b, pairs, preference)
    assert {i: j for i, j in enumerate(cross.tolist()) if j >= 0} == both


def closest_first(cost: dict[tuple[int, int], float]) -> dict[int, int]:
    """The closest pair of all is a match, then the closest of what is left, and so on."""
    matches: dict[int, int] = {}
    for i, j in sorted(cost, key=lambda pair: cost[pair]):
        if i not in matches and j not in matches.values():
            matches[i] = j
    return matches


@given(
    seed=st.integers(0, 10**6),
    n=st.tuples(st.integers(0, 14), st.integers(0, 14)),
    place=st.sampled_from([(0.0, 0.0), (359.99, 45.0), (10.0, 90.0), (200.0, -89.95)]),
    preference=st.sampled_from(["angular_proximity", "redshift_proximity"]),
    window=st.sampled_from([None, 0.05, 0.3]),
)
@settings(max_examples=60, deadline=None)
def test_proximity_matches_are_the_closest_pairs_one_after_the_other(
    seed: int, n: tuple[int, int], place: tuple[float, float], preference: str, window: float | None
) -> None:
    """Where both sides rank by one number, there is only one answer without regret."""
    rng = np.random.default_rng(seed)
    a, b = (random_catalog(rng, count, *place) for count in n)
    here, there = (SkyCoord(c.ra, c.dec, unit="deg") for c in (a, b))
    angles = here[:, None].separation(there[None]).rad
    cost = {}
    for i, j in sorted(brute_pairs(a, b, 6.0)):
        offset = float(abs(a.redshift[i] - b.redshift[j]))
        if window is None or offset <= window * (1 + b.redshift[j]):
            cost[i, j] = float(angles[i, j]) if preference == "angular_proximity" else offset
    pairs = multiple_match(a, b, 6.0, window)
    assert set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == set(cost)
    partner = cross_match(a, b, pairs, preference)
    assert {i: j for i, j in enumerate(partner.tolist()) if j >= 0} == closest_first(cost)


def richest_first(
    cost: dict[tuple[int, int], float], first: SkyCatalog, second: SkyCatalog
) -> dict[int, int]:
    """In order of falling mass each takes the most massive that is free; both sides must agree."""

    def choose(
        wishes: set[tuple[int, int]], mine: SkyCatalog, theirs: SkyCatalog
    ) -> set[tuple[int, int]]:
        taken: dict[int, int] = {}
        for i in sorted({i for i, _ in wishes}, key=lambda i: -mine.mass[i]):
            free = [j for k, j in wishes if k == i and j not in taken]
            if free:
                taken[max(free, key=lambda j: float(theirs.mass[j]))] = i
        return {(i, j) for j, i in taken.items()}

    forward = choose(set(cost), first, second)
    backward = choose({(j, i) for i, j in cost}, second, first)
    return {i: j for i, j in forward if (j, i) in backward}


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("radius_arcmin", "window", "counts"),
    [
        (2.0, None, (308, 306, 306, 304, 304, 304)),
        (2.0, 0.05, (299, 299, 299, 299, 299, 299)),
        (10.0, None, (500, 373, 404, 344, 345, 344)),
        (10.0, 0.05, (399, 343, 348, 325, 325, 325)),
    ],
)
def test_real_catalogues_match_as_astropy_and_loops_over_the_pairs_say(
    shared_data: Path, radius_arcmin: float, window: float | None, counts: tuple[int, ...]
) -> None:
    """SDSS and DES redMaPPer: pairs, clusters with a counterpart, matches by each preference."""
    a, b = (
        read_reference(shared_data / "clusters" / f"{name}.csv.gz").sky
        for name in ("sdss_redmapper", "desY1a1")
    )
    here, there = (SkyCoord(c.ra, c.dec, unit="deg") for c in (a, b))
    first, second, angle, _ = search_around_sky(here, there, radius_arcmin * u.arcmin)
    cost, offset = {}, {}
    for i, j, s in zip(first.tolist(), second.tolist(), angle.rad.tolist(), strict=True):
        dz = float(abs(a.redshift[i] - b.redshift[j]))
        if window is None or dz / (1 + b.redshift[j]) <= window:
            cost[i, j], offset[i, j] = s, dz
    pairs = multiple_match(a, b, radius_arcmin, window)
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == sorted(cost)
    found = [len(cost), len({i for i, _ in cost}), len({j for _, j in cost})]
    for preference, expected in (
        ("angular_proximity", closest_first(cost)),
        ("more_massive", richest_first(cost, a, b)),
        ("redshift_proximity", closest_first(offset)),
    ):
        partner = cross_match(a, b, pairs, preference)
        assert {i: j for i, j in enumerate(partner.tolist()) if j >= 0} == expected
        found.append(len(expected))
    assert tuple(found) == counts


def test_the_nearest_wins_and_the_loser_takes_the_next() -> None:
    a = SkyCatalog(np.array([0.0, 0.01]), np.zeros(2), np.array([2.0, 1.0]), np.zeros(2))
    b = SkyCatalog(np.array([0.011, 0.03]), np.zeros(2), np.array([1.0, 2.0]), np.zeros(2))
    pairs = multiple_match(a, b, 2.0)
    assert unique_match(pairs, a, b, "angular_proximity").tolist() == [1, 0]
    assert unique_match(pairs, a, b, "more_massive").tolist() == [1, 0]


def test_redshift_tolerance_leaves_unknown_redshifts_alone() -> None:
    zero = np.zeros(2)
    a = SkyCatalog(zero, zero, zero, np.array([0.5, np.nan]))
    b = SkyCatalog(zero[:1], zero[:1], zero[:1], np.array([0.2]))
    assert multiple_match(a, b, 1.0, redshift_tolerance=0.1).first.tolist() == [1]


def test_each_cluster_may_have_its_own_radius() -> None:
    a = SkyCatalog(np.array([0.0]), np.zeros(1), np.ones(1), np.zeros(1))
    b = SkyCatalog(np.array([1 / 60, 359 + 59 / 60]), np.zeros(2), np.ones(2), np.zeros(2))
    assert multiple_match(a, b, [0.9, 1.1]).second.tolist() == [1]


def test_unknown_preference_and_missing_redshifts_are_named() -> None:
    a = SkyCatalog(np.zeros(1), np.zeros(1), np.ones(1), np.full(1, np.nan))
    pairs = multiple_match(a, a, 1.0)
    with pytest.raises(ConfigError, match=r"angular_proximity \| more_massive .* = closest"):
        unique_match(pairs, a, a, "closest")
    with pytest.raises(ConfigError, match="some are unknown; use angular_proximity"):
        unique_match(pairs, a, a, "redshift_proximity")


@given(st.integers(1, 200), st.data())
def test_wilson_interval_is_that_of_astropy(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    theirs = binom_conf_interval(k, n, confidence_level=0.6826894921370859, interval="wilson")
    low, high = wilson_interval(k, n)
    assert (float(low), float(high)) == pytest.approx(tuple(theirs), abs=1e-9)


def test_wilson_interval_without_trials_is_everything() -> None:
    assert [float(x) for x in wilson_interval(0, 0)] == [0.0, 1.0]
