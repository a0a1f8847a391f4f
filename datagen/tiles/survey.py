"""How a survey names, stores and calibrates its tiles; the values stand in `conf/survey/*.yaml`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from datagen.errors import ConfigError

BUILD_SURVEY = "python datagen/run.py data_gen=survey"
# Units of pixels that are fluxes, and the magnitude of one: AB has 3631 Jy at 0 mag (Oke & Gunn
# 1983, doi:10.1086/160817), and a nanomaggie is 1e-9 of that.
FLUX_UNITS = {"nanomaggies": 22.5, "nJy": 31.4, "uJy": 23.9}
UNITS = ("counts", "counts_per_second", *FLUX_UNITS)
ALL_FLAGS = "all"


@dataclass(frozen=True)
class PlaneSettings:
    """Where a plane that tells bad pixels stands.

    Args:
        kind: `flags` or `weight`.
        hdu: Number or name of its HDU.
        pattern: Path of its file below the data folder, with `{tile}`, `{band}` and wildcards;
            None for the file of the image.
        mask: Bits that make a pixel bad, or `all` (flags only).
    """

    kind: str
    hdu: int | str
    pattern: str | None
    mask: int | str | None


@dataclass(frozen=True)
class SurveySettings:
    """How a survey names, stores and calibrates its tiles.

    Args:
        name: Name of the survey.
        pattern: Path of a band's file below the data folder, with `{tile}`, `{band}` and the
            wildcards `*`, `?` and `[...]`. Without `{tile}` the whole folder is one survey tile.
        hdu: Number or name of the HDU that holds the image.
        bands: Bands in the order in which the encoder was trained.
        zero_points: Zero point [mag] for each band, or the header keyword that holds it; other
            bands may stand there as well.
        calibrate: Scale counts to the zero point of the checkpoint instead of refusing others.
        pixel_scale: [arcsec/px].
        align: Resample bands that disagree to the pixels of the reference band.
        reference_band: The band whose pixels and WCS count.
        blank_value: Pixels of exactly this value [counts, as stored] were not observed; null for
            none.
        units: Of the pixels: counts, counts_per_second, or a flux, whose zero point is known:
            nanomaggies, nJy, uJy.
        exposure_time: Header keyword of the exposure time [s], where one of pixels and zero points
            refers to counts and the other one to counts per second.
        flags_hdu: HDU of the flags; null for none, or with flags_pattern for that of the image.
        flags_pattern: Path of the file of the flags; null for that of the image.
        flags_mask: Bits that make a pixel bad, or `all` for every value but 0.
        weight_hdu: HDU of the weights, of which those <= 0 make a pixel bad; as flags_hdu.
        weight_pattern: Path of the file of the weights; null for that of the image.
    """

    name: str
    pattern: str
    hdu: int | str
    bands: list[str]
    zero_points: dict[str, Any]
    calibrate: bool
    pixel_scale: float
    align: bool
    reference_band: str
    blank_value: float | None
    units: str = UNITS[0]
    exposure_time: str | None = None
    flags_hdu: int | str | None = None
    flags_pattern: str | None = None
    flags_mask: int | str | None = None
    weight_hdu: int | str | None = None
    weight_pattern: str | None = None

    def __post_init__(self) -> None:
        if not self.bands or len(set(self.bands)) != len(self.bands):
            _refuse("survey.bands", self.bands, "a list of different band names")
        if self.reference_band not in self.bands:
            _refuse("survey.reference_band", self.reference_band, ", ".join(self.bands))
        self._check_units()
        if not self.pixel_scale > 0:
            _refuse("survey.pixel_scale", self.pixel_scale, "a number > 0 [arcsec/px]")
        if self.blank_value is not None and not math.isfinite(self.blank_value):
            _refuse("survey.blank_value", self.blank_value, "null or a finite number [counts]")
        if len(self.bands) > 1 and "{band}" not in self.pattern:
            _refuse("survey.pattern", self.pattern, "a pattern with {band}")
        self._check_planes()

    def _check_units(self) -> None:
        if self.units not in UNITS:
            _refuse("survey.units", self.units, ", ".join(UNITS))
        if self.units in FLUX_UNITS:
            if self.zero_points:
                allowed = f"{{}} for {self.units}, in a file of conf/survey of your own"
                _refuse("survey.zero_points", self.zero_points, allowed)
            if self.exposure_time is not None:
                _refuse("survey.exposure_time", self.exposure_time, f"null for {self.units}")
        elif not set(self.bands) <= set(self.zero_points):
            allowed = f"one entry for each of {', '.join(self.bands)}"
            _refuse("survey.zero_points", self.zero_points, allowed)
        _check_zero_points(self.zero_points)

    def _check_planes(self) -> None:
        has_flags = self.flags_hdu is not None or self.flags_pattern is not None
        mask = self.flags_mask
        is_mask = mask == ALL_FLAGS or (type(mask) is int and mask > 0)
        if has_flags and not is_mask:
            _refuse("survey.flags_mask", mask, "bits (an integer > 0), or all")
        if not has_flags and mask is not None:
            _refuse("survey.flags_mask", mask, "null without survey.flags_hdu or flags_pattern")

    @property
    def planes(self) -> list[PlaneSettings]:
        """Return the planes that tell bad pixels."""
        found = []
        for kind, hdu, pattern, mask in (
            ("flags", self.flags_hdu, self.flags_pattern, self.flags_mask),
            ("weight", self.weight_hdu, self.weight_pattern, None),
        ):
            if hdu is not None or pattern is not None:
                where = self.hdu if hdu is None else hdu
                found.append(PlaneSettings(kind, where, pattern, mask))
        return found

    def zero_point(self, band: str) -> float | str:
        """Return the magnitude of one unit of a band's pixels, or the keyword that holds it."""
        if self.units in FLUX_UNITS:
            if self.zero_points:
                allowed = f"{{}} for {self.units}, in a file of conf/survey of your own"
                _refuse("survey.zero_points", self.zero_points, allowed)
            return FLUX_UNITS[self.units]
        value: float | str = self.zero_points[band]
        return value


def _check_zero_points(zero_points: dict[str, Any]) -> None:
    for band, value in zero_points.items():
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            _refuse(f"survey.zero_points.{band}", value, "a number [mag] or a header keyword")


def survey_values(survey: SurveySettings) -> dict[str, Any]:
    """Return the settings of a survey as plain values, without those that are not used.

    So a run keeps its identity when a new version knows more settings.
    """
    unused = {field.name: field.default for field in dataclasses.fields(survey)}
    values = dataclasses.asdict(survey)
    return {name: value for name, value in values.items() if value != unused[name]}


def _refuse(name: str, value: object, allowed: str) -> None:
    raise ConfigError(
        f"expected {name} to be {allowed}, but got {name} = {value}", value=value, allowed=allowed
    )
