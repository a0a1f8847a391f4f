"""Collects what an encoder says while a prediction runs; saves each part once it is complete."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from datagen import files
from datagen.progress import Minutes
from inference.outputs import OutputFolder, write_record
from inference.part_data import Batch
from inference.results import PartResult, failure_rows, to_fits

if TYPE_CHECKING:
    from inference.part_run import PartRun

log = logging.getLogger(__name__)


class PartFolder(OutputFolder):
    """Names below the output folder of a prediction that is made of parts."""

    @property
    def predictions(self) -> Path:
        """The table of everything."""
        return self.root / "predictions.fits"

    def part(self, name: str) -> Path:
        """Rows of one part."""
        return self.root / "parts" / f"{name}.fits"


@dataclass
class Arriving:
    """A part whose batches are still arriving.

    Args:
        begin: When the first one arrived [s].
        rows: Of each batch, shape (B,).
        outputs: Of each batch, shape (B, D).
        problems: Rows that are no use, with reasons.
    """

    begin: float
    rows: list[NDArray[np.int64]] = field(default_factory=list)
    outputs: list[NDArray[np.floating]] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)


class PartWriter(Callback):
    """Writes the rows of a part when its last batch has arrived.

    Args:
        run: The prediction: what to write and where.
    """

    def __init__(self, run: PartRun) -> None:
        self._run = run
        self._parts = {part.name: part for part in run.units}
        self._open: dict[str, Arriving] = {}
        self._n_done = self._n_failed = self._n_parts = 0
        self._started, self._minutes = 0.0, Minutes()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fix the number of threads and begin to count."""
        # Launchers divide the cores among ranks, and sums depend on the number of threads.
        torch.set_num_threads(self._run.settings.n_threads)
        self._started, self._minutes = time.perf_counter(), Minutes()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what was said of a batch; save the part if it is complete."""
        name = batch["part"]
        part = self._open.setdefault(name, Arriving(time.perf_counter()))
        part.rows.append(batch["rows"])
        part.outputs.append(outputs.cpu().numpy())
        part.problems |= batch["problems"]
        if batch["truth"] or batch["failure"]:
            del self._open[name]
            self._save(name, part, self._result(name, part, batch), trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the other ranks, so that the first one finds all results."""
        trainer.strategy.barrier("all parts predicted")

    def _result(self, name: str, arrived: Arriving, batch: Batch) -> PartResult:
        """Return the rows of a complete part.

        Args:
            name: Name of the part.
            arrived: What has arrived.
            batch: Its last batch: truth of all items, or why none is of use.
        """
        run, plan = self._run, self._parts[name]
        meta = {**run.meta(), "PARTHASH": plan.content_hash(str(run.run["run_hash"]))}
        if batch["failure"]:
            failures = failure_rows([(plan.ids[0], batch["failure"])])
            return PartResult(run.no_rows(), failures, meta)
        rows, outputs = np.concatenate(arrived.rows), np.concatenate(arrived.outputs)
        # What is wrong with the pixels comes before what the encoder makes of them.
        lost = rows[~np.isfinite(outputs).all(axis=1)].tolist()
        problems = dict.fromkeys(lost, run.lost) | arrived.problems
        failures = failure_rows([(plan.item_id(row), problems[row]) for row in sorted(problems)])
        good = np.flatnonzero(~np.isin(rows, list(problems)))
        ids = [plan.item_id(row) for row in rows[good].tolist()]
        truth = run.truth_kind(**batch["truth"]).take(good)
        return PartResult(run.rows(ids, outputs[good], truth), failures, meta)

    def _save(self, name: str, part: Arriving, result: PartResult, trainer: Trainer) -> None:
        """Write record and rows; the rows last: they make the part count."""
        now, paths = time.perf_counter(), self._run.paths
        n_done, n_failed = len(result.predictions), len(result.failures)
        content = to_fits(result, self._run.form)
        record = {
            "bytes": len(content),
            "n_failed": n_failed,
            "part": name,
            "rank": trainer.global_rank,
            "seconds": round(now - part.begin, 6),
            "mtimes_ns": list(self._parts[name].mtimes_ns),
        }
        write_record(paths, name, record)
        files.write_bytes(paths.part(name), content)
        self._n_parts += 1
        self._n_done += n_done
        self._n_failed += n_failed
        self._log(trainer, now)

    def _log(self, trainer: Trainer, now: float) -> None:
        """Tell loggers of each part, and people now and then."""
        rate, items = self._n_done / max(now - self._started, 1e-9), self._run.items
        if trainer.is_global_zero and self._minutes.is_over():
            done = (self._n_done, items, self._run.done, rate, items)
            log.info("%d %s %s, %.0f %s/s on this rank", *done)
        for logger in trainer.loggers:
            counts = {f"predict/{items}_per_s": rate, "predict/failed": float(self._n_failed)}
            try:
                logger.log_metrics(counts, self._n_parts)
            except OSError as error:
                # Scalars are for people to watch; results are what the run is for.
                log.warning("cannot log scalars: %s", error)
