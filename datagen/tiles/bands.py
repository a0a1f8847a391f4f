"""Opens one band file of a survey tile: checks it and calibrates what is read of it."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from datagen.errors import DataFormatError
from datagen.tiles.damage import naming, reading
from datagen.tiles.geometry import Cards, celestial_wcs, pixel_scale_arcsec, wcs_cards
from datagen.tiles.planes import MaskedPixels, open_plane
from datagen.tiles.sections import Pixels, Steps, open_pixels, strips
from datagen.tiles.survey import PlaneSettings, SurveySettings

SCALE_TOLERANCE = 0.02
ZERO_POINT_TOLERANCE_MAG = 0.01

PlaneFiles = list[tuple[PlaneSettings, Path]]


@dataclass(frozen=True)
class BandFile:
    """An open band file.

    Args:
        path: FITS file, plain or compressed.
        hdus: The same, open.
        pixels: Its image; with planes, NaN where these call it bad.
        shape: (H, W) [px].
        wcs: Its WCS.
        cards: WCS cards.
        scale: Factor that brings counts to the encoder's zero point.
        blank: Pixels of this value [counts, as stored] were not observed, or None.
        others: Open files of planes.
    """

    path: Path
    hdus: fits.HDUList
    pixels: Pixels
    shape: tuple[int, int]
    wcs: WCS
    cards: Cards
    scale: float
    blank: float | None
    others: tuple[fits.HDUList, ...] = ()

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

    @property
    def rows_decoded(self) -> int:
        """The rows above this one need no more decoding."""
        return self.pixels.rows_decoded

    def decode_ahead(self, room: int) -> bool:
        """Decode the next rows if they are at most `room` pixels; return whether it did.

        Raises:
            DataFormatError: The file is damaged there.
        """
        with naming(self.path):
            return self.pixels.decode_ahead(room)

    def close(self) -> None:
        """Close the file and those of its planes."""
        for hdus in (self.hdus, *self.others):
            hdus.close()

    def _calibrate(self, pixels: NDArray[np.float32]) -> None:
        for strip in strips(len(pixels)):
            part = pixels[strip]
            if self.blank is not None:
                np.copyto(part, np.float32(np.nan), where=part == np.float32(self.blank))
            if self.scale != 1:
                part *= np.float32(self.scale)


def open_band(
    path: Path,
    survey: SurveySettings,
    band: str,
    zero_point: float,
    planes: PlaneFiles | None = None,
) -> BandFile:
    """Open one band file and check what its headers say.

    Args:
        path: FITS file, plain or compressed.
        survey: How it is stored.
        band: Which band it is.
        zero_point: Zero point that the counts shall have [mag].
        planes: Planes of the image and the files that hold them.

    Raises:
        DataFormatError: A file is damaged, is no FITS file, or lacks what is needed.
    """
    with contextlib.ExitStack() as stack:
        hdus = _opened(path, stack)
        with reading(path):
            hdu = _image_hdu(hdus, survey.hdu, path)
            headers = (hdu.header, hdus[0].header)
            # Astropy parses a card when it is asked for: here, too, it meets what is damaged.
            value = _zero_point(survey, headers, path, band)
            cards = wcs_cards(hdu.header)
            wcs = celestial_wcs(cards, path.name)
            shape = (int(hdu.shape[0]), int(hdu.shape[1]))
            _check_scale(pixel_scale_arcsec(wcs, shape), survey.pixel_scale, path)
            scale = _count_scale(value, zero_point, survey, path)
            pixels = open_pixels(hdus, hdu, path)
        opened, others = [], []
        for plane, file in planes or ():
            held_in = hdus
            if file != path:
                held_in = _opened(file, stack)
                others.append(held_in)
            with reading(file):
                opened.append(open_plane(held_in, plane, file, shape))
        if opened:
            pixels = MaskedPixels(pixels, opened)
        stack.pop_all()
    blank = survey.blank_value
    return BandFile(path, hdus, pixels, shape, wcs, cards, scale, blank, tuple(others))


def _opened(path: Path, stack: contextlib.ExitStack) -> fits.HDUList:
    """Open a FITS file, to be closed with the stack."""
    with reading(path):
        # By default astropy maps what it can; `memmap=True` would refuse scaled images.
        hdus = fits.open(path)
    stack.callback(hdus.close)
    return hdus


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


def _zero_point(survey: SurveySettings, headers: tuple[Any, ...], path: Path, band: str) -> float:
    """Return the magnitude of one unit of a band's pixels.

    A source of F counts in t seconds has m = zp - 2.5 lg(F / t), where zp is that of counts per
    second, and m = zp - 2.5 lg(R t), where R are counts per second and zp is that of counts.
    """
    value = survey.zero_point(band)
    if isinstance(value, str):
        name = f"survey.zero_points.{band}"
        value = _keyword(value, headers, path, name, "a zero point [mag]")
    if survey.exposure_time is None:
        return float(value)
    allowed = "an exposure time > 0 s"
    seconds = _keyword(survey.exposure_time, headers, path, "survey.exposure_time", allowed)
    if seconds <= 0:
        raise DataFormatError(
            f"expected header keyword {survey.exposure_time} of {path.name} to be {allowed}, but "
            f"got {seconds}",
            value=seconds,
            allowed=allowed,
        )
    sign = -1 if survey.units == "counts_per_second" else 1
    return float(value) + sign * 2.5 * math.log10(seconds)


def _keyword(keyword: str, headers: tuple[Any, ...], path: Path, name: str, allowed: str) -> float:
    """Return the number that a header keyword holds, from the first header that has it."""
    for header in headers:
        if keyword in header:
            value = header[keyword]
            if isinstance(value, bool) or not isinstance(value, int | float):
                value = math.nan
            if not math.isfinite(value):
                raise DataFormatError(
                    f"expected header keyword {keyword} of {path.name} to be {allowed}, "
                    f"but got {keyword} = {header[keyword]!r}",
                    value=str(header[keyword]),
                )
            return float(value)
    raise DataFormatError(
        f"{path.name} has no header keyword {keyword}, which {name} names", value=keyword
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
