"""The table of predictions on maps of halos: its rows and its form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from inference import results
from inference.halos.ensemble import Ensemble
from inference.halos.reading import Truth
from inference.results import Form, PartResult, probability_columns, strings

Numbers = NDArray[np.float64]
# Columns beside latents and probabilities.
CROSS_SECTIONS = ("CROSS_SECTION_LOW", "CROSS_SECTION", "CROSS_SECTION_HIGH")
KNOWN = (
    *("ID", "INDEX", "CLUSTER", "HALO", "PROJECTION", "SET", "Z_0", *CROSS_SECTIONS),
    *("CLASS", "OOD", "ABSTAIN", "TRUE_CROSS_SECTION", "SPLIT"),
)
FORM = Form(
    "python inference/predict.py predict=halos",
    KNOWN,
    {"THRESH": "maps with a greater OOD are unlike the training", "N_MEMBER": "encoders"},
    dict.fromkeys((*CROSS_SECTIONS, "TRUE_CROSS_SECTION"), "cm2 g-1"),
)


def rows(ids: Sequence[str], outputs: Numbers, truth: Truth, ensemble: Ensemble) -> Table:
    """Return the rows of maps.

    Args:
        ids: Names of the maps, n of them.
        outputs: What the ensemble gave (n, D), see `Ensemble.predict_step`.
        truth: What is known of the maps.
        ensemble: Knows what the outputs are.
    """
    table, n_latent = Table(), ensemble.n_latent
    n_first = n_latent + len(ensemble.members) - 1
    table["ID"] = strings(ids)
    table["INDEX"], table["CLUSTER"] = truth.index, truth.cluster
    table["HALO"], table["PROJECTION"] = truth.halo, truth.projection
    table["SET"] = strings(truth.sets)
    names = [*(f"Z_{k}" for k in range(n_latent)), *first_columns(len(ensemble.members))[1:]]
    for name, column in zip(names, outputs[:, :n_first].T, strict=True):
        table[name] = column.astype(np.float32)
    found = ensemble.cross_sections(first_latents(table, len(ensemble.members)))
    for name, column in zip(CROSS_SECTIONS, found.T, strict=True):
        table[name] = column
    probabilities = outputs[:, n_first:-1]
    for name, column in zip(probability_columns(ensemble.classes), probabilities.T, strict=True):
        table[name] = column.astype(np.float32)
    classes = np.asarray(ensemble.classes or [""])
    best = probabilities.argmax(axis=1) if ensemble.classes else np.zeros(len(ids), np.int64)
    table["CLASS"] = strings(classes[best])
    table["OOD"] = outputs[:, -1]
    table["ABSTAIN"] = outputs[:, -1] > ensemble.threshold
    table["TRUE_CROSS_SECTION"] = truth.cross_section
    table["SPLIT"] = strings(truth.splits)
    return table


def no_rows(ensemble: Ensemble) -> Table:
    """Return the table of no maps."""
    numbers, names = np.zeros(0, np.int64), np.zeros(0, str)
    truth = Truth(numbers, numbers, numbers, numbers, np.zeros(0), names, names)
    n_columns = ensemble.n_latent + len(ensemble.members) + len(ensemble.classes)
    return rows([], np.zeros((0, n_columns)), truth, ensemble)


def first_columns(n_members: int) -> list[str]:
    """Return the names of the columns with the first latents of an ensemble."""
    return ["Z_0", *(f"Z_0_OF_{k + 1}" for k in range(1, n_members))]


def first_latents(table: Table, n_members: int) -> Numbers:
    """Return the first latents of the members, as the table holds them (n, M)."""
    return np.stack([np.asarray(table[name], np.float64) for name in first_columns(n_members)], 1)


def latents(table: Table) -> Numbers:
    """Return the latents of the first member (n, L)."""
    names = [name for name in table.columns if name.startswith("Z_") and "OF" not in name]
    return np.stack([np.asarray(table[name], np.float64) for name in names], axis=1)


def read_result(path: Path) -> PartResult:
    """Read a part, or the table of all maps; see `inference.results.read_result`."""
    return results.read_result(path, FORM)
