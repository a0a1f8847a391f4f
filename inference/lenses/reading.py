"""Reads the images of a part a few at a time, and says what is wrong with those that are no use."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import proj_plane_pixel_scales
from numpy.typing import NDArray

from datagen.errors import DataFormatError, SkyfoldError
from datagen.lenses.format import CLASSES, read_images, read_truth, truth_of
from datagen.tiles.bands import SCALE_TOLERANCE
from encoders.lenses.public import load
from inference.lenses.listing import Part
from inference.lenses.table import Truth
from inference.part_data import PartReader, Problems, blank_bad


@dataclass(frozen=True)
class Expected:
    """What an encoder asks of images.

    Args:
        bands: Their names.
        side: Side of an image [px].
        pixel_scale: Side of a pixel [arcsec]; None for any.
    """

    bands: tuple[str, ...]
    side: int
    pixel_scale: float | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image."""
        return len(self.bands), self.side, self.side

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise `DataFormatError` unless an image has the right shape."""
        if tuple(shape) != self.shape:
            raise DataFormatError(
                f"expected images of shape {self.shape} (bands, side, side), with which the "
                f"encoder was trained, but got {tuple(shape)}",
                value=tuple(shape),
                allowed=self.shape,
            )


def open_part(part: Part, expected: Expected) -> PartReader:
    """Open a part.

    Raises:
        DataFormatError: Nothing in it is of use: it is damaged or of another shape.
    """
    return ShardReader(part, expected) if part.is_shard else FileReader(part, expected)


class ShardReader:
    """Images in one file of `data_gen=lenses`.

    Args:
        part: The file.
        expected: What the encoder asks of images.
    """

    def __init__(self, part: Part, expected: Expected) -> None:
        self._images = read_images(part.paths[0])
        expected.check(self._images.shape[1:])
        # Damage in the truth shall be known before the images are classified.
        truth = _read_truth(part, len(self._images))
        self.rows = np.flatnonzero([part.wanted in (None, split) for split in truth.splits])
        self._truth = truth.take(self.rows)

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], Problems]:
        """Return some images; see `PartReader`."""
        images = np.array(self._images[rows], np.float32)
        return images, blank_bad(images, rows)

    def truth(self) -> Truth:
        """Return class, Delta chi2, index and split of the images."""
        return self._truth


class FileReader:
    """Images with a file each.

    Args:
        part: The files.
        expected: What the encoder asks of images.
    """

    def __init__(self, part: Part, expected: Expected) -> None:
        self._part = part
        self._expected = expected
        self.rows = np.arange(len(part.paths))

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], Problems]:
        """Return some images; see `PartReader`."""
        images = np.zeros((len(rows), *self._expected.shape), np.float32)
        problems: Problems = {}
        for image, row in zip(images, rows.tolist(), strict=True):
            try:
                image[:] = self._load(self._part.paths[row])
            except (SkyfoldError, OSError) as error:
                problems[row] = str(error)
        return images, problems

    def truth(self) -> Truth:
        """Return the classes and splits that the folders say."""
        unknown = Truth.unknown(len(self.rows))
        splits = np.full(len(self.rows), self._part.split)
        return replace(unknown, classes=np.asarray(self._part.labels), splits=splits)

    def _load(self, path: Path) -> NDArray[np.float32]:
        image: NDArray[np.float32] = load(path).numpy()
        self._expected.check(image.shape)
        scale = pixel_scale(path)
        wanted = self._expected.pixel_scale
        if scale is not None and wanted is not None and abs(scale / wanted - 1) > SCALE_TOLERANCE:
            raise DataFormatError(
                f"expected pixels of {wanted} arcsec, with which the encoder was trained, but got "
                f"{scale:.4g} arcsec (allowed: 2 %)",
                value=scale,
                allowed=wanted,
            )
        return image


def _read_truth(part: Part, n_images: int) -> Truth:
    """Return what is known of all images of a file; nothing where there is no truth."""
    path = truth_of(part.paths[0])
    if not path.is_file():
        return Truth.unknown(n_images)
    table = read_truth(path)
    if len(table) != n_images:
        raise DataFormatError(
            f"{path} has {len(table)} rows, but there are {n_images} images in "
            f"{part.paths[0].name}; make both again with data_gen.overwrite=true",
            value=len(table),
            allowed=n_images,
        )
    index = np.asarray(table["INDEX"], np.int64)
    return Truth(
        classes=np.asarray(CLASSES)[np.asarray(table["CLASS"], np.int64)],
        delta_chi2=np.asarray(table["DELTA_CHI2"], np.float32),
        index=index,
        splits=np.array([part.training.split_of(number) for number in index.tolist()]),
    )


def pixel_scale(path: Path) -> float | None:
    """Return the side of a pixel [arcsec] as the WCS of a FITS file says, None without one.

    Raises:
        DataFormatError: The WCS cannot be understood.
    """
    if path.suffix.lower() != ".fits":
        return None
    try:
        with fits.open(path) as hdus, warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            for hdu in hdus:
                wcs = WCS(hdu.header, naxis=2) if hdu.header.get("NAXIS", 0) >= 2 else None
                if wcs is not None and wcs.has_celestial:
                    return float(proj_plane_pixel_scales(wcs.celestial)[0] * 3600)
    except Exception as error:  # wcslib raises many unrelated classes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataFormatError(
            f"expected a WCS with the pixel scale, or none, in the header of {path}, but got one "
            f"that cannot be read: {reason}; mend its keys or remove them",
            value=str(path),
        ) from error
    return None
