"""What a user may set: how a survey stores its tiles and how a prediction runs.

All values come from `conf/survey/*.yaml` and `conf/predict/survey.yaml`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from datagen.errors import ConfigError

BLENDS = ("crop", "taper")
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


@dataclass(frozen=True)
class PredictSettings:
    """How a prediction on survey tiles runs.

    Args:
        cached_data_path: Folder of the survey tiles.
        weight_save_path: Checkpoint of the encoder.
        output_dir: Where scores and catalogues go.
        batch_size: Windows in one forward pass.
        num_workers: Loader processes of each rank; 0 reads in the main process.
        prefetch: Batches that a thread of each loader reads ahead; 0 reads them when their turn
            has come.
        devices: Number of devices, or a list of their indices.
        accelerator: Lightning's word for the kind of device.
        strategy: Lightning's word for how several devices work together.
        num_nodes: Number of machines.
        precision: Lightning's word, such as 32-true or bf16-mixed.
        n_threads: CPU threads of each rank; fixed because sums depend on it in the last bits.
        overwrite: Compute finished survey tiles again, and accept other settings than before.
        threshold: Cells with a greater probability form candidates; null takes the tuned one.
        prevalence: Fraction of cells with members in the survey; null keeps the training's.
        window_px: Side of a window [px].
        stride_px: Step from one window to the next [px].
        halo_px: Border of a window whose scores are not used where another window has them [px].
        blend: crop (each cell from the window in which it is farthest from the edge) or taper.
        separation_cells: Peaks in one group of cells that are this far apart are two candidates.
        min_cells: Smallest number of cells of a candidate.
        merge_radius_arcmin: Candidates of different tiles within it, or within 1.5 cells if that
            is more, are the same one.
        regions: Also write a DS9 region file for each survey tile.
    """

    cached_data_path: str
    weight_save_path: str
    output_dir: str
    batch_size: int
    num_workers: int
    prefetch: int
    devices: Any
    accelerator: str
    strategy: str
    num_nodes: int
    precision: str
    n_threads: int
    overwrite: bool
    threshold: float | None
    prevalence: float | None
    window_px: int
    stride_px: int
    halo_px: int
    blend: str
    separation_cells: float
    min_cells: int
    merge_radius_arcmin: float
    regions: bool

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_nodes", "n_threads", "window_px", "stride_px", "min_cells"):
            _at_least(name, getattr(self, name), 1)
        for name in (
            "num_workers",
            "prefetch",
            "halo_px",
            "separation_cells",
            "merge_radius_arcmin",
        ):
            _at_least(name, getattr(self, name), 0)
        for name in ("threshold", "prevalence"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                _refuse(f"predict.{name}", value, "null or a number between 0 and 1")
        if self.blend not in BLENDS:
            _refuse("predict.blend", self.blend, " | ".join(BLENDS))

    def result_settings(self) -> dict[str, Any]:
        """Return the settings on which scores and catalogues depend."""
        names = ("batch_size", "n_threads", "precision", "threshold", "prevalence", "window_px")
        more = ("stride_px", "halo_px", "blend", "separation_cells", "min_cells", "regions")
        return {name: getattr(self, name) for name in names + more}


def survey_values(survey: SurveySettings) -> dict[str, Any]:
    """Return the settings of a survey as plain values."""
    return dataclasses.asdict(survey)


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        _refuse(f"predict.{name}", value, f"a number >= {least}")


def _refuse(name: str, value: object, allowed: str) -> None:
    raise ConfigError(
        f"expected {name} to be {allowed}, but got {name} = {value}", value=value, allowed=allowed
    )
