"""Collects probabilities while a prediction runs and saves each part as soon as it is complete."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from datagen import files
from inference.lenses import table
from inference.lenses.dataset import Batch
from inference.lenses.listing import Part
from inference.lenses.table import Meta, PartResult, Truth, to_fits
from inference.outputs import OutputFolder, write_record

log = logging.getLogger(__name__)

LINE_SECONDS = 60.0


class LensFolder(OutputFolder):
    """Names of everything below the output folder."""

    @property
    def predictions(self) -> Path:
        """The table of all images."""
        return self.root / "predictions.fits"

    def of_evaluation(self) -> list[Path]:
        """Everything that an evaluation writes."""
        pictures = ("roc", "confusion", "reliability", "delta_chi2", "examples")
        names = ("evaluation.ecsv", "evaluation.json", *(f"{name}.png" for name in pictures))
        return [self.root / name for name in names]

    def part(self, name: str) -> Path:
        """Rows of one part."""
        return self.root / "parts" / f"{name}.fits"


@dataclass(frozen=True)
class Product:
    """How probabilities become files.

    Args:
        paths: Names of the files.
        parts: What there is to do, by name.
        classes: Names of the classes.
        threshold: Images whose greatest probability is below it are unsure.
        meta: CKPTSHA, RUNHASH, VERSION and THRESH.
    """

    paths: LensFolder
    parts: Mapping[str, Part]
    classes: tuple[str, ...]
    threshold: float
    meta: Meta


@dataclass
class OpenPart:
    """A part whose batches are still arriving.

    Args:
        begin: When the first one arrived [s].
        rows: Of each batch, shape (B,).
        probabilities: Of each batch, shape (B, n_classes).
        problems: Rows that are no use, with reasons.
    """

    begin: float
    rows: list[NDArray[np.int64]] = field(default_factory=list)
    probabilities: list[NDArray[np.float32]] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)


class PartWriter(Callback):
    """Writes the rows of a part when its last batch has arrived.

    Args:
        product: What to write and where.
        n_threads: CPU threads of this rank.
    """

    def __init__(self, product: Product, n_threads: int) -> None:
        self._product = product
        self._n_threads = n_threads
        self._open: dict[str, OpenPart] = {}
        self._n_done = self._n_failed = self._n_parts = 0
        self._started = self._spoke = 0.0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fix the number of threads and begin to count."""
        # Launchers divide the cores among ranks, and sums depend on the number of threads.
        torch.set_num_threads(self._n_threads)
        self._started = self._spoke = time.perf_counter()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the probabilities of a batch; save the part if it is complete."""
        name = batch["part"]
        part = self._open.setdefault(name, OpenPart(time.perf_counter()))
        part.rows.append(batch["rows"])
        part.probabilities.append(outputs.float().cpu().numpy())
        part.problems |= batch["problems"]
        if batch["truth"] or batch["failure"]:
            del self._open[name]
            result = part_result(self._product, name, part, batch)
            self._save(name, part, result, trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the other ranks, so that the first one finds all results."""
        trainer.strategy.barrier("all images classified")

    def _save(self, name: str, part: OpenPart, result: PartResult, trainer: Trainer) -> None:
        """Write record and rows; the rows last: they make the part count."""
        now = time.perf_counter()
        n_done, n_failed, content = len(result.predictions), len(result.failures), to_fits(result)
        record = {
            "bytes": len(content),
            "n_failed": n_failed,
            "part": name,
            "rank": trainer.global_rank,
            "seconds": round(now - part.begin, 6),
            "mtimes_ns": list(self._product.parts[name].mtimes_ns),
        }
        write_record(self._product.paths, name, record)
        files.write_bytes(self._product.paths.part(name), content)
        self._n_parts += 1
        self._n_done += n_done
        self._n_failed += n_failed
        self._log(trainer, now)

    def _log(self, trainer: Trainer, now: float) -> None:
        """Tell loggers of each part, and people now and then."""
        rate = self._n_done / max(now - self._started, 1e-9)
        if trainer.is_global_zero and now - self._spoke > LINE_SECONDS:
            self._spoke = now
            log.info("%d images classified, %.0f images/s on this rank", self._n_done, rate)
        for logger in trainer.loggers:
            counts = {"predict/images_per_s": rate, "predict/failed": float(self._n_failed)}
            try:
                logger.log_metrics(counts, self._n_parts)
            except OSError as error:
                # Scalars are for people to watch; results are what the run is for.
                log.warning("cannot log scalars: %s", error)


def part_result(product: Product, name: str, part: OpenPart, batch: Batch) -> PartResult:
    """Return the rows of a complete part.

    Args:
        product: What is written.
        name: Name of the part.
        part: What has arrived.
        batch: Its last batch: truth of all images, or why none is of use.
    """
    plan = product.parts[name]
    meta = {**product.meta, "PARTHASH": plan.content_hash(str(product.meta["RUNHASH"]))}
    if batch["failure"]:
        failures = [(plan.ids[0], batch["failure"])]
        rows, truth = np.empty(0, np.int64), Truth.unknown(0)
        probabilities = np.empty((0, len(product.classes)), np.float32)
    else:
        rows, truth = np.concatenate(part.rows), Truth(**batch["truth"])
        probabilities = np.concatenate(part.probabilities)
        # What is wrong with the image comes before what the encoder makes of it.
        lost = rows[~np.isfinite(probabilities).all(axis=1)].tolist()
        problems = dict.fromkeys(lost, "the encoder gave no finite probability") | part.problems
        failures = [(plan.image_id(row), problems[row]) for row in sorted(problems)]
        good = np.flatnonzero(~np.isin(rows, list(problems)))
        rows, truth, probabilities = rows[good], truth.take(good), probabilities[good]
    ids = [plan.image_id(row) for row in rows.tolist()]
    predictions = table.rows(ids, probabilities, product.classes, product.threshold, truth)
    return PartResult(predictions, table.failure_rows(failures), meta)
