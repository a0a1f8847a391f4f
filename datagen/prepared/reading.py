"""Reads what `data_gen=stamps` wrote: the labels of suites, and pixels of single stamps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen.errors import DataNotFoundError
from datagen.prepared.tables import Suite
from datagen.stamps import format as stamps


def find_suites(folder: Path, names: Sequence[str] | None) -> list[str]:
    """Return the names of suites below a folder, sorted.

    Args:
        folder: Holds a folder for each suite.
        names: Those that are wanted; None takes all.

    Raises:
        DataNotFoundError: There is none, or a wanted one is missing; the message names those that
            there are.
    """
    there = sorted(path.name for path in Path(folder).glob("*") if stamps.is_dataset(path))
    if names is None and not there:
        raise DataNotFoundError(
            f"data_gen.stamps_dir = {folder} holds no folder with stamps; make some with: "
            f"{stamps.COMMAND}",
            str(folder),
        )
    for name in names or []:
        if name not in there:
            raise DataNotFoundError(
                f"expected data_gen.suites to name folders of stamps in data_gen.stamps_dir = "
                f"{folder}, which has {', '.join(there) or 'none'}, but got {name}; make it with: "
                f"{stamps.COMMAND}",
                name,
                there,
            )
    return sorted(names) if names is not None else there


def truth_files(folder: Path, suite: str, n_files: int) -> list[Path]:
    """Return the label files of a suite, at most so many, the first ones.

    Raises:
        DataNotFoundError: There is no stamp, or the labels of some are missing.
    """
    paths = stamps.stamp_files(Path(folder) / suite)[:n_files]
    found = [stamps.truth_of(path) for path in paths]
    for path in found:
        if not path.is_file():
            raise DataNotFoundError(
                f"labels {path} are missing; make them with: {stamps.COMMAND}", path
            )
    return found


def read_suite(folder: Path, name: str, n_files: int) -> Suite:
    """Read the labels of a suite, with FILE_NUMBER and ROW of each stamp.

    Raises:
        DataNotFoundError: A file is missing.
        DataFormatError: One is damaged, or does not fit the first one.
    """
    n = len(truth_files(folder, name, n_files))
    table = stamps.read_labels(Path(folder) / name, n)
    return Suite(name, table, dict(table.meta), n)


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
        path = stamps.stamps_path(Path(folder) / str(suite), int(number))
        stack = stamps.read_stamps(path)
        stamps.check_row(path, stack, int(row))
        planes.append(np.array(stack[row, 0]))
    return np.stack(planes)
