"""From the files of one image to its stamp."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from astropy.units import Quantity
from numpy.typing import NDArray

from datagen.errors import DataFormatError
from datagen.fields.cosmology import arcsec_per_mpc
from datagen.stamps.cropping import Box, box_about, middle
from datagen.stamps.drops import DroppedError
from datagen.stamps.expressions import Expression
from datagen.stamps.names import Image
from datagen.stamps.petrosian import Petrosian, Source, central_source, petrosian, sky_of
from datagen.stamps.readers import Raw, read_image
from datagen.stamps.resizing import noise_factor, resize
from datagen.stamps.settings import MEASURE, SuiteSettings
from datagen.stamps.version import ZERO_POINT

Values = NDArray[np.float64]

# By how much the pixel scales of the bands of an image may differ, relatively.
SCALE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Stamp:
    """A stamp.

    Args:
        pixels: (bands, side, side), nanomaggies where the zero point is known.
        row: Column of `MEASURED` -> value, of those that are known.
    """

    pixels: NDArray[np.float32]
    row: dict[str, float]


@dataclass(frozen=True)
class View:
    """An image with what is known of it.

    Args:
        planes: (bands, h, w), in the unit of the file.
        scale: [arcsec/px].
        zero_points: Of each band [AB mag], or None.
        fwhm: Of each band [arcsec], or None.
        sigma: Noise of each band [unit of the file], or None.
    """

    planes: Values
    scale: float
    zero_points: list[float | None]
    fwhm: list[float | None]
    sigma: list[float | None]


def view_image(suite: SuiteSettings, bands: Sequence[str], image: Image) -> View:
    """Read an image and what its files say of it.

    Raises:
        DroppedError: A band is missing, a file is damaged, or a number is not there or wrong.
    """
    raw = read_image(image, {band: str(suite.bands[band]) for band in bands}, suite.reader)
    scales = [_number(suite, "pixel_scale", band, cards)
              for band, cards in zip(bands, raw.cards, strict=True)]  # fmt: skip
    scale = float(scales[0] or 0.0)
    if not scale > 0:
        raise DroppedError(f"{image.name}: pixel_scale = {scale:g}, not > 0", "calibration")
    if any(abs(float(other or 0.0) / scale - 1) > SCALE_TOLERANCE for other in scales):
        raise DroppedError(f"{image.name}: bands have pixel scales {scales}", "calibration")
    planes, sigma = _sky(suite, bands, raw)
    zero_points, fwhm = (
        [_number(suite, name, band, cards) for band, cards in zip(bands, raw.cards, strict=True)]
        for name in ("zero_point", "fwhm")
    )
    return View(planes, scale, zero_points, fwhm, sigma)


def _sky(suite: SuiteSettings, bands: Sequence[str], raw: Raw) -> tuple[Values, list[float | None]]:
    """Subtract the sky where that is asked for; return planes and noise."""
    planes = raw.planes.copy()
    sigma: list[float | None] = []
    for k, (band, cards) in enumerate(zip(bands, raw.cards, strict=True)):
        is_measured = suite.number("sky_sigma", band) == MEASURE
        if is_measured or suite.subtract_sky:
            seen = planes[k][np.isfinite(planes[k])]
            median, deviation = sky_of(seen) if seen.size else (0.0, 0.0)
            planes[k] -= median if suite.subtract_sky else 0.0
        sigma.append(deviation if is_measured else _number(suite, "sky_sigma", band, cards))
    return planes, sigma


def _number(suite: SuiteSettings, name: str, band: str, cards: Mapping[str, Any]) -> float | None:
    """Return a number that describes an image, None where it is not known."""
    setting = suite.number(name, band)
    if not isinstance(setting, str):
        return None if setting is None else float(setting)
    where = f"suites.{suite.name}.{name}"
    try:
        value = np.asarray(_expression(setting, where)(cards))
    except DataFormatError as error:
        raise DroppedError(f"band {band}: {error}", "calibration") from error
    if value.size != 1 or not np.isfinite(value).all():
        raise DroppedError(f"band {band}: {where} is {value}", "calibration")
    return float(value.ravel()[0])


@lru_cache(maxsize=256)
def _expression(text: str, where: str) -> Expression:
    return Expression(text, where)


def make_stamp(
    suite: SuiteSettings, bands: Sequence[str], side: int, image: Image, labels: Mapping[str, float]
) -> Stamp:
    """Cut a stamp from an image.

    Args:
        suite: How.
        bands: Planes of the stamp.
        side: Its side [px].
        image: From which one.
        labels: Alias -> value; crops may need them.

    Raises:
        DroppedError: The image cannot be used.
    """
    finder = suite.crop.band or bands[0]
    view = view_image(suite, [*bands, *([finder] if finder not in bands else [])], image)
    index = [*bands, finder].index(finder)
    source, size = _measured(suite, view.planes[index])
    box = box_of(suite, view, labels, source, size)
    cut = view.planes[: len(bands), box.rows, box.columns]
    n_bad = int((~np.isfinite(cut)).sum())
    if n_bad:
        raise DroppedError(f"{n_bad} pixels are nan or inf", "pixels")
    factors = np.array([_to_nanomaggies(zero) for zero in view.zero_points[: len(bands)]])
    pixels = resize(cut, side) * factors[:, None, None]
    row = {"SCALE": view.scale * box.side / side, "LIMITED": float(box.is_limited)}
    row |= _row_of_bands("FWHM", bands, view.fwhm)
    noise = [None if sigma is None else sigma * factor * noise_factor(box.side, side)
             for sigma, factor in zip(view.sigma, factors, strict=False)]  # fmt: skip
    row |= _row_of_bands("SKYSIGMA", bands, noise)
    if suite.measure or suite.crop.kind == "petrosian":
        row |= _row_of_sizes(size, view.scale, view.zero_points[index])
    return Stamp(pixels.astype(np.float32), row)


def _to_nanomaggies(zero_point: float | None) -> float:
    return 1.0 if zero_point is None else 10.0 ** (-0.4 * (zero_point - ZERO_POINT))


def _measured(suite: SuiteSettings, plane: Values) -> tuple[Source | None, Petrosian | None]:
    """Find and measure the central source, where a crop or a column needs it."""
    is_needed = suite.crop.kind == "petrosian"
    if not (is_needed or suite.measure):
        return None, None
    is_bad = ~np.isfinite(plane)
    if is_bad.all():
        raise DroppedError("all pixels are nan or inf", "pixels")
    filled = np.where(is_bad, np.median(plane[~is_bad]), plane)
    try:
        found = central_source(filled)
        source = Source(found.centre, found.others | is_bad)
        return source, petrosian(filled, source)
    except DroppedError:
        if is_needed:
            raise
        return None, None


def box_of(
    suite: SuiteSettings,
    view: View,
    labels: Mapping[str, float],
    source: Source | None = None,
    size: Petrosian | None = None,
) -> Box:
    """Return what a stamp shows of an image.

    Petrosian crops are about the source, others about the middle of the image.

    Raises:
        DroppedError: It is no square of pixels of the image.
    """
    shape = (view.planes.shape[1], view.planes.shape[2])
    crop, centre = suite.crop, middle(shape)
    if crop.kind == "petrosian" and source is not None and size is not None:
        side, centre = size.r90, source.centre
    elif crop.kind == "column":
        side = _pixels(suite, str(crop.column), labels, view.scale)
    else:
        side = float(min(shape))
    return box_about(centre, crop.factor * side, shape, crop.beyond)


def _pixels(suite: SuiteSettings, alias: str, labels: Mapping[str, float], scale: float) -> float:
    """Return a label that is pixels, an angle, or a length at the label redshift, in pixels."""
    unit, value = suite.unit_of(alias), labels[alias]
    if not math.isfinite(value) or value <= 0:
        raise DroppedError(f"a crop of zero size: {alias} = {value:g}", "crop")
    if "length" not in unit.physical_type:
        return float(value if unit == "pix" else Quantity(value, unit).to_value("arcsec") / scale)
    redshift = labels["redshift"]
    if not 0 < redshift <= 6:
        raise DroppedError(
            f"{alias} as an angle needs 0 < redshift <= 6, but got {redshift:g}", "crop"
        )
    return float(Quantity(value, unit).to_value("Mpc") * arcsec_per_mpc(redshift) / scale)


def _row_of_bands(
    name: str, bands: Sequence[str], values: Sequence[float | None]
) -> dict[str, float]:
    """Return the columns of a number of each band; the first band's stands under the plain name."""
    known = {f"{name}_{band.upper()}": float(value)
             for band, value in zip(bands, values, strict=False) if value is not None}  # fmt: skip
    return {name: next(iter(known.values())), **known} if known else {}


def _row_of_sizes(
    size: Petrosian | None, scale: float, zero_point: float | None
) -> dict[str, float]:
    radii = (size.radius, size.r50, size.r90) if size else (math.nan,) * 3
    row = {
        name: radius * scale for name, radius in zip(("PETRO_R", "R50", "R90"), radii, strict=True)
    }
    if zero_point is not None:
        is_known = size is not None and size.flux > 0
        row["PETRO_MAG"] = (
            zero_point - 2.5 * math.log10(size.flux) if size and is_known else math.nan
        )
    return row
