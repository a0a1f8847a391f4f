"""Splits by hash: what holds when objects come and go and when fractions change."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.errors import ConfigError, DataFormatError
from datagen.prepared.splitting import (
    SPLITS,
    assign,
    check_fractions,
    count_straddlers,
    identities,
    intervals,
    positions,
)

IDS = identities(np.arange(400), "OBJECT")
HALF = {"train": 0.5, "val": 0.1, "test": 0.4, "domain": 0.0}


@st.composite
def shares(draw: st.DrawFn) -> dict[str, float]:
    """Fractions in steps of 0.01 that sum to 1, train above 0."""
    cuts = sorted(draw(st.lists(st.integers(0, 99), min_size=3, max_size=3)))
    sizes = np.diff([0, *cuts, 100]) / 100.0
    others = draw(st.permutations(["val", "domain", "test"]))
    return check_fractions(dict(zip([*others, "train"], map(float, sizes), strict=True)))


@given(fractions=shares(), seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_the_split_is_that_of_the_definition(fractions: dict[str, float], seed: int) -> None:
    """Word by word, in exact fractions: SHA-256 of seed/id, then intervals."""
    found = assign(IDS[:40], seed, fractions)
    for name, split in zip(IDS[:40], found, strict=True):
        digest = hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()[:16]
        u, end = Fraction(int(digest, 16), 2**64), Fraction(0)
        for expected in SPLITS:
            end += Fraction(round(100 * fractions[expected]), 100)
            if u < end:
                break
        assert split == expected


@given(
    fractions=shares(),
    seed=st.integers(0, 10**6),
    chosen=st.lists(st.integers(0, 399), min_size=1, max_size=60),
)
@settings(max_examples=15, deadline=None)
def test_other_objects_move_none(fractions: dict[str, float], seed: int, chosen: list[int]) -> None:
    alone = assign(IDS[chosen], seed, fractions)
    np.testing.assert_array_equal(alone, assign(IDS, seed, fractions)[chosen])
    assert count_straddlers(IDS[chosen], alone) == 0


@given(old=shares(), new=shares(), seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_only_objects_between_old_and_new_boundaries_move(
    old: dict[str, float], new: dict[str, float], seed: int
) -> None:
    u = positions(IDS, seed)
    before, after = assign(IDS, seed, old), assign(IDS, seed, new)
    ends = [np.array([high for _, high in intervals(x).values()])[:3] for x in (old, new)]
    low, high = np.minimum(*ends), np.maximum(*ends)
    is_between = ((u[:, None] >= low) & (u[:, None] < high)).any(axis=1)
    moves = before != after
    assert not moves[~is_between].any()
    # Whoever is between may stay only where two boundaries pass the object and bring it back.
    assert moves.mean() <= is_between.mean()
    assert is_between.mean() <= (high - low).sum() + 5 * np.sqrt(0.25 / len(u))
    for split in SPLITS:
        (a, b), (c, d) = intervals(old)[split], intervals(new)[split]
        if c <= a and b <= d and a < b:
            assert (after[before == split] == split).all()


@given(seed=st.integers(0, 10**6), step=st.integers(1, 39), pair=st.sampled_from(["val", "test"]))
@settings(max_examples=15, deadline=None)
def test_train_takes_from_a_neighbour_alone(seed: int, step: int, pair: str) -> None:
    old = HALF if pair == "test" else HALF | {"val": 0.4, "test": 0.1}
    new = old | {"train": old["train"] + step / 100, pair: old[pair] - step / 100}
    before, after = assign(IDS, seed, old), assign(IDS, seed, new)
    moves = before != after
    assert set(before[moves]) <= {pair}
    assert set(after[moves]) <= {"train"}


def test_growing_train_with_a_domain_between_moves_none_out_of_train() -> None:
    old = {"train": 0.5, "val": 0.1, "domain": 0.2, "test": 0.2}
    new = {"train": 0.6, "val": 0.1, "domain": 0.2, "test": 0.1}
    before, after = assign(IDS, 0, old), assign(IDS, 0, new)
    assert (after[before == "train"] == "train").all()
    moved = set(zip(before[before != after], after[before != after], strict=True))
    assert moved == {("domain", "train"), ("test", "domain")}


def test_shares_are_those_asked_for() -> None:
    found = assign(identities(np.arange(10000), "OBJECT"), 3, HALF)
    for split, share in HALF.items():
        assert abs((found == split).mean() - share) < 4 * np.sqrt(0.25 / 10000)


def test_the_last_split_ends_at_one() -> None:
    """0.1 + 0.2 + 0.7 is not 1 in floating point, and a part of the sum may be missing."""
    for fractions in ({"val": 0.1, "train": 0.2, "domain": 0.7, "test": 0.0},
                      {"val": 0.0, "train": 1 - 9e-7, "domain": 0.0, "test": 0.0}):  # fmt: skip
        ends = intervals(check_fractions(fractions))
        assert max(high for _, high in ends.values()) == 1.0
        assert ends["test"] == (1.0, 1.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([5, -1, 0]), ["5", "", "0"]),
        (np.array([5.0, np.nan, -1.0]), ["5", "", ""]),
        (np.array([2**60 + 1, 2**60]), [str(2**60 + 1), str(2**60)]),
        (np.array(["M31 ", ""]), ["M31", ""]),
        (np.array([b"7"]), ["7"]),
        (np.array([5], ">i4"), ["5"]),
    ],
)
def test_one_id_has_one_text(values: np.ndarray, expected: list[str]) -> None:
    assert identities(values, "OBJECT").tolist() == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.5], r"expected tree \(data_gen.split.by\) to be whole numbers below 2\^53.*got 1.5"),
        ([2.0**53], "below 2"),
        ([True], "whole numbers or text, but got bool"),
    ],
)
def test_ids_that_are_not_exact_are_refused(values: list[float], message: str) -> None:
    with pytest.raises(DataFormatError, match=message):
        identities(np.array(values), "tree")


@pytest.mark.parametrize(
    "fractions",
    [
        {"train": 0.8, "val": 0.2},
        HALF | {"extra": 0.0},
        HALF | {"train": 0.4},
        HALF | {"val": -0.1, "test": 0.6},
        {"train": 0.0, "val": 0.5, "test": 0.5, "domain": 0.0},
        HALF | {"train": float("nan")},
    ],
)
def test_bad_fractions_are_named(fractions: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"data_gen.split.fractions to give train \(> 0\), val"):
        check_fractions(fractions)
