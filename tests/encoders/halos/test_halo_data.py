"""Sets, classes, splits by halo, batches, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.errors import CheckpointError, ConfigError, DataFormatError, SkyfoldError
from datagen.halos.format import (
    maps_path,
    read_maps,
    read_truth,
    truth_path,
    write_maps,
    write_truth,
)
from encoders.data import FILLER, SPLITS, assign_split
from encoders.halos.data import HalosDataModule
from encoders.halos.splits import deal_ids, numbers_of
from tests.encoders.halos.conftest import N_PROJECTIONS, SIDE, SIGMAS, write_set

Options = dict[str, Any]
N_EACH = len(SIGMAS) * N_PROJECTIONS


def module(options: Options, **change: Any) -> HalosDataModule:  # noqa: ANN401
    return HalosDataModule(**(options | change))


@given(
    halos=st.lists(st.integers(0, 60), min_size=80, max_size=200),
    seed=st.integers(0, 5),
    test=st.sampled_from([0.0, 0.2]),
)
@settings(max_examples=60, deadline=None)
def test_no_halo_is_in_two_splits(halos: list[int], seed: int, test: float) -> None:
    names = [f"0/{number}" for number in halos]
    fractions = {"train": 0.6, "val": 0.4 - test, "test": test}
    try:
        found = numbers_of(deal_ids(names, seed, fractions), names)
    except ConfigError:
        return  # too few for a split
    assert sorted(np.concatenate(list(found.values()))) == list(range(len(names)))
    sides = [{names[n] for n in found[split]} for split in SPLITS]
    assert sum(len(side) for side in sides) == len(set(names))
    # Whatever other halos are there, one stays where it is.
    few = numbers_of(deal_ids(names[:40], seed, fractions | {"test": 0.0, "val": 0.4}), names[:40])
    if not test:
        for split in SPLITS:
            assert {names[n] for n in few[split]} <= sides[SPLITS.index(split)]


def test_sets_with_the_same_halos_share_their_splits(data_options: Options) -> None:
    data = module(data_options, sets={"a": "known", "b": "none", "c": "class"})
    halos = data.halos
    assert len(halos) == 2 * 24 * N_EACH + 8 * N_EACH
    where = {n: split for split, numbers in data.numbers.items() for n in numbers.tolist()}
    by_halo: dict[str, set[str]] = {}
    for number, name in enumerate(halos.halo.tolist()):
        by_halo.setdefault(name, set()).add(where[number])
    assert {len(splits) for splits in by_halo.values()} == {1}
    # Halo 3 of `a` and `b` is one, that of `c` has another seed.
    assert {"0/3", "1/3"} <= by_halo.keys()
    in_a_and_b = {halos.set_number[n] for n in np.flatnonzero(halos.halo == "0/3")}
    assert in_a_and_b == {0, 1}


def test_classes_and_targets(data_options: Options) -> None:
    data = module(data_options, sets={"a": "known", "c": "class", "b": "none"})
    card = data.card()
    assert card["classes"] == ["0", "0.1", "1", "c"]
    assert card["cross_sections"] == [0.0, 0.1, 1.0, None]
    halos = data.halos
    in_set = [halos.set_number == k for k in range(3)]
    assert set(halos.labels[in_set[1]]) == {3}
    assert set(halos.labels[in_set[2]]) == {-1}
    for label, target, sigma in ((0, 0.0, 0.0), (1, 0.5, 0.1), (2, 1.0, 1.0)):
        rows = in_set[0] & (halos.cross_section == sigma)
        assert rows.sum() == 24 * N_PROJECTIONS
        assert set(halos.labels[rows]) == {label}
        assert halos.targets[rows] == pytest.approx(target)
    assert np.isnan(halos.targets[~in_set[0]]).all()


def test_a_part_of_a_set(data_options: Options) -> None:
    counts = []
    chosen: list[set[int]] = []
    for n in (12, 20):
        part = {"labels": "known", "cross_sections": [0, 1], "n_clusters": n}
        halos = module(data_options, sets={"a": part}).halos
        counts.append(len(halos))
        chosen.append(set(halos.cluster.tolist()))
        assert halos.classes.names == ["0", "1"]
    assert counts == [12 * 2 * N_PROJECTIONS, 20 * 2 * N_PROJECTIONS]
    assert chosen[0] < chosen[1]


@pytest.mark.parametrize("in_memory", [False, True])
def test_batches_hold_the_maps_of_the_files(
    data_options: Options, halos_dir: Path, in_memory: bool
) -> None:
    data = module(data_options, in_memory=in_memory, channels=["stars", "mass"])
    dataset = data.dataset("val")
    places = [2, 0, FILLER, len(dataset) - 1]
    batch = dataset.with_maps(dataset.__getitems__(places))
    assert batch["maps"].shape == (4, 2, SIDE, SIDE)
    assert batch["weight"].tolist() == [1.0, 1.0, 0.0, 1.0]
    whole = np.concatenate([read_maps(maps_path(halos_dir / "a", k)) for k in (0, 1)])
    for row, index in enumerate(batch["index"].tolist()):
        np.testing.assert_array_equal(batch["maps"][row].numpy(), whole[index][[1, 0]])
        name = data.halos.halo[data.halos.halo_number == int(batch["cluster"][row])]
        assert set(name) == {f"0/{index // N_EACH}"}
        assert batch["class"][row] == index // N_PROJECTIONS % len(SIGMAS)


def test_halos_of_other_seeds_are_other_halos(data_options: Options) -> None:
    """CLUSTER counts within the suites of one seed: intervals must not take two halos for one."""
    halos = module(data_options, sets={"a": "known", "c": "none"}).halos
    a, c = (halos.halo_number[halos.set_number == number] for number in (0, 1))
    assert set(halos.cluster[halos.set_number == 1]) <= set(halos.cluster)
    assert not set(a) & set(c)
    assert len(set(a)) == len(set(halos.cluster[halos.set_number == 0]))


def test_the_card_does_not_depend_on_more_files(data_options: Options, tmp_path: Path) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    write_set(few / "a", n_clusters=24, n_files=2)
    write_set(many / "a", n_clusters=36, n_files=3)
    before = module(data_options, data_dir=str(few)).card()
    fresh, reused = (module(data_options, data_dir=str(many)) for _ in range(2))
    reused.reuse_splits(before)
    assert reused.card() == before
    assert fresh.card()["data_hash"] != before["data_hash"]
    # Fresh splits still leave every halo where it was.
    for split, names in before["ids"].items():
        assert set(names) <= set(fresh.card()["ids"][split])
    # Another training keeps its own splits, for others to refuse.
    other = module(data_options, data_dir=str(many), seed=2)
    other.reuse_splits(before)
    assert other.ids != before["ids"]
    lacking = module(data_options, data_dir=str(few))
    with pytest.raises(CheckpointError, match=r"12 of 36 are missing, the first one is 0/24"):
        lacking.reuse_splits(fresh.card())
    twice = before | {"ids": before["ids"] | {"val": before["ids"]["train"]}}
    with pytest.raises(CheckpointError, match="a halo in two splits"):
        lacking.reuse_splits(twice)


def spoil(folder: Path, change: Callable[[Any], None]) -> None:
    path = maps_path(folder / "a", 1)
    maps = read_maps(path).copy()
    change(maps)
    write_maps(path, maps)


def set_pixel(value: float) -> Callable[[Any], None]:
    def change(maps: Any) -> None:  # noqa: ANN401
        maps[:, 0, 3, 4] = value

    return change


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize(
    ("value", "transform", "message"),
    [
        (np.nan, "asinh", r"finite pixels, but map INDEX = \d+ of set a has NaN"),
        (np.inf, "log10", r"finite pixels, but map INDEX = \d+ of set a has NaN or infinite"),
        (-1.0, "log10", r"pixels >= 0 for data\.transform = log10, but map INDEX = \d+ of set a"),
        (-1.0, "max", r"pixels >= 0 for data\.transform = max.*use data\.transform=asinh"),
        (-1.0, "asinh", ""),
    ],
)
def test_bad_pixels_are_named(
    data_options: Options,
    halos_dir: Path,
    tmp_path: Path,
    in_memory: bool,
    value: float,
    transform: str,
    message: str,
) -> None:
    shutil.copytree(halos_dir / "a", tmp_path / "a")
    spoil(tmp_path, set_pixel(value))
    data = module(
        data_options, data_dir=str(tmp_path), in_memory=in_memory, transform=transform, n_fit=2000
    )
    if not message:
        assert data.card()["inputs"]["kind"] == ["asinh"]
        return
    with pytest.raises(DataFormatError, match=message):
        data.card()
    dataset = data.dataset("train")
    with pytest.raises(DataFormatError, match=message):
        dataset.with_maps(dataset.__getitems__(list(range(len(dataset)))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sets": {"a": None}}, r"expected data\.sets to name a set to learn from"),
        ({"sets": {"d": "known"}}, r"has a, b, c, but got d; make it with: python .* halo=d"),
        ({"sets": {"a": "yes"}}, r"data\.sets\.a to be one of known, class, none, .* = yes"),
        ({"sets": {"a": {"label": "known"}}}, r"data\.sets\.a to give labels, cross_sections"),
        ({"sets": {"a": {"labels": "known", "cross_sections": [0.2]}}}, r"0, 0\.1, 1 cm2/g, but"),
        ({"sets": {"a": {"labels": "known", "n_clusters": 0}}}, r"n_clusters >= 1 or null"),
        ({"sets": {"a": {"labels": "known", "n_clusters": 99}}}, r"n_clusters <= 24, but got"),
        ({"sets": {"a": {"labels": "known", "n_clusters": 2}}}, r"halos in every split, but the 2"),
        ({"channels": ["xray"]}, r"some of mass, stars, which set a has, but got xray"),
        ({"channels": []}, r"data\.channels to name different channels"),
        ({"transform": "sqrt"}, r"one of log10, asinh, max, .* but got transform = sqrt"),
        ({"transform": {"stars": "max"}}, r"for each of the channels mass"),
        ({"zero_cross_section": 0.1}, r"zero_cross_section < the least .* 0\.1 cm2/g, but got"),
        ({"n_fit": 0}, r"data\.n_fit >= 1"),
        ({"batch_size": 0}, r"data\.batch_size >= 1"),
    ],
)
def test_wrong_settings_are_refused(
    data_options: Options, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(SkyfoldError, match=message) as caught:
        module(data_options, **change).card()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"side": 12}, r"SIDE = 16 in all data\.sets, as set a has, but set d has 12"),
        ({"PIXSCALE": 10.0}, r"PIXSCALE = 20\.0 in all data\.sets"),
        ({"UNIT_0": "Msun"}, r"the unit of mass = Msun kpc-2 in all .* set d has Msun"),
        ({"CHANNELS": "xray,stars"}, r"some of xray, stars, which set d has, but got mass"),
        ({"sigmas": (np.nan,)}, r"the cross-section of every map of data\.sets\.d = known"),
    ],
)
def test_sets_must_fit_one_another(
    data_options: Options, halos_dir: Path, tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    shutil.copytree(halos_dir / "a", tmp_path / "a")
    write_set(tmp_path / "d", n_clusters=2, **other)
    with pytest.raises(SkyfoldError, match=message):
        module(data_options, data_dir=str(tmp_path), sets={"a": "known", "d": "known"}).card()


def test_a_number_of_two_maps_is_refused(data_options: Options, tmp_path: Path) -> None:
    for name, other in (("a", 0), ("d", 1)):
        write_set(tmp_path / name)
        path = truth_path(tmp_path / name, other)
        truth = read_truth(path)
        truth["INDEX"][3] = 71
        write_truth(path, {key: truth[key] for key in truth.colnames}, truth.meta)
    message = r"INDEX = 71 is that of \S*000000\.fits, row 3, and of \S*000000\.fits, row 71; give"
    with pytest.raises(DataFormatError, match=message):
        module(data_options, data_dir=str(tmp_path)).card()
    with pytest.raises(DataFormatError, match=r"000000\.fits, row 71, and of \S*01\.fits, row 3"):
        module(data_options, data_dir=str(tmp_path), sets={"d": "known"}).card()


def test_halos_that_are_not_matched_are_split_only_on_request(
    data_options: Options, tmp_path: Path
) -> None:
    write_set(tmp_path / "a", MATCHED=True)
    write_set(tmp_path / "d", MATCHED=False)
    options = data_options | {"data_dir": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"data\.sets\.d, .* MATCHED = F.*accept_unmatched: true"):
        module(options, sets={"a": "known", "d": "none"}).card()
    accepted = {"labels": "known", "accept_unmatched": True}
    assert module(options, sets={"a": "known", "d": accepted}).card()["classes"]
    with pytest.raises(ConfigError, match=r"sets\.d\.accept_unmatched to be true or false, .* yes"):
        module(options, sets={"d": accepted | {"accept_unmatched": "yes"}})


def test_wrong_shapes_are_refused(data_options: Options, tmp_path: Path) -> None:
    write_set(tmp_path / "a")
    path = maps_path(tmp_path / "a", 1)
    write_maps(path, read_maps(path)[:5])
    with pytest.raises(DataFormatError, match=r"shape \(72, 2, 16, 16\), as its truth .* \(5, 2"):
        module(data_options, data_dir=str(tmp_path)).card()


def test_nothing_bright_is_refused(data_options: Options, tmp_path: Path) -> None:
    write_set(tmp_path / "a")
    for number in (0, 1):
        path = maps_path(tmp_path / "a", number)
        write_maps(path, 0.0 * read_maps(path))
    with pytest.raises(DataFormatError, match=r"positive pixels in channel mass, but all are 0"):
        module(data_options, data_dir=str(tmp_path)).card()


def test_a_class_without_training_maps_is_refused(data_options: Options, tmp_path: Path) -> None:
    write_set(tmp_path / "a")
    write_set(tmp_path / "d", n_clusters=1, n_files=1, SEED=4)
    splits = data_options["splits"]
    seed = next(s for s in range(9) if assign_split("4/0", s, splits) != "train")
    options = {"data_dir": str(tmp_path), "sets": {"a": "known", "d": "class"}, "seed": seed}
    with pytest.raises(ConfigError, match=r"training maps of every class, .* 1 = \d+, d = 0; make"):
        module(data_options, **options).card()


def test_maps_stay_on_the_device(data_options: Options) -> None:
    dataset = module(data_options).dataset("train")
    batches = [dataset.with_maps(dataset.__getitems__([k])) for k in (0, 1)]
    assert {tuple(batch["maps"].shape) for batch in batches} == {(1, 1, SIDE, SIDE)}
    assert list(dataset._on_device) == [torch.device("cpu")]


def test_held_out_sets_are_only_tested(data_options: Options) -> None:
    part = {"labels": "known", "cross_sections": [0.0, 1.0]}
    rest = {"labels": "held_out", "folder": "a", "cross_sections": [0.1]}
    plain = module(data_options, sets={"a": part})
    data = module(data_options, sets={"a": part, "rest": rest, "c": "held_out"})
    halos = data.halos
    assert data.ids == plain.ids
    assert data.card()["data_hash"] == plain.card()["data_hash"]
    assert halos.classes.names == ["0", "1"]
    for split in ("train", "val"):
        np.testing.assert_array_equal(data.numbers[split], plain.numbers[split])
    tested = data.numbers["test"]
    of_set = halos.set_number[tested]
    # Of the same suite the halos of the test split, of another seed all.
    assert set(halos.halo[tested[of_set == 1]]) == set(data.ids["test"])
    assert (of_set == 2).sum() == 8 * N_EACH
    assert np.isnan(halos.targets[halos.is_held_out]).all()
    assert (halos.labels[halos.is_held_out] == -1).all()


def test_something_must_be_learned(data_options: Options) -> None:
    with pytest.raises(ConfigError, match=r"to name a set to learn from, .* 'held_out'"):
        module(data_options, sets={"a": "held_out"})
