"""Where lens images lie, and what is known of each before it is read."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datagen.errors import DataFormatError, DataNotFoundError
from datagen.files import content_hash
from datagen.lenses.format import (
    image_files,
    read_images,
    read_settings,
    read_truth,
    truth_of,
)
from encoders.lenses.identity import identity_of, image_name
from encoders.lenses.public import ImageRecord, list_images, load

Numbers = NDArray[np.int64]
# Memory maps are cheap, but each one counts against the limit of the process.
N_OPEN_FILES = 256
# Files of a public set whose bytes tell it from other sets with the same names and sizes.
N_HASHED = 32


class Reader(Protocol):
    """Reads images by their numbers."""

    def read(self, numbers: Numbers) -> Tensor:
        """Return images (B, C, H, W), float32 [counts]."""
        ...


@dataclass(frozen=True)
class ImageSet:
    """The images of a folder, in a fixed order.

    Args:
        names: What an image is called; decides its split (n,).
        given: Split that the folder gives, or None (n,).
        index: Number of an image among all that its settings can make (n,).
        labels: Class, a position in `CLASSES` (n,).
        delta_chi2: Detectability of the substructure, NaN where unknown (n,), float32.
        bands: Names of the channels.
        side: Side of an image [px].
        pixel_scale: [arcsec/px]; None where unknown.
        noise: Median noise of the sky [counts]; 0 where images have none, None where unknown.
        gain: Electrons per count; 0 where photons make no noise, None where unknown.
        identity: Identifies the images: what a number means in sets with one identity.
        reader: Reads the pixels.
    """

    names: list[str]
    given: list[str | None]
    index: Numbers
    labels: Numbers
    delta_chi2: NDArray[np.float32]
    bands: list[str]
    side: int
    pixel_scale: float | None
    noise: float | None
    gain: float | None
    identity: str
    reader: Reader

    def read(self, numbers: Numbers) -> Tensor:
        """Return images (B, C, H, W), float32 [counts].

        Raises:
            DataFormatError: A pixel is not finite; the message names the image.
        """
        images = self.reader.read(numbers)
        is_fine = torch.isfinite(images).flatten(1).all(dim=1)
        if not is_fine.all():
            name = self.names[int(numbers[int((~is_fine).nonzero()[0, 0])])]
            raise DataFormatError(
                f"expected finite pixels, but image {name} has NaN or infinite ones; make it again "
                "or take it out",
                name,
            )
        return images


def open_images(folder: Path) -> ImageSet:
    """Look at a folder of simulated images, or of a public set; pixels are read later.

    Args:
        folder: With `images/` and `truth/` of `data_gen=lenses`, or with `{train,val}/<class>/`.

    Raises:
        DataNotFoundError: There are no images; the message gives the command that makes them.
        DataFormatError: Files are damaged or do not fit one another.
    """
    if any((folder / "images").glob("lenses_*.npy")):
        return _simulated(folder, image_files(folder))
    if not any((folder / split).is_dir() for split in ("train", "val", "test")):
        raise DataNotFoundError(
            f"expected lens images in data.data_dir = {folder}: images/lenses_*.npy with truth/, "
            "or train/<class>/ and val/<class>/, but found neither; make them with: python "
            f"datagen/run.py data_gen=lenses data_gen.data_dir={folder}",
            str(folder),
        )
    return _public(folder)


class ShardReader:
    """Reads rows of arrays that are mapped into memory.

    Args:
        paths: The files.
        counts: Images in each.
    """

    def __init__(self, paths: list[Path], counts: list[int]) -> None:
        self.paths, self.starts = paths, np.cumsum([0, *counts])

    def read(self, numbers: Numbers) -> Tensor:
        """See `Reader`."""
        files = np.searchsorted(self.starts, numbers, side="right") - 1
        rows = numbers - self.starts[files]
        return torch.from_numpy(
            np.stack([_mapped(self.paths[f])[r] for f, r in zip(files, rows, strict=True)])
        )


class FileReader:
    """Reads one file for each image.

    Args:
        paths: The files.
        shape: What all of them hold, (C, H, W).
    """

    def __init__(self, paths: list[Path], shape: tuple[int, ...]) -> None:
        self.paths, self.shape = paths, shape

    def read(self, numbers: Numbers) -> Tensor:
        """See `Reader`."""
        return torch.stack([load(self.paths[number], self.shape) for number in numbers])


@functools.lru_cache(maxsize=N_OPEN_FILES)
def _mapped(path: Path) -> NDArray[np.float32]:
    return read_images(path)


def _simulated(folder: Path, files: list[Path]) -> ImageSet:
    settings = read_settings(folder)
    bands, side = list(settings["bands"]), int(settings["side"])
    truths = [read_truth(truth_of(path)) for path in files]
    for path, truth in zip(files, truths, strict=True):
        shape, expected = read_images(path).shape, (len(truth), len(bands), side, side)
        if shape != expected:
            raise DataFormatError(
                f"expected {path} to hold images of shape {expected}, as its truth and "
                f"settings.json say, but got {shape}; make it again with data_gen.overwrite=true",
                shape,
                expected,
            )
    index = _column(truths, "INDEX", np.int64)
    return ImageSet(
        names=[image_name(number) for number in index],
        given=[None] * len(index),
        index=index,
        labels=_column(truths, "CLASS", np.int64),
        delta_chi2=_column(truths, "DELTA_CHI2", np.float32),
        bands=bands,
        side=side,
        pixel_scale=float(settings["pixel_scale"]),
        noise=float(np.median(_column(truths, "SKY_SIGMA", np.float64))),
        gain=truths[0].meta.get("GAIN"),
        identity=identity_of(settings),
        reader=ShardReader(files, [len(truth) for truth in truths]),
    )


def _column(truths: list[Any], name: str, dtype: type) -> NDArray[Any]:
    """Return a column of all tables, in the byte order of this machine."""
    return np.concatenate([np.asarray(truth[name]) for truth in truths]).astype(dtype)


def _public(folder: Path) -> ImageSet:
    records = list_images(folder)
    first = load(records[0].path)
    n_bands, height, width = first.shape
    if height != width:
        raise DataFormatError(
            f"expected square images, but {records[0].path} has {height} x {width} pixels",
            (height, width),
        )
    names = [record.path.relative_to(folder).as_posix() for record in records]
    return ImageSet(
        names=names,
        given=[record.split for record in records],
        index=np.arange(len(records)),
        labels=np.array([_label(record) for record in records]),
        delta_chi2=np.full(len(records), np.nan, dtype=np.float32),
        bands=[f"band_{number}" for number in range(n_bands)],
        side=height,
        pixel_scale=None,
        noise=None,
        gain=None,
        identity=_identity_of_files([record.path for record in records], names),
        reader=FileReader([record.path for record in records], tuple(first.shape)),
    )


def _identity_of_files(paths: list[Path], names: list[str]) -> str:
    """Return the hash of names and sizes of all files and of the bytes of a few of them."""
    read = np.unique(np.linspace(0, len(paths) - 1, N_HASHED).round().astype(int))
    digests = [hashlib.sha256(paths[number].read_bytes()).hexdigest() for number in read]
    sizes = [path.stat().st_size for path in paths]
    return content_hash({"names": names, "sizes": sizes, "digests": digests})


def _label(record: ImageRecord) -> int:
    assert record.label is not None  # folders of splits have folders of classes
    return record.label
