"""How a survey names, stores and calibrates its tiles; the values stand in `conf/survey/*.yaml`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from datagen.errors import ConfigError

BUILD_SURVEY = "python datagen/run.py data_gen=survey"


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

    def __post_init__(self) -> None:
        if not self.bands or len(set(self.bands)) != len(self.bands):
            _refuse("survey.bands", self.bands, "a list of different band names")
        if self.reference_band not in self.bands:
            _refuse("survey.reference_band", self.reference_band, ", ".join(self.bands))
        if not set(self.bands) <= set(self.zero_points):
            allowed = f"one entry for each of {', '.join(self.bands)}"
            _refuse("survey.zero_points", self.zero_points, allowed)
        _check_zero_points(self.zero_points)
        if not self.pixel_scale > 0:
            _refuse("survey.pixel_scale", self.pixel_scale, "a number > 0 [arcsec/px]")
        if self.blank_value is not None and not math.isfinite(self.blank_value):
            _refuse("survey.blank_value", self.blank_value, "null or a finite number [counts]")
        if len(self.bands) > 1 and "{band}" not in self.pattern:
            _refuse("survey.pattern", self.pattern, "a pattern with {band}")


def _check_zero_points(zero_points: dict[str, Any]) -> None:
    for band, value in zero_points.items():
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            _refuse(f"survey.zero_points.{band}", value, "a number [mag] or a header keyword")


def survey_values(survey: SurveySettings) -> dict[str, Any]:
    """Return the settings of a survey as plain values."""
    return dataclasses.asdict(survey)


def _refuse(name: str, value: object, allowed: str) -> None:
    raise ConfigError(
        f"expected {name} to be {allowed}, but got {name} = {value}", value=value, allowed=allowed
    )
