"""Finds lens images and deals them into parts: the units of work and of the table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen import files
from datagen.errors import ConfigError, DataNotFoundError
from datagen.lenses.format import CLASSES, image_files, is_dataset, truth_of
from encoders.data import SPLITS
from encoders.lenses.public import ImageRecord, list_images
from inference.lenses.training import Training
from inference.part_data import look_at


@dataclass(frozen=True)
class Part:
    """Images that are classified one after the other, by one rank, into one file of results.

    Args:
        name: Name of the results.
        paths: One file of `data_gen=lenses` with many images, or a file for each image.
        ids: What the table calls each file, its path below the input folder.
        labels: Class of each file by name, empty where it is not known from the folders.
        split: Split of all images as the folders say, empty where they do not.
        wanted: Only images of this split, or None; matters for files with many images.
        training: Tells the split of each image in a file with many images.
        is_shard: Whether it is a file of `data_gen=lenses`.
        sizes: Of each file, and of the truth of a file with many images [bytes].
        mtimes_ns: When each of these was changed.
    """

    name: str
    paths: tuple[Path, ...]
    ids: tuple[str, ...]
    labels: tuple[str, ...]
    split: str
    wanted: str | None
    training: Training
    is_shard: bool
    sizes: tuple[int, ...]
    mtimes_ns: tuple[int, ...]

    def content_hash(self, run_hash: str) -> str:
        """Return what identifies the result: checkpoint, settings, names and sizes of the input."""
        content = {"run": run_hash, "ids": self.ids, "labels": self.labels, "sizes": self.sizes}
        splits = {"split": self.split, "wanted": self.wanted, "training": self.training.kind}
        return files.content_hash(content | splits)

    def item_id(self, row: int) -> str:
        """Return what the table calls one image."""
        return f"{self.ids[0]}[{row}]" if self.is_shard else self.ids[row]

    def note(self) -> dict[str, Any]:
        """Return what the manifest says of the part."""
        return {"split": self.split}

    def row_of(self, image_id: str) -> int:
        """Return where an image stands, from what the table calls it."""
        if self.is_shard:
            return int(image_id.removeprefix(self.ids[0]).strip("[]"))
        return self.ids.index(image_id)


@dataclass(frozen=True)
class Listing:
    """How images are dealt into parts.

    Args:
        folder: `predict.cached_data_path`.
        images_per_part: Images in a part, where each has a file of its own.
        split: Only images of this split; None for all.
        training: Tells the splits of simulated images.
    """

    folder: Path
    images_per_part: int
    split: str | None
    training: Training


def list_parts(listing: Listing) -> list[Part]:
    """Return the parts of a folder, sorted by split, class and name.

    What belongs together depends on the folder alone, not on ranks.

    Args:
        listing: The folder and what is wanted of it.

    Raises:
        DataNotFoundError: The folder holds no images, or none of the split.
    """
    if is_dataset(listing.folder):
        parts = [_shard(path, listing) for path in image_files(listing.folder)]
    else:
        parts = _batches(listing, list_images(listing.folder, "predict.cached_data_path"))
    if not parts:
        raise DataNotFoundError(
            f"predict.cached_data_path = {listing.folder} holds no images of split "
            f"{listing.split}; leave predict.split out to classify all",
            value=listing.split,
        )
    return parts


def _shard(path: Path, listing: Listing) -> Part:
    if listing.split is not None and not listing.training.is_known:
        raise ConfigError(
            f"expected predict.split = null for {listing.folder}, on which the encoder was not "
            f"trained, but got predict.split = {listing.split}",
            value=listing.split,
            allowed="null",
        )
    ids, known = (_id(path, listing.folder),), (listing.split, listing.training, True)
    return Part(path.stem, (path,), ids, ("",), "", *known, *look_at([path, truth_of(path)]))


def _batches(listing: Listing, records: Sequence[ImageRecord]) -> list[Part]:
    """Deal single images into parts; no part holds images of two splits."""
    parts: list[Part] = []
    known = (listing.split, listing.training, False)
    has_test = any(record.split == "test" for record in records)
    for given, group in itertools.groupby(records, key=lambda record: record.split):
        # Sets with `train` and `val` only publish their figures on `val`.
        split = given if given in SPLITS else ""
        split = "test" if split == "val" and not has_test else split
        if listing.split not in (None, split):
            continue
        found = list(group)
        for first in range(0, len(found), listing.images_per_part):
            some = found[first : first + listing.images_per_part]
            paths = tuple(record.path for record in some)
            number = first // listing.images_per_part
            name = "_".join(word for word in ("images", split, f"{number:06d}") if word)
            ids = tuple(_id(path, listing.folder) for path in paths)
            labels = tuple("" if r.label is None else CLASSES[r.label] for r in some)
            parts.append(Part(name, paths, ids, labels, split, *known, *look_at(paths)))
    return parts


def _id(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
