"""Opens one band file of a survey tile: checks it and calibrates what is read of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from numpy.typing import NDArray

from datagen.errors import DataFormatError
from datagen.tiles.geometry import Cards, celestial_wcs, pixel_scale_arcsec, wcs_cards
from datagen.tiles.sections import Pixels, Steps, open_pixels, strips
from datagen.tiles.survey import SurveySettings

SCALE_TOLERANCE = 0.02
ZERO_POINT_TOLERANCE_MAG = 0.01


@dataclass(frozen=True)
class BandFile:
    """An open band file.

    Args:
        path: FITS file, plain or compressed.
        hdus: The same, open.
        pixels: Its image.
        shape: (H, W) [px].
        wcs: Its WCS.
        cards: WCS cards.
        scale: Factor that brings counts to the encoder's zero point.
        blank: Pixels of this value [counts, as stored] were not observed, or None.
    """

    path: Path
    hdus: fits.HDUList
    pixels: Pixels
    shape: tuple[int, int]
    wcs: WCS
    cards: Cards
    scale: float
    blank: float | None

    def read(self, rows: slice, columns: slice, out: NDArray[np.float32]) -> None:
        """Write a section to `out` [counts], NaN where masked.

        Raises:
            DataFormatError: The file is damaged there.
        """
        with naming(self.path):
            self.pixels.read(rows, columns, out)
        self._calibrate(out)

    def sample(self, steps: Steps) -> NDArray[np.float32]:
        """Return every n-th row and column [counts], NaN where masked.

        Raises:
            DataFormatError: The file is damaged there.
        """
        with naming(self.path):
            values = self.pixels.sample(steps)
        self._calibrate(values)
        return values

    def close(self) -> None:
        """Close the file."""
        self.hdus.close()

    def _calibrate(self, pixels: NDArray[np.float32]) -> None:
        for strip in strips(len(pixels)):
            part = pixels[strip]
            if self.blank is not None:
                np.copyto(part, np.float32(np.nan), where=part == np.float32(self.blank))
            if self.scale != 1:
                part *= np.float32(self.scale)


def open_band(path: Path, survey: SurveySettings, band: str, zero_point: float) -> BandFile:
    """Open one band file and check what its headers say.

    Args:
        path: FITS file, plain or compressed.
        survey: How it is stored.
        band: Which band it is.
        zero_point: Zero point that the counts shall have [mag].

    Raises:
        DataFormatError: The file is damaged, is no FITS file, or lacks what is needed.
    """
    with reading(path):
        # By default astropy maps what it can; `memmap=True` would refuse scaled images.
        hdus = fits.open(path)
    try:
        with reading(path):
            hdu = _image_hdu(hdus, survey.hdu, path)
            primary, header = hdus[0].header, hdu.header
            # Astropy parses a card when it is asked for: here, too, it meets what is damaged.
            value = _zero_point(survey.zero_points[band], (header, primary), path, band)
            cards = wcs_cards(header)
            wcs = celestial_wcs(cards, path.name)
            shape = (int(hdu.shape[0]), int(hdu.shape[1]))
            _check_scale(pixel_scale_arcsec(wcs, shape), survey.pixel_scale, path)
            scale = _count_scale(value, zero_point, survey, path)
            pixels = open_pixels(hdus, hdu, path)
        return BandFile(path, hdus, pixels, shape, wcs, cards, scale, survey.blank_value)
    except BaseException:
        hdus.close()
        raise


def read_layout(path: Path, survey: SurveySettings) -> tuple[tuple[int, int], WCS]:
    """Return the shape (H, W) [px] and the WCS of a band file, of which only headers are read.

    Raises:
        DataFormatError: The file is damaged, is no FITS file, or lacks what is needed.
    """
    with reading(path), fits.open(path) as hdus:
        hdu = _image_hdu(hdus, survey.hdu, path)
        shape = (int(hdu.shape[0]), int(hdu.shape[1]))
        return shape, celestial_wcs(wcs_cards(hdu.header), path.name)


def _check_scale(scale: float, wanted: float, path: Path) -> None:
    if not abs(scale / wanted - 1) <= SCALE_TOLERANCE:
        raise DataFormatError(
            f"{path.name} has {scale:.4f} arcsec/px, but survey.pixel_scale = {wanted}",
            value=scale,
            allowed=wanted,
        )


def check_zero_point(value: float, wanted: float) -> bool:
    """Return whether two zero points [mag] are the same for an encoder."""
    return abs(value - wanted) <= ZERO_POINT_TOLERANCE_MAG


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever opening a damaged file provokes into one clear error."""
    with naming(path), warnings.catch_warnings():
        if path.stat().st_size == 0:
            raise DataFormatError(f"{path.name} is empty (0 bytes)", value=str(path))
        warnings.simplefilter("ignore", AstropyUserWarning)
        warnings.filterwarnings("error", message=".*truncated.*")
        yield


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file provokes into one clear error."""
    try:
        yield
    except (DataFormatError, MemoryError):
        raise
    except Exception as error:  # astropy and its decoders raise many unrelated classes here
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataFormatError(
            f"{path.name} cannot be read; it is damaged, incomplete or no FITS file: {reason}",
            value=str(path),
        ) from error


def _image_hdu(hdus: fits.HDUList, wanted: int | str, path: Path) -> Any:  # noqa: ANN401 - no types
    """Return the HDU that holds the two-dimensional image."""
    held = ", ".join(f"{i} {hdu.name or '-'} {hdu.shape}" for i, hdu in enumerate(hdus))
    try:
        hdu = hdus[wanted]
    except (KeyError, IndexError):
        hdu = None
    if hdu is None or not hdu.is_image or len(hdu.shape) != 2:
        raise DataFormatError(
            f"{path.name} has no two-dimensional image in survey.hdu = {wanted}; it holds {held}",
            value=wanted,
            allowed=held,
        )
    return hdu


def _zero_point(entry: object, headers: tuple[Any, ...], path: Path, band: str) -> float:
    """Return the zero point of a band [mag]: a number, or the value of a header keyword."""
    if not isinstance(entry, str):
        return float(entry)  # type: ignore[arg-type] # checked by SurveySettings
    for header in headers:
        if entry in header:
            value = header[entry]
            if isinstance(value, bool) or not isinstance(value, int | float):
                value = math.nan
            if not math.isfinite(value):
                raise DataFormatError(
                    f"expected header keyword {entry} of {path.name} to be a zero point [mag], "
                    f"but got {entry} = {header[entry]!r}",
                    value=str(header[entry]),
                )
            return float(value)
    raise DataFormatError(
        f"{path.name} has no header keyword {entry}, which survey.zero_points.{band} names",
        value=entry,
    )


def _count_scale(value: float, wanted: float, survey: SurveySettings, path: Path) -> float:
    """Return the factor that brings counts to the encoder's zero point."""
    if check_zero_point(value, wanted):
        return 1.0
    if not survey.calibrate:
        raise DataFormatError(
            f"{path.name} has zero point {value}, but the checkpoint was trained on {wanted}; "
            "survey.calibrate=true scales the counts",
            value=value,
            allowed=wanted,
        )
    return float(10 ** (0.4 * (wanted - value)))
