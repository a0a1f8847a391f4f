"""A prediction on survey tiles from start to end: plan, resume, collect."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule

from datagen import files
from datagen.errors import CheckpointError, ConfigError
from datagen.tiles.bands import SCALE_TOLERANCE, check_zero_point
from datagen.tiles.listing import Tile, list_tiles
from datagen.tiles.survey import SurveySettings, survey_values
from inference.outputs import check_run, check_writable, describe_run, package_version, remove
from inference.survey.blending import correct_prevalence
from inference.survey.candidates import CandidateRule
from inference.survey.collect import collect
from inference.survey.dataset import TileSource
from inference.survey.loading import SurveyData
from inference.survey.records import OutputPaths, is_done, tile_hash
from inference.survey.settings import PredictSettings
from inference.survey.windows import WindowShape
from inference.survey.writer import Correction, Product, TileWriter

log = logging.getLogger(__name__)


class SurveyRun:
    """Everything that a prediction on survey tiles needs besides a trainer.

    Args:
        settings: `conf/predict/survey.yaml`.
        survey: `conf/survey/*.yaml`.
        module: The encoder, with `card`, `network`, `threshold`, `loss` and `predict_step`.
        checkpoint: SHA-256 of the checkpoint that the encoder comes from.

    Raises:
        CheckpointError: The checkpoint does not fit the survey.
        ConfigError: A setting does not fit the encoder or the results that are there.
        DataNotFoundError: There are no survey tiles.
        OutputError: The output folder cannot be written.
    """

    noun = "survey tiles"

    def __init__(
        self,
        settings: PredictSettings,
        survey: SurveySettings,
        module: LightningModule,
        checkpoint: str,
    ) -> None:
        self.module = module
        self.settings = settings
        self.survey = survey
        card: Mapping[str, Any] = module.card  # type: ignore[assignment] # a plain dict
        check_card(card, survey)
        self.windows = window_shape(settings, module)
        self.rule = CandidateRule(
            threshold(settings, module), settings.separation_cells, settings.min_cells
        )
        self.paths = OutputPaths(Path(settings.output_dir))
        self.run = self._describe(checkpoint)
        self.tiles = list_tiles(Path(settings.cached_data_path), survey)
        check_run(self.paths, self.run, settings.overwrite)
        check_writable(self.paths.root)

    def pending(self) -> list[Tile]:
        """Return the survey tiles without results of this run, sorted by name."""
        if self.settings.overwrite:
            return self.tiles
        return [t for t in self.tiles if not is_done(t, self.run["run_hash"], self.paths)]

    def prepare_output(self) -> None:
        """Note which run the folder belongs to; remove what a killed run left behind."""
        for left in self.paths.root.rglob(".partial-*"):
            remove(left)
        outdated = {tile.name for tile in self.pending()}
        if self.settings.overwrite:
            # Also of survey tiles that are no longer in the input folder.
            outdated |= self.paths.tiles()
        for name in sorted(outdated):
            # The score map makes a tile count: it goes first, as it comes last.
            for path in self.paths.of_tile(name):
                remove(path)
        files.write_json(self.paths.run, self.run)

    @property
    def units(self) -> list[Tile]:
        """All survey tiles, sorted by name."""
        return self.tiles

    def data(self) -> SurveyData:
        """Return what gives each rank the windows of its survey tiles."""
        return SurveyData(self)

    def source(self) -> TileSource:
        """Return how survey tiles are read."""
        return TileSource(
            survey=self.survey,
            zero_point=float(self.module.card["zero_point"]),  # type: ignore[index]
            windows=self.windows,
            batch_size=self.settings.batch_size,
            paths=self.paths,
            prefetch=self.settings.prefetch,
        )

    def writer(self) -> TileWriter:
        """Return the callback that saves the results."""
        hashes = {tile.name: tile_hash(tile, self.run["run_hash"]) for tile in self.tiles}
        meta = {
            "CKPTSHA": self.run["checkpoint"],
            "RUNHASH": self.run["run_hash"],
            "VERSION": package_version(),
        }
        product = Product(
            paths=self.paths,
            windows=self.windows,
            blend=self.settings.blend,
            correct=prevalence_correction(self.settings, self.module),
            rule=self.rule,
            meta=meta,
            hashes=hashes,
            mtimes_ns={tile.name: tile.mtimes_ns for tile in self.tiles},
        )
        return TileWriter(product, self.settings.n_threads, self.settings.compile)

    def finish(self) -> int:
        """Merge the catalogues, write manifest and failures; return how many tiles failed."""
        radius, with_regions = self.settings.merge_radius_arcmin, self.settings.regions
        return collect(self.tiles, self.run, self.paths, radius, with_regions)

    def _describe(self, checkpoint: str) -> dict[str, Any]:
        """Return what identifies the run: `run.json`."""
        survey = {f"survey.{key}": value for key, value in survey_values(self.survey).items()}
        predict = self.settings.result_settings() | {"threshold": self.rule.threshold}
        settings = {**survey, **{f"predict.{key}": value for key, value in predict.items()}}
        return describe_run(checkpoint, settings, self.settings.cached_data_path)


def check_card(card: Mapping[str, Any], survey: SurveySettings) -> None:
    """Make sure that a checkpoint was trained on images like those of the survey.

    Raises:
        CheckpointError: Bands, pixel scale or zero point differ.
    """
    if list(card["bands"]) != list(survey.bands):
        raise CheckpointError(
            f"the checkpoint was trained on the bands {', '.join(card['bands'])}, but the survey "
            f"{survey.name} has survey.bands = {', '.join(survey.bands)}",
            value=survey.bands,
            allowed=list(card["bands"]),
        )
    if abs(survey.pixel_scale / card["pixel_scale"] - 1) > SCALE_TOLERANCE:
        raise CheckpointError(
            f"the checkpoint was trained at {card['pixel_scale']} arcsec/px, but the survey "
            f"{survey.name} has survey.pixel_scale = {survey.pixel_scale} (allowed: 2 %)",
            value=survey.pixel_scale,
            allowed=card["pixel_scale"],
        )
    for band in survey.bands:
        value = survey.zero_point(band)
        # With an exposure time, too, a header has a say.
        is_number = not isinstance(value, str) and survey.exposure_time is None
        is_other = is_number and not check_zero_point(float(value), card["zero_point"])
        if is_other and not survey.calibrate:
            raise CheckpointError(
                f"the checkpoint was trained at zero point {card['zero_point']}, but the survey "
                f"{survey.name} has survey.zero_points.{band} = {value}; survey.calibrate=true "
                "scales the counts",
                value=value,
                allowed=card["zero_point"],
            )


def window_shape(settings: PredictSettings, module: LightningModule) -> WindowShape:
    """Return size and step of the windows; warn if the halo cannot hide the windows' edges."""
    network: Any = module.network
    card: Any = module.card
    shape = WindowShape(
        settings.window_px,
        settings.stride_px,
        settings.halo_px,
        int(card["cell_px"]),
        int(network.alignment_px),
    )
    # How far beyond its own border a cell sees.
    reach = (network.receptive_field_px - shape.cell_px) // 2
    if settings.halo_px < reach:
        log.warning(
            "predict.halo_px = %d is less than the %d px that a cell sees beyond its border: "
            "scores near the edges of windows differ a little from those of a whole image",
            settings.halo_px,
            reach,
        )
    return shape


def prevalence_correction(settings: PredictSettings, module: LightningModule) -> Correction | None:
    """Return what moves probabilities to `predict.prevalence`, or None.

    Raises:
        ConfigError: The encoder's loss does not allow it.
    """
    if settings.prevalence is None:
        return None
    loss: Any = getattr(module, "loss", {})
    if loss.get("focal_gamma"):
        raise ConfigError(
            f"expected predict.prevalence to be null for an encoder trained with the focal loss, "
            f"but got predict.prevalence = {settings.prevalence}",
            value=settings.prevalence,
            allowed="null",
        )
    card: Any = module.card
    return functools.partial(
        correct_prevalence,
        trained=float(card["prevalence"]),
        target=settings.prevalence,
    )


def threshold(settings: PredictSettings, module: LightningModule) -> float:
    """Return the threshold: the configured one, or the tuned one at the survey's prevalence."""
    if settings.threshold is not None:
        return settings.threshold
    tuned = np.array([float(module.threshold)], np.float32)  # type: ignore[arg-type] # a buffer
    correct = prevalence_correction(settings, module)
    return round(float((correct(tuned) if correct else tuned)[0]), 7)
