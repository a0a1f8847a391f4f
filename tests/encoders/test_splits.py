"""Splits by hash and samplers."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.errors import ConfigError
from encoders.data import (
    FILLER,
    LoaderOptions,
    OnceSampler,
    ShuffleSampler,
    assign_split,
    check_splits,
    make_loader,
    split_names,
)

SPLITS = {"train": 0.6, "val": 0.3, "test": 0.1}
PINNED = ["train", "train", "val", "train", "train", "train"]
NAMES = [f"file_data_{k}_size_4.pt" for k in range(2000)]


def options(rank: int, world_size: int, seed: int = 0) -> LoaderOptions:
    return LoaderOptions(2, 0, seed, rank, world_size)


def test_a_file_keeps_its_split_when_others_come() -> None:
    few, many = split_names(NAMES[:50], 0, SPLITS), split_names(NAMES[::-1], 0, SPLITS)
    for split, names in few.items():
        assert set(names) <= set(many[split])


def test_fractions_are_met_and_every_file_is_used_once() -> None:
    found = split_names(NAMES, 3, SPLITS)
    assert sorted(name for names in found.values() for name in names) == sorted(NAMES)
    for split, fraction in SPLITS.items():
        assert len(found[split]) / len(NAMES) == pytest.approx(fraction, abs=0.04)


def test_parts_of_a_survey_tile_share_their_split() -> None:
    parts = [
        [f"file_data_DES{tile}-0541-{k}_size_{n}.pt" for k, n in enumerate((4, 4, 1))]
        for tile in range(1000)
    ]
    found = split_names([name for names in parts for name in names], 2, SPLITS)
    for names in parts:
        assert sum(not set(names).isdisjoint(chosen) for chosen in found.values()) == 1
    for split, fraction in SPLITS.items():
        assert len(found[split]) / 3000 == pytest.approx(fraction, abs=0.05)


def test_another_seed_gives_another_assignment() -> None:
    assert split_names(NAMES, 0, SPLITS) != split_names(NAMES, 1, SPLITS)


def test_assignment_is_pinned() -> None:
    # A change here moves test files of old runs into the training set of new ones.
    assert [assign_split(name, 0, SPLITS) for name in NAMES[:6]] == PINNED


def test_an_empty_split_is_reported_with_the_counts() -> None:
    with pytest.raises(ConfigError, match=r"the 1 files give train = .*, val = .*data_gen\.nfiles"):
        split_names(NAMES[:1], 0, SPLITS)


def test_a_fraction_of_zero_leaves_a_split_empty() -> None:
    assert split_names(NAMES, 0, {"train": 0.7, "val": 0.3, "test": 0.0})["test"] == []


@pytest.mark.parametrize(
    "splits",
    [
        {"train": 0.9, "val": 0.3, "test": 0.1},
        {"train": 1.0},
        {"train": 1.1, "val": -0.1, "test": 0},
    ],
)
def test_wrong_fractions_are_refused(splits: dict[str, float]) -> None:
    with pytest.raises(
        ConfigError, match=r"expected data\.splits .* that sum to 1, but got splits = "
    ):
        check_splits(splits)


@given(n=st.integers(1, 40), world=st.integers(1, 5), epoch=st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_processes_share_the_samples(n: int, world: int, epoch: int) -> None:
    parts = [ShuffleSampler(n, options(rank, world)) for rank in range(world)]
    for part in parts:
        part.set_epoch(epoch)
    drawn = [list(part) for part in parts]
    assert {len(part) for part in drawn} == {len(parts[0])}
    assert {i for part in drawn for i in part} == set(range(n))
    once = [i for rank in range(world) for i in OnceSampler(n, options(rank, world))]
    assert sorted(i for i in once if i != FILLER) == list(range(n))


@pytest.mark.parametrize(("n", "batches"), [(17, [8, 8]), (18, [8, 8, 2]), (1, [1]), (9, [8])])
def test_no_batch_of_one_sample(n: int, batches: list[int]) -> None:
    known = [LoaderOptions(8, 0, 0, rank, 3) for rank in range(3)]
    alone = dataclasses.replace(known[0], world_size=1)
    loader = make_loader(range(n), alone, shuffle=True, leaves_single=True)  # type: ignore[arg-type]
    assert [len(batch) for batch in loader] == batches
    several = [ShuffleSampler(3 * n, place, leaves_single=True) for place in known]
    assert {len(sampler) for sampler in several} == {sum(batches)}
    assert len({i for sampler in several for i in sampler}) == 3 * sum(batches)


def test_order_depends_on_seed_and_epoch_only() -> None:
    first, second = ShuffleSampler(30, options(0, 1)), ShuffleSampler(30, options(0, 1))
    first.set_epoch(3)
    list(second)  # an epoch before leaves no trace
    second.set_epoch(3)
    assert list(first) == list(second)
    second.set_epoch(4)
    assert list(first) != list(second)
    assert list(first) != list(ShuffleSampler(30, options(0, 1, seed=1)))


def test_wrong_loader_options_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"expected data\.batch_size >= 1, but got batch_size = 0"
    ):
        LoaderOptions(0, 0, 0, 0, 1)
    with pytest.raises(ConfigError, match=r"expected data\.num_workers >= 0"):
        LoaderOptions(1, -1, 0, 0, 1)
