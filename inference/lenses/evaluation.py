"""Compares classified images with what they are, where that is known."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray
from torch import Tensor

from datagen import files
from encoders.calibration import cross_entropy
from encoders.lenses.metrics import auroc_ovo, auroc_ovr
from encoders.metrics import area, calibration_error, confusion
from inference.results import probability_columns
from inference.survey import statistics
from inference.survey.statistics import Fraction

log = logging.getLogger(__name__)

# Images of these splits say nothing about new ones: they trained or chose the encoder.
NOT_NEW = ("train", "val")
NO_SUBSTRUCTURE = "no_sub"


@dataclass(frozen=True)
class Sample:
    """Classified images of known class that the encoder had not seen.

    Args:
        table: Their rows of the table of predictions.
        classes: Names of the classes.
    """

    table: Table
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def probabilities(self) -> Tensor:
        """Shape (n, n_classes), float64."""
        columns = [np.asarray(self.table[name]) for name in probability_columns(self.classes)]
        return torch.from_numpy(np.stack(columns, axis=1).astype(np.float64))

    @property
    def labels(self) -> Tensor:
        """Places of the true classes (n,), int64."""
        names = np.asarray(self.table["TRUE_CLASS"])
        return torch.from_numpy(np.argmax(names[:, None] == np.asarray(self.classes), axis=1))

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """Whether the class was found (n,)."""
        return np.asarray(self.table["CLASS"] == self.table["TRUE_CLASS"])

    @property
    def is_sure(self) -> NDArray[np.bool_]:
        """Whether the greatest probability reaches the threshold (n,)."""
        return ~np.asarray(self.table["UNSURE"])


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Args:
        fractions: Accuracies, with all images and in bins of Delta chi2.
        figures: Other figures by name.
        confusion: Counts, true classes in rows, found classes in columns.
    """

    fractions: list[Fraction]
    figures: dict[str, float]
    confusion: NDArray[np.int64]


def sample_of(predictions: Table, classes: Sequence[str]) -> Sample:
    """Return the images that count: of known class, and not of the training."""
    is_known = np.isin(np.asarray(predictions["TRUE_CLASS"]), classes)
    is_new = ~np.isin(np.asarray(predictions["SPLIT"]), NOT_NEW)
    n_seen = int((is_known & ~is_new).sum())
    if n_seen:
        log.info("%d images of train and val do not count in the evaluation", n_seen)
    return Sample(predictions[is_known & is_new], tuple(classes))


def evaluate(sample: Sample, delta_chi2_edges: Sequence[float]) -> Evaluation:
    """Return how well the images were classified.

    Accuracy against Delta chi2 is that of each class with substructure; `detected` is the share of
    its images that was given any class with substructure.

    Args:
        sample: Images of known class, one at least.
        delta_chi2_edges: Edges of the bins, rising.
    """
    p, labels, is_right = sample.probabilities, sample.labels, sample.is_right
    fractions = [
        statistics.overall("accuracy", is_right),
        statistics.overall("accuracy_kept", is_right[sample.is_sure]),
        statistics.overall("unsure", ~sample.is_sure),
    ]
    for name in sample.classes:
        is_class = np.asarray(sample.table["TRUE_CLASS"]) == name
        fractions.append(statistics.overall(f"accuracy_{name}", is_right[is_class]))
    fractions += _against_delta_chi2(sample, delta_chi2_edges)
    figures = {
        "auroc": auroc_ovr(p, labels),
        "auroc_ovo": auroc_ovo(p, labels),
        **{f"auroc_{name}": area(p[:, k].numpy(), (labels == k).numpy())
           for k, name in enumerate(sample.classes)},
        "ece": calibration_error(p, labels),
        # Probabilities of single precision may be 0.
        "cross_entropy": cross_entropy(p.clamp_min(1e-38).log(), labels),
    }  # fmt: skip
    return Evaluation(fractions, figures, confusion(p, labels))


def write(folder: Path, sample: Sample, found: Evaluation, run_hash: str) -> list[Path]:
    """Write `evaluation.ecsv` and `evaluation.json`; return their names."""
    table, summary = folder / "evaluation.ecsv", folder / "evaluation.json"
    stream = io.StringIO()
    statistics.to_table(found.fractions, "n_right").write(stream, format="ascii.ecsv")
    files.write_text(table, stream.getvalue())
    content: dict[str, Any] = {
        "run_hash": run_hash,
        "n_images": len(sample),
        "classes": list(sample.classes),
        "confusion": found.confusion.tolist(),
        **{name: _json_number(value) for name, value in found.figures.items()},
        **{f.quantity: _fraction_json(f) for f in found.fractions if f.variable == "all"},
    }
    files.write_json(summary, content)
    return [table, summary]


def summary(found: Evaluation) -> str:
    """Return the main figures in one line."""
    accuracy = found.fractions[0]
    low, high = accuracy.interval
    figures: Mapping[str, float] = found.figures
    return (
        f"accuracy {accuracy.value:.4f} ({low:.4f} - {high:.4f}) of {accuracy.n} images, "
        f"ROC AUC {figures['auroc']:.4f} (one against the rest), {figures['auroc_ovo']:.4f} (one "
        f"against one), calibration error {figures['ece']:.4f}"
    )


def _against_delta_chi2(sample: Sample, edges: Sequence[float]) -> list[Fraction]:
    """Return the fractions of each class with substructure, where Delta chi2 is known.

    Classes differ in how large it is: one curve for all would mix that with what it tells.
    """
    delta_chi2 = np.asarray(sample.table["DELTA_CHI2"], np.float64)
    true, found = (np.asarray(sample.table[name]) for name in ("TRUE_CLASS", "CLASS"))
    quantities = {"accuracy": sample.is_right, "detected": found != NO_SUBSTRUCTURE}
    fractions: list[Fraction] = []
    for name in sample.classes:
        mine = (true == name) & np.isfinite(delta_chi2)
        if name == NO_SUBSTRUCTURE or not mine.any():
            continue
        for quantity, is_so in quantities.items():
            fractions += statistics.binned(
                f"{quantity}_{name}", "delta_chi2", delta_chi2[mine], is_so[mine], edges
            )
    return fractions


def _fraction_json(fraction: Fraction) -> dict[str, Any]:
    interval = list(fraction.interval)
    return {"value": _json_number(fraction.value), "n": fraction.n, "wilson": interval}


def _json_number(value: float) -> float | None:
    return value if math.isfinite(value) else None
