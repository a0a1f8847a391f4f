"""Small folders of stamps as the stage before writes them, for the tests of this one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from datagen.prepared.tables import Suite
from datagen.stacks import Stacks
from datagen.stamps.format import COMMAND, FORMAT_VERSION

STACKS = Stacks("stamp", "stamps", "bands", FORMAT_VERSION, COMMAND)
HEADER = {"BANDS": "g,r,i", "SIDE": 16, "ZEROPT": 22.5, "UNIT": "nmgy", "CONFHASH": "0"}
UNITS = {"SCALE": "arcsec", "age": "Gyr"}


def columns(n_objects: int, seed: int, n_projections: int = 2) -> dict[str, Any]:
    """Return the labels of random objects, each seen from some directions, sorted."""
    rng = np.random.default_rng(seed)
    objects = np.repeat(np.arange(n_objects), n_projections)
    n = len(objects)
    return {
        "SNAPSHOT": np.full(n, 91),
        "OBJECT": objects,
        "PROJECTION": np.tile(np.arange(n_projections), n_objects),
        "FILE": np.array([f"snap_091-{k}.fits" for k in range(n)]),
        "SCALE": np.full(n, 0.3),
        "SKYSIGMA": rng.uniform(0.9, 1.1, n),
        "z": np.repeat(rng.uniform(0.05, 0.35, n_objects), n_projections),
        "log_mass": np.repeat(rng.normal(10.4, 0.45, n_objects), n_projections),
    }


def make_suite(name: str, labels: Mapping[str, Any], **cards: object) -> Suite:
    """Return a suite in memory."""
    table = Table(dict(labels))
    for key, unit in UNITS.items():
        if key in table.colnames:
            table[key].unit = unit
    table["FILE_NUMBER"] = np.zeros(len(table), int)
    table["ROW"] = np.arange(len(table))
    return Suite(name, table, {**HEADER, **cards}, 1)


def write_suite(
    folder: Path, name: str, labels: Mapping[str, Any], n_files: int = 2, **cards: object
) -> None:
    """Write a suite below a folder, its rows dealt out to files in their order."""
    rng = np.random.default_rng(7)
    n, header = len(labels["OBJECT"]), {**HEADER, **cards, "SUITE": name}
    for number, rows in enumerate(np.array_split(np.arange(n), n_files)):
        part = {key: np.asarray(value)[rows] for key, value in labels.items()}
        path = STACKS.truth_path(folder / name, number)
        truth = {"SUITE": np.full(len(rows), name), **part}
        STACKS.write_tables(path, {"STAMPS": truth}, UNITS, header)
        shape = (len(rows), 3, HEADER["SIDE"], HEADER["SIDE"])
        pixels = rng.normal(0.0, 1.5, shape).astype(np.float32)
        STACKS.write(STACKS.path(folder / name, number), pixels)
