"""A classification of lens images from start to end: plan, resume, collect."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from astropy.io import fits
from lightning import LightningModule
from torch import Tensor

from datagen import files
from datagen.errors import CheckpointError
from datagen.lenses.format import is_dataset, read_settings
from datagen.tiles.bands import SCALE_TOLERANCE
from encoders.lenses.export import plain
from inference.lenses import evaluation, plots
from inference.lenses.collect import collect
from inference.lenses.dataset import Batch, LensData
from inference.lenses.listing import Listing, Part, list_parts
from inference.lenses.reading import Expected
from inference.lenses.settings import LensSettings
from inference.lenses.training import training_of
from inference.lenses.writer import LensFolder, PartWriter, Product
from inference.outputs import (
    check_run,
    check_writable,
    describe_run,
    package_version,
    read_record,
    remove,
)

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
        images: Tensor = batch["images"]
        if len(images) == 0:
            # A part that is no use has a batch without images.
            return images.new_zeros(0, len(self.encoder.card["classes"]))  # type: ignore[index] # a plain dict
        images = images.contiguous(memory_format=torch.channels_last)
        probabilities: Tensor = self.encoder.probabilities(images)  # type: ignore[operator] # of ours
        return probabilities


class LensRun:
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

    noun = "parts"

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

    def pending(self) -> list[Part]:
        """Return the parts without whole results of this run, sorted by name."""
        if self.settings.overwrite:
            return self.units
        return [part for part in self.units if not self._is_done(part)]

    def prepare_output(self) -> None:
        """Note which run the folder belongs to; remove what a killed run left behind."""
        for left in self.paths.root.rglob(".partial-*"):
            remove(left)
        outdated = {part.name for part in self.pending()}
        if self.settings.overwrite:
            # Also of parts that are no longer in the input folder.
            outdated |= {path.stem for path in self.paths.part("x").parent.glob("*.fits")}
        for name in sorted(outdated):
            remove(self.paths.part(name))
            remove(self.paths.record(name))
        files.write_json(self.paths.run, self.run)

    def data(self) -> LensData:
        """Return what gives each rank the images of its parts."""
        return LensData(self)

    def writer(self) -> PartWriter:
        """Return the callback that saves the results."""
        parts = {part.name: part for part in self.units}
        product = Product(self.paths, parts, self.classes, self.threshold, self._meta())
        return PartWriter(product, self.settings.n_threads)

    def finish(self) -> int:
        """Put table and failures together, evaluate; return how many images or files failed."""
        predictions, failures = collect(
            self.units, self.run, self.paths, self.classes, self._meta()
        )
        for path in self.paths.of_evaluation():
            # One of other images would seem to belong to these.
            remove(path)
        if self.settings.evaluate and len(predictions):
            self._evaluate(evaluation.sample_of(predictions, self.classes))
        return len(failures)

    def _evaluate(self, sample: evaluation.Sample) -> None:
        if len(sample) == 0:
            log.info("no evaluation: no image is of known class and was not of the training")
            return
        root, settings = self.paths.root, self.settings
        found = evaluation.evaluate(sample, settings.delta_chi2_bins)
        evaluation.write(root, sample, found, self.run["run_hash"])
        examples = plots.Examples(self.units, self.expected, settings.n_examples)
        plots.write_plots(root, sample, found, examples)
        log.info("%s, see %s", evaluation.summary(found), root / "evaluation.json")

    def _meta(self) -> dict[str, str | float]:
        return {
            "CKPTSHA": self.run["checkpoint"],
            "RUNHASH": self.run["run_hash"],
            "VERSION": package_version(),
            "THRESH": self.threshold,
        }

    def _is_done(self, part: Part) -> bool:
        """Tell whether the rows of a part are whole, without failures, of this run and input.

        They are whole if they are as long as they were written; `collect` reads them anyway.
        """
        path = self.paths.part(part.name)
        try:
            record = read_record(self.paths, part.name)
            is_whole = record.get("n_failed") == 0 and record.get("bytes") == path.stat().st_size
            part_hash = fits.getval(path, "PARTHASH") if is_whole else None
        except Exception:  # a damaged header makes astropy raise many unrelated classes
            return False
        # Times are no part of the results, whose bytes a copy of the input must reproduce.
        is_same_input = record.get("mtimes_ns") == list(part.mtimes_ns)
        return is_same_input and bool(part_hash == part.content_hash(self.run["run_hash"]))


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
