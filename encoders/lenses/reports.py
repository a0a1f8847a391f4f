"""Writes what a training and its test have found to the folder of the run, and to TensorBoard."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from datagen.files import save_torch, write_json
from encoders.lenses import pictures
from encoders.lenses.metrics import (
    GUESSING,
    Answers,
    BinnedAccuracy,
    accuracy_by_delta_chi2,
    is_guessing,
)
from encoders.metrics import confusion, roc_curve
from encoders.pictures import draw_confusion, draw_history
from encoders.reports import RunReports, write_array, write_arrays

log = logging.getLogger(__name__)

# What is kept of each validation, by file: figures of training and validation.
HISTORY = {
    # Neither is calibrated: a temperature would make the validation look better than the training.
    "loss": ("train/epoch_loss", "val/loss_raw"),
    "accuracy": ("train/accuracy", "val/accuracy"),
}
PREFIX = "network."
NAN = float("nan")


class LensReports(RunReports):
    """Arrays, plots, weights and figures in a folder of the run, written by the first process.

    - `loss.npy`, `accuracy.npy`: a row per validation (epochs done, training, validation), and
      plots of them; training since the validation before; the loss is not calibrated.
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
        super().__init__(folder, every_n_validations)
        self.n_examples = n_examples
        self.edges = np.asarray(delta_chi2_edges, dtype=np.float64)

    def kept(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Return loss and accuracy, NaN where a part of a training has none."""
        names = [name for pair in HISTORY.values() for name in pair]
        return {name: figures.get(name, NAN) for name in names}

    def write_history(self, trainer: Trainer) -> None:
        """Write an array of each figure."""
        for name, pair in HISTORY.items():
            rows = [[row["epoch"], *(row.get(key, NAN) for key in pair)] for row in self.history]
            write_array(self.path(trainer, f"{name}.npy"), np.array(rows))

    def draw_validation(self, trainer: Trainer, module: Any) -> dict[str, Figure]:  # noqa: ANN401
        """Return ROC curves, confusion, detectability and examples."""
        drawn = self._draw(module, module.validated)
        return drawn | {"examples": self._examples(trainer, module)}

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the history, and keep the best weights alone."""
        if not trainer.is_global_zero or not self.history:
            return
        epochs = [row["epoch"] for row in self.history]
        for name, pair in HISTORY.items():
            rows = {key.split("/")[0]: [row.get(key, NAN) for row in self.history] for key in pair}
            self.save(trainer, name, draw_history(epochs, {name: rows}))
        best = Path(getattr(trainer.checkpoint_callback, "best_model_path", ""))
        if best.is_file():
            state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
            weights = {key.removeprefix(PREFIX): value for key, value in state.items()
                       if key.startswith(PREFIX)}  # fmt: skip
            save_torch(self.path(trainer, "best_weights.pt"), weights)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what the test has found."""
        if not trainer.is_global_zero:
            return
        module: Any = pl_module
        answers: Answers = module.tested
        p = answers.probabilities(float(module.temperature))
        labels, classes = answers.labels.numpy(), module.card["classes"]
        found = answers.logits.argmax(dim=1)
        is_right = found == answers.labels
        binned = self._binned(answers, classes, is_right)
        if is_guessing(int(is_right.sum()), len(labels), len(classes)):
            log.warning(GUESSING)
        figures = module.figures(answers) | {
            "n_images": len(labels),
            "temperature": float(module.temperature),
            "unsure_threshold": float(module.unsure_threshold),
            "classes": classes,
            # What tells whether two tests can be compared.
            "identity": module.card["identity"],
            "splits": module.card["splits"],
            "network": dict(module.hparams["network"]),
            "accuracy_by_delta_chi2": {name: _plain(curve) for name, curve in binned.items()},
        }
        write_json(self.path(trainer, "test.json"), figures)
        write_array(self.path(trainer, "confusion.npy"), confusion(p, answers.labels))
        curves = {
            f"{rate}_{name}": row
            for k, name in enumerate(classes)
            for rate, row in zip(
                ("fpr", "tpr"), roc_curve(p[:, k].numpy(), labels == k), strict=True
            )
        }
        write_arrays(self.path(trainer, "roc.npz"), curves)
        known = {"index": answers.index.numpy(), "labels": labels, "probabilities": p.numpy()}
        known["delta_chi2"] = answers.delta_chi2.numpy()
        write_arrays(self.path(trainer, "predictions.npz"), known)
        for name, figure in self._draw(module, answers).items():
            self.save(trainer, name, figure)

    def _draw(self, module: Any, answers: Answers) -> dict[str, Figure]:  # noqa: ANN401 - LensModule
        p, classes = answers.probabilities(float(module.temperature)), module.card["classes"]
        drawn = {
            "roc": pictures.draw_roc(p, answers.labels, classes),
            "confusion": draw_confusion(p, answers.labels, classes),
        }
        found, labels = answers.logits.argmax(dim=1), answers.labels
        # Class 0 has no substructure.
        curves = {
            (name, quantity): curve
            for quantity, is_so in (("accuracy", found == labels), ("detected", found > 0))
            for name, curve in self._binned(answers, classes, is_so).items()
        }
        if curves:
            smooth = (found > 0)[labels == 0].double()
            false_alarms = float(smooth.mean()) if len(smooth) else None
            drawn["delta_chi2"] = pictures.draw_detectability(curves, len(classes), false_alarms)
        return drawn

    def _binned(
        self, answers: Answers, classes: Sequence[str], is_so: Tensor
    ) -> dict[str, BinnedAccuracy]:
        """Return how often something is so for each class with substructure of known Delta chi2.

        Classes differ in how large it is: one curve for all would mix that with what it tells.
        """
        is_right = is_so.numpy()
        delta_chi2, labels = answers.delta_chi2.numpy(), answers.labels.numpy()
        found = {}
        for number, name in enumerate(classes):
            mine = (labels == number) & np.isfinite(delta_chi2)
            if number > 0 and mine.any():
                found[name] = accuracy_by_delta_chi2(is_right[mine], delta_chi2[mine], self.edges)
        return found

    def _examples(self, trainer: Trainer, module: Any) -> Figure:  # noqa: ANN401 - LensModule
        batch = trainer.datamodule.examples("val", self.n_examples)  # type: ignore[attr-defined]
        with torch.no_grad():
            images = batch["images"].to(module.device)
            logits = module(images).double().cpu()
            bright = module.stretched.bright(images)
        known = (batch[key].cpu() for key in ("labels", "index", "delta_chi2"))
        return pictures.draw_examples(bright, Answers(logits, *known), module.card["classes"])


def _plain(binned: BinnedAccuracy) -> dict[str, list[float | None]]:
    shares = [None if np.isnan(share) else float(share) for share in binned.accuracy]
    return {
        "edges": binned.edges.tolist(),
        "n_images": binned.n_images.tolist(),
        "accuracy": shares,
    }
