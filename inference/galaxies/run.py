"""A prediction on stamps from start to end: plan, resume, collect."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from lightning import LightningModule
from numpy.typing import NDArray
from torch import Tensor

from datagen import files
from datagen.errors import DataFormatError
from datagen.stamps.format import label_names
from encoders.galaxies.reports import evenly
from inference.galaxies.answers import answers_of, number_names
from inference.galaxies.listing import STAMPS
from inference.galaxies.reading import Expected, StampReader, Truth, check_suite
from inference.galaxies.settings import GalaxySettings
from inference.outputs import check_run, check_writable, describe_run, remove
from inference.part_data import Batch, Batches
from inference.part_run import PartRun
from inference.part_writer import PartFolder
from inference.pictures import save_png
from inference.results import Form
from inference.stack_parts import find_groups, list_parts

log = logging.getLogger(__name__)

COMMAND = "python inference/predict.py predict=galaxies"
KNOWN = (
    *("SUITE", "SNAPSHOT", "OBJECT", "PROJECTION", "FILE", "FILE_NUMBER", "ROW"),
    *("IDENTITY", "SPLIT"),
)
# Stamps of these splits say nothing about new ones: they trained or chose the encoder.
NOT_NEW = ("train", "val")


class Teller(LightningModule):
    """What Lightning predicts with.

    Args:
        encoder: The trained module, an encoder or a probe.
        n_outputs: D, for a stamp.
    """

    def __init__(self, encoder: LightningModule, n_outputs: int) -> None:
        super().__init__()
        self.encoder, self.n_outputs = encoder, n_outputs

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Tensor:
        """Return what the encoder says of stamps (B, D)."""
        stamps: Tensor = batch["pixels"]
        if len(stamps) == 0:
            # A part that is no use has a batch without stamps.
            return stamps.new_zeros(0, self.n_outputs)
        outputs: Tensor = self.encoder(stamps)
        return outputs.float()


class GalaxyFolder(PartFolder):
    """Names of everything below the output folder."""

    @property
    def evaluation(self) -> Path:
        """Figures of stamps that have labels."""
        return self.root / "evaluation.json"

    def of_evaluation(self) -> list[Path]:
        """Everything that is made of the table."""
        return [self.evaluation, self.root / "pca.png", self.root / "fields.png"]


class GalaxyRun(PartRun):
    """Everything that a prediction on stamps needs besides a trainer.

    Args:
        settings: `conf/predict/galaxies.yaml`.
        module: An encoder or a probe.
        checkpoint: SHA-256 of the checkpoint that it comes from.

    Raises:
        CheckpointError: The encoder does not fit the stamps.
        ConfigError: A setting does not fit the results that are there.
        DataFormatError: Labels of the suites have different units.
        DataNotFoundError: There are no stamps.
        OutputError: The output folder cannot be written.
    """

    items, done = "stamps", "predicted"
    lost = "the encoder gave no finite number"
    truth_kind = Truth
    settings: GalaxySettings
    paths: GalaxyFolder

    def __init__(self, settings: GalaxySettings, module: LightningModule, checkpoint: str) -> None:
        self.settings, self.answers = settings, answers_of(module)
        card: Any = module.card
        self.expected = Expected.of(card)
        suites = find_groups(Path(settings.cached_data_path), settings.suites, STAMPS)
        tables = {name: check_suite(name, folder, self.expected, settings.scale_tolerance)
                  for name, folder in suites.items()}  # fmt: skip
        self.label_units = units_of(tables, self.answers.known_units)
        self.form = Form(COMMAND, KNOWN, {}, {**self.label_units, **self.answers.units})
        self.paths = GalaxyFolder(Path(settings.output_dir))
        named = {f"predict.{key}": value for key, value in settings.result_settings().items()}
        self.run = describe_run(checkpoint, named, settings.cached_data_path)
        self.units = list_parts(suites, STAMPS)
        check_run(self.paths, self.run, settings.overwrite)
        check_writable(self.paths.root)
        self.module = Teller(module, self.answers.n_outputs)
        self._tell_splits(tables)

    def batches(self) -> Batches:
        """Return how parts become batches."""
        opened = functools.partial(StampReader, expected=self.expected)
        return Batches(opened, self.expected.shape, self.settings.batch_size)

    def rows(self, ids: Sequence[str], outputs: NDArray[np.floating], truth: Any) -> Table:  # noqa: ANN401 - a `Truth`
        """Return the rows of some stamps, from what the encoder gave (n, D)."""
        table = Table({**truth.columns, **self.answers.columns(outputs.astype(np.float32))})
        for name, values in truth.labels.items():
            # FITS knows no case: a label cannot have the name of another column.
            if name.upper() not in table.colnames:
                table[name] = values
        return table

    def no_rows(self) -> Table:
        """Return the table of no stamps."""
        texts = ("SUITE", "FILE", "SPLIT")
        known = {name: np.zeros(0, "U1" if name in texts else np.int64) for name in KNOWN}
        outputs = np.zeros((0, self.answers.n_outputs), np.float32)
        return Table(known | self.answers.columns(outputs))

    def finish(self) -> int:
        """Put the table together, evaluate; return how many stamps or files failed."""
        predictions, failures = self.collect()
        for path in self.paths.of_evaluation():
            # One of other stamps would seem to belong to these.
            remove(path)
        if self.settings.evaluate:
            self._evaluate(predictions[~np.isin(np.asarray(predictions["SPLIT"]), NOT_NEW)])
        return len(failures)

    def _evaluate(self, new: Table) -> None:
        """Write figures and picture of stamps that did not train."""
        if len(new) < 2 or not number_names(new):
            log.info("no evaluation: no stamp has labels and was not of the training")
            return
        suites, found, chosen = np.asarray(new["SUITE"]), {}, []
        for name in np.unique(suites).tolist():
            places = np.flatnonzero(suites == name)
            chosen.append(places[evenly(len(places), self.settings.n_evaluated)])
            some = new[chosen[-1]]
            counts = {"n_stamps": len(some), "n_objects": len(np.unique(some["IDENTITY"]))}
            figures = self.answers.figures(some).items()
            found[name] = counts | {k: v if math.isfinite(v) else None for k, v in figures}
        files.write_json(self.paths.evaluation, {"run_hash": self.run["run_hash"], "suites": found})
        figure = self.answers.draw(new[np.concatenate(chosen)], self.label_units)
        save_png(self.paths.root / f"{self.answers.picture}.png", figure)
        log.info("figures of labels are in %s", self.paths.evaluation)

    def _tell_splits(self, tables: Mapping[str, Table]) -> None:
        """Say where it cannot be known which stamps trained."""
        training = self.expected.training
        names = [name for name in tables if name in training.suites]
        unknown = [name for name in names if not training.knows(tables[name].colnames)]
        if unknown:
            log.warning(
                "it is not known which stamps of %s trained the encoder, since objects were split "
                "by %s: SPLIT is empty, and the evaluation counts all of them",
                ", ".join(unknown),
                training.by or "what its card does not say",
            )


def units_of(tables: Mapping[str, Table], trained: Mapping[str, str]) -> dict[str, str]:
    """Return the units of labels that have one.

    Args:
        tables: Of each suite.
        trained: Units of the fields that are found; empty where there is none.

    Raises:
        DataFormatError: Suites give different units, or another one than that of a found field.
    """
    known = {"the training": dict(trained)}
    for name, table in tables.items():
        known[name] = {key: str(table[key].unit or "") for key in label_names(table.colnames)}
    found: dict[str, str] = {}
    for key in dict.fromkeys(key for units in known.values() for key in units):
        given = {name: units[key] for name, units in known.items() if key in units}
        if len(set(given.values())) > 1:
            words = ", ".join(f"{unit or 'none'} in {name}" for name, unit in given.items())
            raise DataFormatError(
                f"expected the same unit of {key} everywhere, but got {words}; convert it in a "
                "suite's yaml (conf/suite), or choose suites with predict.suites",
                words,
            )
        found[key] = next(iter(given.values()))
    return {key: unit for key, unit in found.items() if unit}
