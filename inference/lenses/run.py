"""A classification of lens images from start to end: plan, resume, collect."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from lightning import LightningModule
from numpy.typing import NDArray
from torch import Tensor

from datagen.errors import CheckpointError
from datagen.lenses.format import is_dataset, read_settings
from datagen.tiles.bands import SCALE_TOLERANCE
from encoders.lenses.export import plain
from encoders.lenses.metrics import GUESSING, is_guessing
from inference.lenses import evaluation, plots, table
from inference.lenses.listing import Listing, Part, list_parts
from inference.lenses.reading import Expected, open_part
from inference.lenses.settings import LensSettings
from inference.lenses.table import FORM, Truth
from inference.lenses.training import training_of
from inference.outputs import check_run, check_writable, describe_run, remove
from inference.part_data import Batch, Batches
from inference.part_run import PartRun
from inference.part_writer import PartFolder
from inference.results import Meta

log = logging.getLogger(__name__)


class Classifier(LightningModule):
    """What Lightning predicts with: calibrated probabilities of an ordinary network.

    Args:
        encoder: The trained module, whose network is replaced by its plain form.
    """

    def __init__(self, encoder: LightningModule) -> None:
        super().__init__()
        network: Any = encoder.network
        encoder.network = plain(network)
        self.encoder = encoder

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Tensor:
        """Return the probabilities of the classes, shape (B, n_classes)."""
        images: Tensor = batch["pixels"]
        if len(images) == 0:
            # A part that is no use has a batch without images.
            return images.new_zeros(0, len(self.encoder.card["classes"]))  # type: ignore[index] # a plain dict
        images = images.contiguous(memory_format=torch.channels_last)
        probabilities: Tensor = self.encoder.probabilities(images)  # type: ignore[operator] # of ours
        return probabilities.float()


class LensFolder(PartFolder):
    """Names of everything below the output folder."""

    def of_evaluation(self) -> list[Path]:
        """Everything that an evaluation writes."""
        pictures = ("roc", "confusion", "reliability", "delta_chi2", "examples")
        names = ("evaluation.ecsv", "evaluation.json", *(f"{name}.png" for name in pictures))
        return [self.root / name for name in names]


class LensRun(PartRun):
    """Everything that a classification needs besides a trainer.

    Args:
        settings: `conf/predict/lenses.yaml`.
        module: The encoder, with `card`, `network`, `probabilities` and `unsure_threshold`.
        checkpoint: SHA-256 of the checkpoint that the encoder comes from.

    Raises:
        CheckpointError: The checkpoint does not fit the images.
        ConfigError: A setting does not fit the results that are there.
        DataNotFoundError: There are no images.
        OutputError: The output folder cannot be written.
    """

    items, done = "images", "classified"
    lost = "the encoder gave no finite probability"
    form = FORM
    truth_kind = Truth
    settings: LensSettings
    paths: LensFolder
    units: list[Part]

    def __init__(self, settings: LensSettings, module: LightningModule, checkpoint: str) -> None:
        self.settings = settings
        self.card: Mapping[str, Any] = module.card  # type: ignore[assignment] # a plain dict
        self.classes = tuple(self.card["classes"])
        self.threshold = _threshold(settings, module)
        folder = Path(settings.cached_data_path)
        self.expected = expected(self.card, folder)
        self.paths = LensFolder(Path(settings.output_dir))
        values = settings.result_settings() | {"unsure_threshold": self.threshold}
        named = {f"predict.{key}": value for key, value in values.items()}
        self.run = describe_run(checkpoint, named, settings.cached_data_path)
        training = training_of(self.card, folder)
        listing = Listing(folder, settings.images_per_part, settings.split, training)
        self.units = list_parts(listing)
        check_run(self.paths, self.run, settings.overwrite)
        check_writable(self.paths.root)
        self.module = Classifier(module)

    def batches(self) -> Batches:
        """Return how parts become batches."""
        opened = functools.partial(open_part, expected=self.expected)
        return Batches(opened, self.expected.shape, self.settings.batch_size)

    def rows(self, ids: Sequence[str], outputs: NDArray[np.floating], truth: Any) -> Table:  # noqa: ANN401 - a `Truth`
        """Return the rows of some images, from their probabilities (n, n_classes)."""
        return table.rows(ids, outputs.astype(np.float32), self.classes, self.threshold, truth)

    def no_rows(self) -> Table:
        """Return the table of no images."""
        return table.no_rows(self.classes)

    def meta(self) -> Meta:
        """Return the keywords of the tables."""
        return {**super().meta(), "THRESH": self.threshold}

    def finish(self) -> int:
        """Put table and failures together, evaluate; return how many images or files failed."""
        predictions, failures = self.collect()
        for path in self.paths.of_evaluation():
            # One of other images would seem to belong to these.
            remove(path)
        if self.settings.evaluate and len(predictions):
            self._evaluate(evaluation.sample_of(predictions, self.classes))
        return len(failures)

    def _evaluate(self, sample: evaluation.Sample) -> None:
        if len(sample) == 0:
            log.info(
                "there is no evaluation: it needs images whose class is known and that had no part "
                "in the training (split test, or another folder)"
            )
            return
        root, settings = self.paths.root, self.settings
        found = evaluation.evaluate(sample, settings.delta_chi2_bins)
        evaluation.write(root, sample, found, self.run["run_hash"])
        examples = plots.Examples(self.units, self.expected, settings.n_examples)
        plots.write_plots(root, sample, found, examples)
        log.info("%s, see %s", evaluation.summary(found), root / "evaluation.json")
        if is_guessing(int(sample.is_right.sum()), len(sample), len(self.classes)):
            log.warning(GUESSING)


def expected(card: Mapping[str, Any], folder: Path) -> Expected:
    """Return what an encoder asks of images; compare it with what a folder says of itself.

    Raises:
        CheckpointError: Bands, side or pixel scale differ.
    """
    wanted = Expected(tuple(card["bands"]), int(card["image_side"]), card["pixel_scale"])
    if not is_dataset(folder):
        return wanted
    settings = read_settings(folder)
    scale, trained = float(settings["pixel_scale"]), wanted.pixel_scale
    is_scaled = trained is not None and abs(scale / trained - 1) > SCALE_TOLERANCE
    for key, differs, before in (
        ("bands", tuple(settings["bands"]) != wanted.bands, list(wanted.bands)),
        ("side", int(settings["side"]) != wanted.side, wanted.side),
        ("pixel_scale", is_scaled, trained),
    ):
        if differs:
            raise CheckpointError(
                f"the checkpoint was trained on images with {key} = {before}, but "
                f"predict.cached_data_path = {folder} has {key} = {settings[key]}; choose the "
                "encoder for these images with predict.weight_save_path, or other images",
                value=settings[key],
                allowed=before,
            )
    return wanted


def _threshold(settings: LensSettings, module: LightningModule) -> float:
    """Return the configured threshold, or that of the checkpoint."""
    if settings.unsure_threshold is not None:
        return settings.unsure_threshold
    return round(float(module.unsure_threshold), 7)  # type: ignore[arg-type] # a buffer
