"""How well single cells were predicted: accuracy, precision, recall, F1, average precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Table
from numpy.typing import ArrayLike, NDArray

from datagen.errors import DataFormatError
from inference.survey.scores import ScoreMap

_NEEDED = ("X", "Y", "MEM")


@dataclass(frozen=True)
class CellLabels:
    """Scores and truth of cells, all of shape (n,).

    Args:
        score: Probability.
        is_member: Whether the cell holds a member.
        is_predicted: Whether the score is over the threshold.
    """

    score: NDArray[np.float64]
    is_member: NDArray[np.bool_]
    is_predicted: NDArray[np.bool_]


def label_tile(scores: ScoreMap, sources: Table, owned: NDArray[np.bool_]) -> CellLabels:
    """Compare a score map with the sources of its survey tile.

    Cells count that the survey tile owns, so that no overlap counts twice. Those do not that hold
    galaxies of systems which the training ignores (LABEL_WEIGHT = 0, whatever their MEM) and no
    labelled member.

    Args:
        scores: The score map.
        sources: Columns X, Y [px, 0-based centres], MEM and, if there, LABEL_WEIGHT.
        owned: Cells that count, shape (ny, nx); see `merge.owned_cells`.
    """
    weight = np.ones(len(sources))
    if "LABEL_WEIGHT" in sources.colnames:
        weight = np.asarray(sources["LABEL_WEIGHT"], np.float64)
    is_labelled = (np.asarray(sources["MEM"]) > 0) & (weight > 0)
    counted = cell_counts(sources["X"], sources["Y"], is_labelled, scores)
    ignored = cell_counts(sources["X"], sources["Y"], weight <= 0, scores)
    use = owned & np.isfinite(scores.score) & ~((ignored > 0) & (counted == 0))
    score = scores.score[use].astype(np.float64)
    return CellLabels(score, counted[use] > 0, score > float(scores.meta["THRESH"]))


def cell_counts(
    x: ArrayLike, y: ArrayLike, use: NDArray[np.bool_], scores: ScoreMap
) -> NDArray[np.int64]:
    """Return how many of the sources at pixels (x, y) fall into each cell, shape (ny, nx)."""
    columns = np.floor((np.asarray(x, np.float64)[use] + 0.5) / scores.cell_px).astype(int)
    rows = np.floor((np.asarray(y, np.float64)[use] + 0.5) / scores.cell_px).astype(int)
    ny, nx = scores.score.shape
    inside = (rows >= 0) & (rows < ny) & (columns >= 0) & (columns < nx)
    counts = np.zeros((ny, nx), np.int64)
    np.add.at(counts, (rows[inside], columns[inside]), 1)
    return counts


def read_sources(path: Path) -> Table:
    """Read the source catalogue of a survey tile.

    Raises:
        DataFormatError: The file cannot be read or lacks a column.
    """
    try:
        table = Table.read(path, format="ascii.commented_header")
    except Exception as error:  # astropy's readers raise many unrelated classes
        reason = " ".join(str(error).split())
        raise DataFormatError(f"{path} cannot be read: {reason}", value=str(path)) from error
    for name in _NEEDED:
        if name not in table.colnames:
            raise DataFormatError(
                f"{path.name} has no column {name}; it has {', '.join(table.colnames)}",
                value=name,
                allowed=tuple(table.colnames),
            )
    return table


def cell_metrics(labels: Sequence[CellLabels]) -> dict[str, float]:
    """Return metrics over all cells of all survey tiles; NaN where a metric has no meaning."""
    score = np.concatenate([label.score for label in labels])
    truth = np.concatenate([label.is_member for label in labels])
    predicted = np.concatenate([label.is_predicted for label in labels])
    hits = float((truth & predicted).sum())
    precision = _ratio(hits, float(predicted.sum()))
    recall = _ratio(hits, float(truth.sum()))
    return {
        "n_cells": float(len(truth)),
        "prevalence": _ratio(float(truth.sum()), float(len(truth))),
        "accuracy": _ratio(float((truth == predicted).sum()), float(len(truth))),
        "precision": precision,
        "recall": recall,
        "f1": _ratio(2 * hits, float(predicted.sum() + truth.sum())),
        "average_precision": average_precision(score, truth),
    }


def average_precision(score: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return sum over thresholds of (R_k - R_{k-1}) P_k; equal scores share one threshold.

    Args:
        score: Shape (n,).
        truth: Shape (n,).
    """
    n_true = int(truth.sum())
    if n_true == 0:
        return float("nan")
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    hits = np.cumsum(truth[order])
    last_of_equals = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    found = hits[last_of_equals]
    precision = found / (last_of_equals + 1)
    return float(np.sum(np.diff(found, prepend=0) * precision) / n_true)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
