"""The table of classified images: its rows and its form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from inference import results
from inference.results import Form, PartResult, probability_columns, strings

# Columns beside the probabilities.
KNOWN = ("ID", "CLASS", "UNSURE", "TRUE_CLASS", "DELTA_CHI2", "INDEX", "SPLIT")
FORM = Form(
    "python inference/predict.py predict=lenses",
    KNOWN,
    {"THRESH": "less probable images are unsure"},
)


@dataclass(frozen=True)
class Truth:
    """What is known of images, one entry each.

    Args:
        classes: Name of the class, empty where unknown.
        delta_chi2: How far the substructure changes the image, NaN where unknown.
        index: Number of a simulated image, -1 where unknown.
        splits: What an image was in the training, empty where unknown.
    """

    classes: NDArray[np.str_]
    delta_chi2: NDArray[np.float32]
    index: NDArray[np.int64]
    splits: NDArray[np.str_]

    @classmethod
    def unknown(cls, n_images: int) -> Truth:
        """Return the truth of images of which nothing is known."""
        empty, index = np.full(n_images, ""), np.full(n_images, -1)
        return cls(empty, np.full(n_images, np.nan, np.float32), index, empty)

    def take(self, rows: NDArray[np.int64]) -> Truth:
        """Return what is known of some rows."""
        return Truth(*(values[rows] for values in vars(self).values()))


def rows(
    ids: Sequence[str],
    probabilities: NDArray[np.float32],
    classes: Sequence[str],
    threshold: float,
    truth: Truth,
) -> Table:
    """Return the rows of classified images.

    Args:
        ids: Names of the images, n of them.
        probabilities: Shape (n, n_classes).
        classes: Names of the classes.
        threshold: Images whose greatest probability is below it are unsure.
        truth: What is known of the images.

    Returns:
        Columns ID, P_<CLASS> for each class, CLASS (the most probable), UNSURE, TRUE_CLASS,
        DELTA_CHI2, INDEX and SPLIT.
    """
    table = Table()
    table["ID"] = strings(ids)
    for name, column in zip(probability_columns(classes), probabilities.T, strict=True):
        table[name] = column.astype(np.float32)
    table["CLASS"] = strings(np.asarray(classes)[probabilities.argmax(axis=1)])
    table["UNSURE"] = probabilities.max(axis=1, initial=0.0) < np.float32(threshold)
    table["TRUE_CLASS"] = strings(truth.classes)
    table["DELTA_CHI2"] = truth.delta_chi2.astype(np.float32)
    table["INDEX"] = truth.index.astype(np.int64)
    table["SPLIT"] = strings(truth.splits)
    return table


def no_rows(classes: Sequence[str]) -> Table:
    """Return the table of no images."""
    return rows([], np.empty((0, len(classes)), np.float32), classes, 0.0, Truth.unknown(0))


def read_result(path: Path) -> PartResult:
    """Read a part, or the table of all images; see `inference.results.read_result`."""
    return results.read_result(path, FORM)
