"""Reads one survey tile: all bands on the same pixels, checked, in native floats.

`TileReader` is what the rest sees. `WholeTileReader` decodes each band file once and holds the
survey tile in memory; a reader that streams can take its place.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from numpy.typing import NDArray

from datagen.errors import DataFormatError
from encoders.fields.normalize import estimate_background
from inference.survey.align import TOLERANCE_PX, largest_offset_px, resample
from inference.survey.geometry import Cards, celestial_wcs, pixel_scale_arcsec, wcs_cards
from inference.survey.settings import SurveySettings
from inference.survey.tiles import Tile

SCALE_TOLERANCE = 0.02
ZERO_POINT_TOLERANCE_MAG = 0.01


class TileReader(Protocol):
    """One survey tile.

    Attributes:
        shape: Shape (H, W) [px].
        cards: WCS cards of the reference band.
        background: Level of each band [counts], shape (C,).
        sigma: Noise of each band [counts], shape (C,).
    """

    shape: tuple[int, int]
    cards: Cards
    background: NDArray[np.float32]
    sigma: NDArray[np.float32]

    def section(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Return pixels [counts], shape (C, h, w), NaN where masked; not to be changed."""


@dataclass(frozen=True)
class BandImage:
    """One band as it stands in its file: pixels (H, W) [counts], WCS and its cards."""

    pixels: NDArray[np.float32]
    wcs: WCS
    cards: Cards


class WholeTileReader:
    """Holds a whole survey tile.

    Args:
        tile: Which files.
        survey: How they are stored.
        zero_point: Zero point of the encoder [mag].

    Raises:
        DataFormatError: The survey tile is incomplete, damaged, or its bands do not fit together.
    """

    def __init__(self, tile: Tile, survey: SurveySettings, zero_point: float) -> None:
        if tile.problem is not None:
            raise DataFormatError(tile.problem, value=tile.name)
        self._survey = survey
        self._zero_point = zero_point
        paths = dict(zip(survey.bands, tile.paths, strict=True))
        reference = self._read(survey.reference_band, paths)
        self.cards = reference.cards
        shape = reference.pixels.shape
        self.shape = (int(shape[0]), int(shape[1]))
        self._images = np.empty((len(survey.bands), *self.shape), np.float32)
        for index, band in enumerate(survey.bands):
            is_reference = band == survey.reference_band
            image = reference if is_reference else self._read(band, paths)
            self._images[index] = self._fit(image, reference, band)
        self.background, self.sigma = self._measure()

    def section(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Return pixels [counts], shape (C, h, w), NaN where masked; not to be changed."""
        view: NDArray[np.float32] = self._images[:, rows, columns]
        return view

    def _read(self, band: str, paths: dict[str, Path]) -> BandImage:
        image = read_band(paths[band], self._survey, band, self._zero_point)
        shape = (int(image.pixels.shape[0]), int(image.pixels.shape[1]))
        with _reading(paths[band]):
            scale = pixel_scale_arcsec(image.wcs, shape)
        wanted = self._survey.pixel_scale
        if not abs(scale / wanted - 1) <= SCALE_TOLERANCE:
            raise DataFormatError(
                f"{paths[band].name} has {scale:.4f} arcsec/px, but survey.pixel_scale = {wanted}",
                value=scale,
                allowed=wanted,
            )
        return image

    def _fit(self, image: BandImage, reference: BandImage, band: str) -> NDArray[np.float32]:
        """Return the pixels of a band on those of the reference band."""
        if image is reference:
            return image.pixels
        name = self._survey.reference_band
        offset = largest_offset_px(reference.wcs, image.wcs, self.shape)
        same_shape = image.pixels.shape == reference.pixels.shape
        if same_shape and offset <= TOLERANCE_PX:
            return image.pixels
        if self._survey.align:
            return resample(image.pixels, reference.wcs, image.wcs, self.shape)
        hint = "survey.align=true resamples it"
        if not same_shape:
            raise DataFormatError(
                f"band {band} has shape {image.pixels.shape}, but band {name} has "
                f"{reference.pixels.shape}; {hint}",
                value=image.pixels.shape,
            )
        raise DataFormatError(
            f"the WCS of band {band} is {offset:.2f} px off that of band {name} (allowed: "
            f"{TOLERANCE_PX} px); {hint}",
            value=offset,
        )

    def _measure(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the background and the noise of each band, both of shape (C,)."""
        levels = []
        for band, image in zip(self._survey.bands, self._images, strict=True):
            valid = np.isfinite(image)
            if not valid.any():
                raise DataFormatError(f"band {band} has no valid pixel (all NaN)", value=band)
            if np.nanmin(image) == np.nanmax(image):
                level = float(np.nanmin(image))
                raise DataFormatError(
                    f"all pixels of band {band} are {level}; is it an image?", value=level
                )
            levels.append(_level(image, valid, band))
        array = np.array(levels, np.float32)
        return array[:, 0], array[:, 1]


def read_band(path: Path, survey: SurveySettings, band: str, zero_point: float) -> BandImage:
    """Read one band file.

    Args:
        path: FITS file, plain or compressed.
        survey: How it is stored.
        band: Which band it is.
        zero_point: Zero point that the counts shall have [mag].

    Raises:
        DataFormatError: The file is damaged, is no FITS file, or lacks what is needed.
    """
    with _reading(path), fits.open(path, memmap=False) as hdus:
        hdu = _image_hdu(hdus, survey.hdu, path)
        primary, header = hdus[0].header, hdu.header
        # FITS is big-endian; this also brings pixels to the machine's own order, once.
        pixels = np.asarray(hdu.data, np.float32)
        # Astropy parses a card when it is asked for: here, too, it meets what is damaged.
        value = _zero_point(survey.zero_points[band], (header, primary), path, band)
        cards = wcs_cards(header)
        wcs = celestial_wcs(cards, path.name)
    if survey.blank_value is not None:
        pixels[pixels == np.float32(survey.blank_value)] = np.nan
    scale = _count_scale(value, zero_point, survey, path)
    if scale != 1:
        pixels = pixels * np.float32(scale)
    return BandImage(pixels, wcs, cards)


def _level(image: NDArray[np.float32], valid: NDArray[np.bool_], band: str) -> tuple[float, float]:
    """Return the background and the noise of a band [counts]; refuse what has no noise."""
    background, sigma = estimate_background(image, valid)
    # 1 also stands for "unknown" there; a true noise doubles with the counts.
    if sigma == 1 and estimate_background(2 * image, valid)[1] == 1:
        raise DataFormatError(
            f"the noise of band {band} cannot be measured: {valid.mean():.1%} of its pixels are "
            "valid, and most of these are equal; survey.blank_value names a value that marks "
            "pixels without data",
            value=band,
        )
    return background, sigma


def check_zero_point(value: float, wanted: float) -> bool:
    """Return whether two zero points [mag] are the same for an encoder."""
    return abs(value - wanted) <= ZERO_POINT_TOLERANCE_MAG


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file provokes into one clear error."""
    try:
        if path.stat().st_size == 0:
            raise DataFormatError(f"{path.name} is empty (0 bytes)", value=str(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyUserWarning)
            warnings.filterwarnings("error", message=".*truncated.*")
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
