"""Which image trains, which one chooses, which one tests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from datagen.errors import ConfigError
from datagen.lenses.format import CLASSES
from encoders.data import SPLITS, assign_split

Numbers = NDArray[np.int64]


def deal(
    names: Sequence[str], given: Sequence[str | None], seed: int, splits: Mapping[str, float]
) -> dict[str, Numbers]:
    """Deal images out to train, val and test.

    What a set gives as `test` tests. A set with `train` and `val` only tests on `val`, since its
    published figures do, and validation images are cut from `train`, so that nothing is chosen on
    images that test. Images without a given split are dealt out by fractions.

    Args:
        names: Names of the images, which decide together with the seed (n,).
        given: Split that the set gives, or None (n,).
        seed: Another seed gives another assignment.
        splits: Fractions by split.

    Returns:
        Numbers of the images by split, in rising order.

    Raises:
        ConfigError: A split that should have images has none; the message gives the counts.
    """
    kinds = set(given)
    rest = splits["train"] + splits["val"]
    cut = {"train": splits["train"] / rest, "val": splits["val"] / rest, "test": 0.0}
    fractions = cut if kinds & {"val", "test"} else splits
    has_three = {"val", "test"} <= kinds
    found: dict[str, list[int]] = {split: [] for split in SPLITS}
    for number, (name, split) in enumerate(zip(names, given, strict=True)):
        if split == "test" or (split == "val" and not has_three):
            found["test"].append(number)
        elif has_three and split is not None:
            found[split].append(number)
        else:
            found[assign_split(name, seed, fractions)].append(number)
    if any(splits[split] > 0 and not found[split] for split in SPLITS):
        counts = ", ".join(f"{split} = {len(found[split])}" for split in SPLITS)
        raise ConfigError(
            f"expected images in every split, but the {len(names)} images give {counts}; make more "
            "images (data_gen.nfiles), or choose another data.seed or other data.splits",
            counts,
        )
    return {split: np.array(numbers, dtype=np.int64) for split, numbers in found.items()}


def choose(
    numbers: Numbers, names: Sequence[str], labels: Numbers, seed: int, n_train: int
) -> Numbers:
    """Choose some training images, equally many of each class and always the same ones first.

    Fewer images are among more images, whatever their number.

    Args:
        numbers: Numbers of all training images.
        names: Names of all images of the set (n,).
        labels: Classes of all images of the set (n,).
        seed: Another seed gives another choice.
        n_train: How many to choose.

    Returns:
        Numbers of the chosen images, in rising order.

    Raises:
        ConfigError: A class has too few images, or would get none.
    """
    classes = np.unique(labels[numbers])
    if n_train < len(classes):
        raise ConfigError(
            f"expected data.n_train >= {len(classes)}, an image of each class, but got n_train = "
            f"{n_train}",
            n_train,
            len(classes),
        )
    counts = {CLASSES[label]: int((labels[numbers] == label).sum()) for label in classes}
    most = _most(list(counts.values()))
    if n_train > most:
        words = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise ConfigError(
            f"expected data.n_train <= {most}, as many of each of the training images ({words}), "
            f"but got n_train = {n_train}; make more images (data_gen.nfiles), or set "
            "data.n_train=null for all",
            n_train,
            most,
        )
    chosen: list[int] = []
    for place, label in enumerate(classes):
        wanted = n_train // len(classes) + (place < n_train % len(classes))
        there = numbers[labels[numbers] == label].tolist()
        chosen += sorted(there, key=lambda number: _rank(names[number], seed))[:wanted]
    return np.array(sorted(chosen), dtype=np.int64)


def _most(counts: Sequence[int]) -> int:
    """Return how many images can be chosen equally; the first classes may give one more."""
    least = min(counts)
    n_more = next(place for place, count in enumerate(counts) if count == least)
    return least * len(counts) + n_more


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/n_train/{name}".encode()).digest()
