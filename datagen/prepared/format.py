"""Files of prepared stamps: their names, writers and readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from datagen.files import Card, read_json
from datagen.prepared.tables import IDENTITY, KEYS
from datagen.prepared.version import FORMAT_VERSION
from datagen.stacks import Stacks

__all__ = [
    "COMMAND",
    "FORMAT_VERSION",
    "IDENTITY",
    "NAMES",
    "PREPARED_COLUMNS",
    "prepared_path",
    "read_manifest",
    "read_prepared",
    "read_scaler",
    "scaler_path",
    "write_prepared",
]

COMMAND = "python datagen/run.py data_gen=prepared"
NAMES = ("prepared.fits", "drops.ecsv", "scaler.json", "manifest.json", "report.md")
# What every table holds, before the labels.
PREPARED_COLUMNS = (*KEYS, IDENTITY, "SPLIT", "MATCH")

_FILES = Stacks("stamp", "prepared", "bands", FORMAT_VERSION, COMMAND)


def prepared_path(folder: Path) -> Path:
    """Return the name of the table."""
    return Path(folder) / NAMES[0]


def scaler_path(folder: Path) -> Path:
    """Return the name of the scaler."""
    return Path(folder) / NAMES[2]


def write_prepared(folder: Path, table: Table, meta: Mapping[str, Card | tuple[Card, str]]) -> None:
    """Write the table PREPARED with its units.

    Args:
        folder: Of the prepared files.
        table: `PREPARED_COLUMNS`, then labels.
        meta: Cards of the primary header, or pairs of a card and its comment.

    Raises:
        DataFormatError: A column is missing.
    """
    path = prepared_path(folder)
    _FILES.check_columns(path, "PREPARED", table.colnames, PREPARED_COLUMNS)
    columns = {name: np.asarray(table[name]) for name in table.colnames}
    units = {name: str(table[name].unit or "") for name in table.colnames}
    _FILES.write_tables(path, {"PREPARED": columns}, units, meta)


def read_prepared(folder: Path) -> Table:
    """Read the table PREPARED: a row per stamp, with SPLIT, MATCH and labels.

    Raises:
        DataNotFoundError: There is none.
        DataFormatError: It is damaged, of another version, or lacks a column.
    """
    return _FILES.read_table(prepared_path(folder), "PREPARED", PREPARED_COLUMNS)


def read_scaler(folder: Path) -> dict[str, Any]:
    """Read mean and std of labels, and the stretch of pixels.

    Raises:
        DataNotFoundError: There is none.
        DataFormatError: It is no JSON, of another version, or lacks a part.
    """
    return _read_parts(scaler_path(folder), "scaler", ("labels", "stretch"))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the figures of all steps, and the settings.

    Raises:
        DataNotFoundError: There is none.
        DataFormatError: It is no JSON, of another version, or lacks a part.
    """
    return _read_parts(Path(folder) / NAMES[3], "manifest", ("settings", "splits"))


def _read_parts(path: Path, name: str, parts: Sequence[str]) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION:
        got = content.get("format_version") if isinstance(content, dict) else content
        raise _FILES.error(path, "format_version", str(FORMAT_VERSION), got)
    for part in parts:
        if not isinstance(content.get(part), dict):
            raise _FILES.error(path, name, f"a part {part}", sorted(content))
    return content
