from __future__ import annotations

import itertools

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
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


def random_catalog(rng: np.random.Generator, n: int, ra0: float, dec0: float) -> SkyCatalog:
    width = 0.2
    ra = (ra0 + rng.uniform(-width, width, n) / max(np.cos(np.radians(dec0)), 0.02)) % 360
    dec = np.clip(dec0 + rng.uniform(-width, width, n), -90, 90)
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
