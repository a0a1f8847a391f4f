"""Writes what a training has found to the folder of its run, and to TensorBoard."""

from __future__ import annotations

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from numpy.typing import NDArray

from datagen.files import write_bytes, write_text
from encoders import pictures
from encoders.callbacks import ReportCallback

# Logged more often than validations come.
BY_STEP = "train/loss"


class RunReports(ReportCallback, ABC):
    """Keeps the figures of each validation, and draws for TensorBoard; the first process writes.

    Args:
        folder: Below the folder of the run.
        every_n_validations: Draw pictures for TensorBoard after each n-th validation.
    """

    def __init__(self, folder: str, every_n_validations: int) -> None:
        self.folder, self.every = folder, every_n_validations
        self.history: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """Keep the history, so that a resumed training goes on with it."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the history of a checkpoint."""
        self.history = [dict(row) for row in state_dict["history"]]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the history of a training, and draw now and then."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        # Before the checkpoints are written, which Lightning does last.
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.history.append({"epoch": epochs_done(trainer), **self.kept(found)})
        if not trainer.is_global_zero:
            return
        self.write_history(trainer)
        writer = _writer(trainer)
        if writer is not None and (len(self.history) - 1) % self.every == 0:
            self.show(writer, trainer, pl_module)

    def show(self, writer: Any, trainer: Trainer, module: Any) -> None:  # noqa: ANN401
        """Show the last validation in TensorBoard."""
        for name, figure in self.draw_validation(trainer, module).items():
            writer.add_image(
                f"val/{name}", pictures.pixels(figure), trainer.global_step, dataformats="HWC"
            )

    @abstractmethod
    def kept(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Return what to keep of all logged figures after a validation."""

    @abstractmethod
    def write_history(self, trainer: Trainer) -> None:
        """Write the figures of all validations so far."""

    @abstractmethod
    def draw_validation(self, trainer: Trainer, module: Any) -> dict[str, Figure]:  # noqa: ANN401
        """Return pictures of the last validation by name."""

    def path(self, trainer: Trainer, name: str) -> Path:
        """Return where a file goes."""
        return Path(trainer.default_root_dir) / self.folder / name

    def save(self, trainer: Trainer, name: str, figure: Figure) -> None:
        """Write a picture."""
        write_bytes(self.path(trainer, f"{name}.png"), pictures.png(figure))


class TableReports(RunReports):
    """Keeps all figures of training and validation: `history.ecsv`, a row per validation.

    After the training there is a picture of them, `history.png`.

    Args:
        folder: Below the folder of the run.
        every_n_validations: Draw pictures for TensorBoard after each n-th validation.
        draws: Whether there are pictures, or tables alone.
    """

    def __init__(self, folder: str, every_n_validations: int, draws: bool) -> None:
        super().__init__(folder, every_n_validations)
        self.draws = draws

    def kept(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Return all figures of training and validation."""
        return {name: value for name, value in figures.items()
                if name.split("/")[0] in ("train", "val") and name != BY_STEP}  # fmt: skip

    def write_history(self, trainer: Trainer) -> None:
        """Write one table."""
        columns = {name: self._column(name) for name in self._names()}
        write_table(self.path(trainer, "history.ecsv"), Table(columns))

    def is_drawn(self, name: str) -> bool:
        """Return whether a column of the table is in its picture."""
        return True

    def show(self, writer: Any, trainer: Trainer, module: Any) -> None:  # noqa: ANN401
        """Show the last validation in TensorBoard, if there are pictures."""
        if self.draws:
            super().show(writer, trainer, module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the history."""
        if not trainer.is_global_zero or not self.history or not self.draws:
            return
        values: dict[str, dict[str, list[float]]] = {"loss": {}}
        for name in sorted(filter(self.is_drawn, set(self._names()) - {"epoch"})):
            split, figure = name.replace("epoch_loss", "loss").split("/", 1)
            values.setdefault(figure, {})[split] = self._column(name)
        self.save(trainer, "history", pictures.draw_history(self._column("epoch"), values))

    def _names(self) -> list[str]:
        """Return the names of all columns, also of a training that was resumed with others."""
        return list(dict.fromkeys(name for row in self.history for name in row))

    def _column(self, name: str) -> list[float]:
        return [row.get(name, math.nan) for row in self.history]


def logged(trainer: Trainer, split: str) -> dict[str, float]:
    """Return the figures of a split without its name."""
    found = trainer.callback_metrics
    return {name.removeprefix(f"{split}/"): float(value)
            for name, value in found.items() if name.startswith(f"{split}/")}  # fmt: skip


def epochs_done(trainer: Trainer) -> float:
    """Return the epochs of a training so far; a validation may come in the middle of one."""
    n_batches = trainer.fit_loop.batch_idx + 1
    return trainer.current_epoch + n_batches / trainer.num_training_batches


def write_table(path: Path, table: Table) -> None:
    """Write a table as ECSV."""
    stream = io.StringIO()
    table.write(stream, format="ascii.ecsv")
    write_text(path, stream.getvalue())


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as npy."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name as npz."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def _writer(trainer: Trainer) -> Any:  # noqa: ANN401 - SummaryWriter is untyped
    loggers = (x for x in trainer.loggers if isinstance(x, TensorBoardLogger))
    first = next(loggers, None)
    return first.experiment if first is not None else None
