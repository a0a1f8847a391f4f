"""Reads what `data_gen=stamps` wrote: the labels of suites, and pixels of single stamps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.table import Table, vstack
from numpy.typing import NDArray

from datagen.errors import DataFormatError, DataNotFoundError
from datagen.prepared.tables import Suite
from datagen.stacks import Stacks

COMMAND = "python datagen/run.py data_gen=stamps"
# Of the files of stamps.
STAMPS_VERSION = 1
COLUMNS = ("SNAPSHOT", "OBJECT", "PROJECTION", "SCALE")
# ZEROPT is there where pixels are AB fluxes.
CARDS = ("BANDS", "SIDE", "UNIT")

_STACKS = Stacks("stamp", "stamps", "bands", STAMPS_VERSION, COMMAND)


def find_suites(folder: Path, names: Sequence[str] | None) -> list[str]:
    """Return the names of suites below a folder, sorted.

    Args:
        folder: Holds a folder for each suite.
        names: Those that are wanted; None takes all.

    Raises:
        DataNotFoundError: There is none, or a wanted one is missing; the message names those that
            there are.
    """
    there = sorted(path.name for path in Path(folder).glob("*") if _STACKS.exist(path))
    if names is None and not there:
        raise DataNotFoundError(
            f"data_gen.stamps_dir = {folder} holds no folder with stamps; make some with: "
            f"{COMMAND}",
            str(folder),
        )
    for name in names or []:
        if name not in there:
            raise DataNotFoundError(
                f"expected data_gen.suites to name folders of stamps in data_gen.stamps_dir = "
                f"{folder}, which has {', '.join(there) or 'none'}, but got {name}; make it with: "
                f"{COMMAND}",
                name,
                there,
            )
    return sorted(names) if names is not None else there


def truth_files(folder: Path, suite: str, n_files: int) -> list[Path]:
    """Return the label files of a suite, at most so many, the first ones.

    Raises:
        DataNotFoundError: There is no stamp, or the labels of some are missing.
    """
    found = [_STACKS.truth_of(path) for path in _STACKS.files(Path(folder) / suite)[:n_files]]
    for path in found:
        if not path.is_file():
            raise DataNotFoundError(f"labels {path} are missing; make them with: {COMMAND}", path)
    return found


def read_suite(folder: Path, name: str, n_files: int) -> Suite:
    """Read the labels of a suite, with FILE_NUMBER and ROW of each stamp.

    Raises:
        DataNotFoundError: A file is missing.
        DataFormatError: One is damaged, or does not fit the first one.
    """
    paths = truth_files(folder, name, n_files)
    tables = [_STACKS.read_table(path, "STAMPS", COLUMNS) for path in paths]
    first, names = tables[0].meta, tables[0].colnames
    for path, table in zip(paths, tables, strict=True):
        for card in CARDS:
            if card not in table.meta:
                raise _STACKS.error(path, "header", f"a card {card}", sorted(table.meta))
            if table.meta[card] != first[card]:
                raise _STACKS.error(
                    path, card, f"{first[card]}, as in {paths[0]}", table.meta[card]
                )
        if table.colnames != names:
            raise _STACKS.error(path, "columns", f"those of {paths[0]}", table.colnames)
        table["FILE_NUMBER"] = np.full(len(table), _number_of(path))
        table["ROW"] = np.arange(len(table))
    joined = vstack(tables, metadata_conflicts="silent")
    return Suite(name, joined, dict(first), len(paths))


def read_planes(folder: Path, rows: Table) -> NDArray[np.float32]:
    """Read the first band of stamps (n, side, side).

    Args:
        folder: Holds a folder for each suite.
        rows: SUITE, FILE_NUMBER and ROW of each stamp.

    Raises:
        DataFormatError: A file is damaged, or has fewer stamps than its labels say.
    """
    planes = []
    for suite, number, row in rows["SUITE", "FILE_NUMBER", "ROW"]:
        path = _STACKS.path(Path(folder) / str(suite), int(number))
        stack = _STACKS.read(path)
        if row >= len(stack):
            raise _STACKS.error(path, "stamps", f"at least {row + 1}", len(stack))
        planes.append(np.array(stack[row, 0]))
    return np.stack(planes)


def _number_of(path: Path) -> int:
    digits = path.stem.removeprefix("stamps_")
    if not digits.isdecimal():
        raise DataFormatError(
            f"expected names such as stamps_000000.fits, but got {path}", path.name
        )
    return int(digits)
