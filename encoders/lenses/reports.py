"""Writes what a training and its test have found to the folder of the run, and to TensorBoard."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from numpy.typing import NDArray

from datagen.files import save_torch, write_bytes, write_json
from encoders.callbacks import ReportCallback
from encoders.lenses import pictures
from encoders.lenses.metrics import Answers, BinnedAccuracy, accuracy_by_delta_chi2, roc_curve
from encoders.metrics import confusion

# What is kept of each validation, by file: figures of training and validation.
HISTORY = {
    "loss": ("train/epoch_loss", "val/loss"),
    "accuracy": ("train/accuracy", "val/accuracy"),
}
PREFIX = "network."


class LensReports(ReportCallback):
    """Arrays, plots, weights and figures in a folder of the run, written by the first process.

    - `loss.npy`, `accuracy.npy`: a row per validation (epochs done, training, validation), and
      plots of them; training since the validation before.
    - `best_weights.pt`: state dict of the network of the best checkpoint.
    - `test.json`, `predictions.npz`, `roc.npz`, `confusion.npy`, and plots of ROC curves, confusion
      and, where it is known, accuracy against Delta chi2.

    Args:
        folder: Below the folder of the run.
        every_n_validations: Draw pictures for TensorBoard after each n-th validation.
        n_examples: Images in the picture of examples.
        delta_chi2_edges: Bins of the accuracy against Delta chi2, rising.
    """

    def __init__(
        self,
        folder: str,
        every_n_validations: int,
        n_examples: int,
        delta_chi2_edges: Sequence[float],
    ) -> None:
        self.folder, self.every, self.n_examples = folder, every_n_validations, n_examples
        self.edges = np.asarray(delta_chi2_edges, dtype=np.float64)
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
        names = [name for pair in HISTORY.values() for name in pair]
        found = trainer.callback_metrics
        row = {name: float(found.get(name, float("nan"))) for name in names}
        self.history.append({"epoch": epochs_done(trainer), **row})
        if not trainer.is_global_zero:
            return
        for name, pair in HISTORY.items():
            rows = [[row["epoch"], *(row[key] for key in pair)] for row in self.history]
            _write_array(self._path(trainer, f"{name}.npy"), np.array(rows))
        writer = _writer(trainer)
        if writer is not None and (len(self.history) - 1) % self.every == 0:
            drawn = self._draw(pl_module, pl_module.validated)  # type: ignore[arg-type]
            drawn["examples"] = self._examples(trainer, pl_module)
            for name, figure in drawn.items():
                writer.add_image(
                    f"val/{name}", pictures.pixels(figure), trainer.global_step, dataformats="HWC"
                )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the history, and keep the best weights alone."""
        if not trainer.is_global_zero or not self.history:
            return
        epochs = [row["epoch"] for row in self.history]
        for name, pair in HISTORY.items():
            rows = {key.split("/")[0]: [row[key] for row in self.history] for key in pair}
            self._save(trainer, name, pictures.draw_history(epochs, rows, name))
        best = Path(getattr(trainer.checkpoint_callback, "best_model_path", ""))
        if best.is_file():
            state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
            weights = {key.removeprefix(PREFIX): value for key, value in state.items()
                       if key.startswith(PREFIX)}  # fmt: skip
            save_torch(self._path(trainer, "best_weights.pt"), weights)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what the test has found."""
        if not trainer.is_global_zero:
            return
        module: Any = pl_module
        answers: Answers = module.tested
        p = answers.probabilities(float(module.temperature))
        labels, classes = answers.labels.numpy(), module.card["classes"]
        binned = self._binned(answers)
        figures = module.figures(answers) | {
            "n_images": len(labels),
            "temperature": float(module.temperature),
            "unsure_threshold": float(module.unsure_threshold),
            "classes": classes,
            # What tells whether two tests can be compared.
            "identity": module.card["identity"],
            "splits": module.card["splits"],
            "network": dict(module.hparams["network"]),
            "accuracy_by_delta_chi2": None if binned is None else _plain(binned),
        }
        write_json(self._path(trainer, "test.json"), figures)
        _write_array(self._path(trainer, "confusion.npy"), confusion(p, answers.labels))
        curves = {
            f"{rate}_{name}": row
            for k, name in enumerate(classes)
            for rate, row in zip(
                ("fpr", "tpr"), roc_curve(p[:, k].numpy(), labels == k), strict=True
            )
        }
        _write_arrays(self._path(trainer, "roc.npz"), curves)
        known = {"index": answers.index.numpy(), "labels": labels, "probabilities": p.numpy()}
        known["delta_chi2"] = answers.delta_chi2.numpy()
        _write_arrays(self._path(trainer, "predictions.npz"), known)
        for name, figure in self._draw(module, answers).items():
            self._save(trainer, name, figure)

    def _draw(self, module: Any, answers: Answers) -> dict[str, Figure]:  # noqa: ANN401 - LensModule
        p, classes = answers.probabilities(float(module.temperature)), module.card["classes"]
        drawn = {
            "roc": pictures.draw_roc(p, answers.labels, classes),
            "confusion": pictures.draw_confusion(p, answers.labels, classes),
        }
        binned = self._binned(answers)
        if binned is not None:
            drawn["delta_chi2"] = pictures.draw_detectability({"class found": binned}, len(classes))
        return drawn

    def _binned(self, answers: Answers) -> BinnedAccuracy | None:
        """Return the accuracy of images with substructure, None where no Delta chi2 is known."""
        is_right = (answers.logits.argmax(dim=1) == answers.labels).numpy()
        delta_chi2 = answers.delta_chi2.numpy()
        counts = (answers.labels > 0).numpy() & np.isfinite(delta_chi2)
        if not counts.any():
            return None
        return accuracy_by_delta_chi2(is_right[counts], delta_chi2[counts], self.edges)

    def _examples(self, trainer: Trainer, module: Any) -> Figure:  # noqa: ANN401 - LensModule
        batch = trainer.datamodule.examples("val", self.n_examples)  # type: ignore[attr-defined]
        with torch.no_grad():
            images = batch["images"].to(module.device)
            logits = module(images).double().cpu()
            bright = module.stretched.bright(images)
        known = (batch[key].cpu() for key in ("labels", "index", "delta_chi2"))
        return pictures.draw_examples(bright, Answers(logits, *known), module.card["classes"])

    def _path(self, trainer: Trainer, name: str) -> Path:
        return Path(trainer.default_root_dir) / self.folder / name

    def _save(self, trainer: Trainer, name: str, figure: Figure) -> None:
        write_bytes(self._path(trainer, f"{name}.png"), pictures.png(figure))


def epochs_done(trainer: Trainer) -> float:
    """Return the epochs of a training so far; a validation may come in the middle of one."""
    n_batches = trainer.fit_loop.batch_idx + 1
    return trainer.current_epoch + n_batches / trainer.num_training_batches


def _plain(binned: BinnedAccuracy) -> dict[str, list[float | None]]:
    shares = [None if np.isnan(share) else float(share) for share in binned.accuracy]
    return {
        "edges": binned.edges.tolist(),
        "n_images": binned.n_images.tolist(),
        "accuracy": shares,
    }


def _write_array(path: Path, array: NDArray[Any]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def _write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def _writer(trainer: Trainer) -> Any:  # noqa: ANN401 - SummaryWriter is untyped
    loggers = (x for x in trainer.loggers if isinstance(x, TensorBoardLogger))
    first = next(loggers, None)
    return first.experiment if first is not None else None
