"""Tells which images of a folder had a part in the training of an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.lenses.format import image_files, is_dataset, read_settings, read_truth, truth_of
from encoders.lenses.identity import identity_of, image_name, split_of, training_hash
from encoders.lenses.splits import choose

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Training:
    """Which images of a simulated set had which part in the training of the encoder.

    Args:
        card: Of the encoder; None if it was trained on another set.
        chosen: Numbers of the images that trained; None if it may be all of the split `train`.
    """

    card: Mapping[str, Any] | None
    chosen: frozenset[int] | None = None

    @property
    def is_known(self) -> bool:
        """Whether the encoder was trained on images of the set."""
        return self.card is not None

    @property
    def kind(self) -> list[bool]:
        """What changes splits with the checkpoint and the images being the same."""
        return [self.is_known, self.chosen is not None]

    def split_of(self, index: int) -> str:
        """Return the split of an image, empty where it is not known or had no part."""
        if self.card is None:
            return ""
        split = split_of(self.card, index)
        is_left_out = split == "train" and self.chosen is not None and index not in self.chosen
        return "" if is_left_out else split


def training_of(card: Mapping[str, Any], folder: Path) -> Training:
    """Return which part the images of a folder had in the training of an encoder.

    Args:
        card: Of the encoder.
        folder: Of images.
    """
    if not is_dataset(folder) or card.get("identity") != identity_of(read_settings(folder)):
        return Training(None)
    return Training(card, _chosen(card, folder))


def _chosen(card: Mapping[str, Any], folder: Path) -> frozenset[int] | None:
    """Choose `data.n_train` images as the training did; None where its choice is not found again.

    It is not where images were made or lost since: then any image of the split may have trained.
    """
    if "ranges" in card:  # the training simulated its images, and left none out
        return None
    index, labels = _known_images(folder)
    names = [image_name(number) for number in index.tolist()]
    is_train = [split_of(card, number) == "train" for number in index.tolist()]
    try:
        places = choose(
            np.flatnonzero(is_train), names, labels, card["split_seed"], card["n_train"]
        )
    except ConfigError:  # fewer images than trained
        return None
    is_found = training_hash(card["identity"], [names[n] for n in places]) == card["data_hash"]
    return frozenset(index[places].tolist()) if is_found else None


def _known_images(folder: Path) -> tuple[Numbers, Numbers]:
    """Return numbers and classes of the images with a truth that can be read."""
    index, labels = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for path in image_files(folder):
        try:
            table = read_truth(truth_of(path))
        except (DataFormatError, DataNotFoundError):  # the part says so in its turn
            continue
        index.append(np.asarray(table["INDEX"], np.int64))
        labels.append(np.asarray(table["CLASS"], np.int64))
    return np.concatenate(index), np.concatenate(labels)
