"""From a folder of images to batches: splits, choice of training images, cards."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datagen.errors import ConfigError, DataFormatError
from datagen.lenses.format import images_path, read_images, write_images
from encoders.data import FILLER
from encoders.lenses.data import LensesDataModule
from encoders.lenses.identity import identity_of, split_of
from encoders.lenses.images import open_images
from encoders.lenses.splits import choose, deal
from tests.encoders.lenses.conftest import N_PER_FILE, SIDE, draw, write_shards

SPLITS = {"train": 0.7, "val": 0.1, "test": 0.2}
STRETCH = {"kind": "asinh", "softening": None, "scales": []}
STRETCH |= {"steps": [], "threshold": 0.1, "n_images": 32}


def module(data_dir: Path, **more: object) -> LensesDataModule:
    known: dict[str, Any] = {
        "batch_size": 8,
        "num_workers": 0,
        "seed": 1,
        "splits": SPLITS,
        "n_train": None,
        "side": None,
        "stretch": STRETCH,
        "in_memory": False,
    }
    return LensesDataModule(data_dir=str(data_dir), **(known | more))


@pytest.mark.parametrize("in_memory", [False, True])
def test_batches_hold_the_images_of_the_files(lenses_dir: Path, in_memory: bool) -> None:
    data = module(lenses_dir, in_memory=in_memory)
    seen = []
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for batch in loader:
            index = batch["index"].numpy()
            assert np.array_equal(batch["images"].numpy(), draw(index))
            assert batch["labels"].tolist() == (index % 3).tolist()
            chi2 = np.where(index % 3 > 0, index, 0)
            assert batch["delta_chi2"].tolist() == chi2.tolist()
            seen += index.tolist()
    assert sorted(seen) == list(range(3 * N_PER_FILE))


def test_workers_give_the_same_batches(lenses_dir: Path) -> None:
    found = []
    for num_workers in (0, 1):
        data = module(lenses_dir, num_workers=num_workers)
        found.append(torch.cat([batch["index"] for batch in data.train_dataloader()]))
    assert torch.equal(*found)


def test_fillers_have_no_weight(lenses_dir: Path) -> None:
    batch = module(lenses_dir).dataset("val").__getitems__([1, FILLER])
    assert batch["weight"].tolist() == [1.0, 0.0]
    assert module(lenses_dir).dataset("val")[FILLER]["weight"] == 0.0


def test_an_image_keeps_its_split_when_others_come(tmp_path: Path) -> None:
    write_shards(tmp_path, 2)
    few = module(tmp_path).numbers
    write_shards(tmp_path, 4)
    many = module(tmp_path).numbers
    for split, numbers in few.items():
        assert set(numbers.tolist()) <= set(many[split].tolist())


def test_fewer_training_images_are_among_more(lenses_dir: Path) -> None:
    chosen = [module(lenses_dir, n_train=n).numbers for n in (4, 9, 30)]
    for few, many in itertools.pairwise(chosen):
        assert set(few["train"].tolist()) < set(many["train"].tolist())
    for n, numbers in zip((4, 9, 30), chosen, strict=True):
        assert len(numbers["train"]) == n
        counts = np.bincount(numbers["train"] % 3, minlength=3)
        assert counts.max() - counts.min() <= 1
        # The other splits are as they were.
        assert np.array_equal(numbers["test"], module(lenses_dir).numbers["test"])
    with pytest.raises(ConfigError, match=r"data\.n_train <= 54, .* of no_sub"):
        module(lenses_dir, n_train=80).card()
    with pytest.raises(ConfigError, match=r"n_train >= 3, an image of each class, .* n_train = 2"):
        module(lenses_dir, n_train=2).card()
    assert np.bincount(module(lenses_dir, n_train=3).numbers["train"] % 3).tolist() == [1, 1, 1]


def test_a_public_validation_set_tests(public_dir: Path) -> None:
    data = module(public_dir)
    names = {s: [data.images.names[n] for n in numbers] for s, numbers in data.numbers.items()}
    assert all(name.startswith("val/") for name in names["test"])
    assert len(names["test"]) == 15
    assert all(name.startswith("train/") for name in names["train"] + names["val"])
    assert len(names["train"]) + len(names["val"]) == 60
    card = data.card()
    assert (card["pixel_scale"], card["image_side"], card["bands"]) == (None, SIDE, ["band_0"])


def test_given_splits_stay() -> None:
    names, given = ["a", "b", "c", "d"], ["train", "val", "test", "train"]
    dealt = deal(names, given, 0, SPLITS)
    assert {split: n.tolist() for split, n in dealt.items()} == {
        "train": [0, 3],
        "val": [1],
        "test": [2],
    }
    with pytest.raises(ConfigError, match=r"every split, but the 1 images give train = "):
        deal(["a"], [None], 0, SPLITS)


def test_another_seed_chooses_other_images() -> None:
    names = [f"lens_{n}" for n in range(300)]
    labels = np.arange(300) % 3
    one, two = (choose(np.arange(300), names, labels, seed, 30) for seed in (0, 1))
    assert not np.array_equal(one, two)


def test_cards_and_hashes(lenses_dir: Path) -> None:
    card = module(lenses_dir).card()
    assert card == module(lenses_dir).card()
    assert card["stretch"]["softening"] == [1.0]
    assert card["n_train"] == len(module(lenses_dir).numbers["train"])
    hashes = {
        module(lenses_dir, **change).card()["data_hash"]
        for change in ({}, {"seed": 2}, {"n_train": 30})
    }
    assert len(hashes) == 3
    data = module(lenses_dir)
    assert data.data_hash(1, SPLITS) == card["data_hash"]


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        ({"n_images_per_file": 96}, True),
        ({"dtype": "float64"}, True),
        ({"lens.name": "mine"}, True),
        ({"lens.substructure.has_delta_chi2": False}, True),
        ({"lens.substructure.max_draws": 9}, True),
        ({"lens.radius_factor": 1}, True),
        ({"lens.flaws": {"radius_factor": 2.0}}, True),
        ({"lens.flaws": {"radius_factor": 2.0}, "lens.legacy_flaws": True}, False),
        ({"lens.substructure.min_delta_chi2": 5.0}, False),
        ({"seed": 1}, False),
    ],
)
def test_what_changes_pixels_makes_another_set(change: dict[str, Any], is_same: bool) -> None:
    substructure = {"min_delta_chi2": 0.0, "max_draws": 4, "has_delta_chi2": True}
    lens = {"name": "a", "legacy_flaws": False, "flaws": {}, "radius_factor": 1.0}
    before: dict[str, Any] = {"seed": 0, "n_images_per_file": 48, "dtype": "float32"}
    before["lens"] = lens | {"substructure": substructure}
    after = copy.deepcopy(before)
    for name, value in change.items():
        *path, last = name.split(".")
        functools.reduce(dict.__getitem__, path, after)[last] = value
    untouched = copy.deepcopy(after)
    assert (identity_of(after) == identity_of(before)) is is_same
    assert after == untouched


def test_splits_can_be_told_from_the_card(lenses_dir: Path) -> None:
    data = module(lenses_dir)
    card = data.card()
    for split, numbers in data.numbers.items():
        assert {split_of(card, int(data.images.index[n])) for n in numbers} == {split}


def test_public_sets_with_the_same_names_differ(public_dir: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        shutil.copytree(public_dir, folder)
    assert open_images(one).identity == open_images(two).identity
    for path in two.glob("train/no/*.npy"):
        np.save(path, np.load(path) + np.float32(1.0))
    assert open_images(one).identity != open_images(two).identity
    assert module(one).card()["data_hash"] != module(two).card()["data_hash"]


def test_a_wanted_side_is_in_the_card(lenses_dir: Path) -> None:
    card = module(lenses_dir, side=21).card()
    assert (card["side"], card["image_side"]) == (21, SIDE)


def test_examples_are_spread_over_a_split(public_dir: Path) -> None:
    labels = module(public_dir).examples("test", 6)["labels"]
    assert set(labels.tolist()) == {0, 1, 2}


def test_damaged_shards_are_named(tmp_path: Path) -> None:
    write_shards(tmp_path, 2)
    path = images_path(tmp_path, 1)
    images = read_images(path).copy()
    images[4, 0, 3, 3] = np.nan
    write_images(path, images)
    data = open_images(tmp_path)
    with pytest.raises(DataFormatError, match=r"finite pixels, but image lens_000000034 has NaN"):
        data.read(np.array([3, 34]))
    write_images(path, images[:7])
    with pytest.raises(DataFormatError, match=r"lenses_000001\.npy to hold .*\(30, 1, 17, 17\)"):
        open_images(tmp_path)


def test_image_sets_are_plain(lenses_dir: Path) -> None:
    images = open_images(lenses_dir)
    assert [field.name for field in dataclasses.fields(images)][:2] == ["names", "given"]
    assert images.names[31] == "lens_000000031"
    assert images.noise == 1.0
