"""Files of stamps: pixels (npy) and labels (FITS), their names, writers and readers.

One folder holds one suite. Whoever writes files of this form can train on them. Nothing is pickled
and nothing carries a date: the same content gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table, vstack

from datagen.files import Card
from datagen.stacks import Stacks
from datagen.stamps.drops import Drop
from datagen.stamps.version import FORMAT_VERSION, IDENTITY, MEASURED, PLACE, ZERO_POINT

__all__ = [
    "COMMAND",
    "FORMAT_VERSION",
    "HEADER_KEYS",
    "IDENTITY",
    "MEASURED",
    "ZERO_POINT",
    "bands_of",
    "check_finite",
    "check_row",
    "is_dataset",
    "label_names",
    "read_drops",
    "read_header",
    "read_labels",
    "read_stamps",
    "read_table",
    "stamp_files",
    "stamps_path",
    "truth_of",
    "truth_path",
    "write_labels",
    "write_stamps",
]

COMMAND = "python datagen/run.py data_gen=stamps"
# What every header holds, besides FORMATV. ZEROPT [AB mag] stands there where pixels are AB fluxes.
HEADER_KEYS = ("SUITE", "BANDS", "SIDE", "UNIT")
# Units of columns that are no labels, as FITS writes them.
UNITS = {
    "SCALE": "arcsec pixel-1",
    **dict.fromkeys(("FWHM", "PETRO_R", "R50", "R90"), "arcsec"),
    "PETRO_MAG": "mag",
}

_STACKS = Stacks("stamp", "stamps", "bands", FORMAT_VERSION, COMMAND)
stamps_path, truth_path, truth_of = _STACKS.path, _STACKS.truth_path, _STACKS.truth_of
# Stamps are (n, bands, side, side) float32; the header of the truth has their unit.
stamp_files, write_stamps, read_stamps = _STACKS.files, _STACKS.write, _STACKS.read
is_dataset, check_finite = _STACKS.exist, _STACKS.check_finite


def write_labels(
    path: Path,
    columns: Mapping[str, Any],
    units: Mapping[str, str],
    meta: Mapping[str, Card | tuple[Card, str]],
    drops: Sequence[Drop] = (),
) -> None:
    """Write the table STAMPS, and the table DROPS of the images that did not become stamps.

    Args:
        path: Final name.
        columns: A row per stamp: `IDENTITY`, SCALE, the others of `MEASURED` where they are known,
            and labels under names in small letters.
        units: Of labels, as FITS writes them.
        meta: Cards of the primary header, or pairs of a card and its comment: `HEADER_KEYS`.
        drops: What was left out.

    Raises:
        DataFormatError: A column or card is missing.
    """
    _check_header(path, meta)
    _STACKS.check_columns(path, "STAMPS", list(columns), (*IDENTITY, "SCALE"))
    named = {"FILE": [_ascii(str(name)) for name in columns["FILE"]]}
    left_out = {
        "FILE": _texts([drop.file for drop in drops]),
        "KIND": _texts([drop.kind for drop in drops]),
        "REASON": _texts([drop.reason for drop in drops]),
    }
    known = UNITS | {name: "arcsec" for name in columns if name.startswith("FWHM_")}
    tables = {"STAMPS": {**columns, **named}, "DROPS": left_out}
    _STACKS.write_tables(path, tables, {**known, **units}, meta)


def read_table(path: Path) -> Table:
    """Read the table STAMPS of one file; the primary header is in its meta.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged, of another version, or lacks a column or card.
    """
    table = _STACKS.read_table(path, "STAMPS", (*IDENTITY, "SCALE"))
    _check_header(path, table.meta)
    return table


def read_drops(path: Path) -> list[Drop]:
    """Read the images that did not become stamps of one file."""
    table = _STACKS.read_table(path, "DROPS", ("FILE", "KIND", "REASON"))
    return [Drop(*(str(row[key]) for key in ("FILE", "KIND", "REASON"))) for row in table]


def read_header(path: Path) -> dict[str, Any]:
    """Read the primary header of a truth file: what its stamps have in common.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged, of another version, or lacks a card.
    """
    header = _STACKS.read_header(path)
    _check_header(path, header)
    return header


def read_labels(folder: Path, n_files: int | None = None) -> Table:
    """Read the labels of a whole suite, in the order of its stamps.

    Args:
        folder: Of one suite.
        n_files: Read the first ones only; None reads all.

    Returns:
        The table STAMPS of these files, with FILE_NUMBER and ROW, which say where each stamp lies;
        the header of the first file is in its meta.

    Raises:
        DataNotFoundError: There are no stamps, or a truth file is missing.
        DataFormatError: A file is damaged, or differs from the first one in bands, side, unit or
            columns.
    """
    tables: list[Table] = []
    for path in stamp_files(folder)[:n_files]:
        truth = truth_of(path)
        table = read_table(truth)
        first = tables[0] if tables else table
        for key in HEADER_KEYS:
            if table.meta[key] != first.meta[key]:
                raise _STACKS.error(truth, key, repr(first.meta[key]), repr(table.meta[key]))
        names = [name for name in first.colnames if name not in PLACE]
        if table.colnames != names:
            raise _STACKS.error(truth, "columns", ", ".join(names), ", ".join(table.colnames))
        table["FILE_NUMBER"] = np.full(len(table), int(path.stem.rpartition("_")[2]))
        table["ROW"] = np.arange(len(table))
        tables.append(table)
    meta = tables[0].meta
    whole = vstack(tables, metadata_conflicts="silent")
    whole.meta = meta
    return whole


def check_row(path: Path, stack: np.ndarray[Any, Any], row: int) -> None:
    """Raise `DataFormatError` where a file has fewer stamps than its labels say."""
    if row >= len(stack):
        raise _STACKS.error(path, "stamps", f"at least {row + 1}", len(stack))


def label_names(names: Sequence[str]) -> list[str]:
    """Return the columns that are labels."""
    return [name for name in names if name == name.lower()]


def bands_of(header: Mapping[str, Any]) -> list[str]:
    """Return the planes of a stamp, in their order."""
    return str(_card(header["BANDS"])).split(",")


def _card(card: Any) -> Any:  # noqa: ANN401 - a card, with its comment where it is to be written
    return card[0] if isinstance(card, tuple) else card


def _check_header(path: Path, header: Mapping[str, Any]) -> None:
    for key in HEADER_KEYS:
        if key not in header:
            raise _STACKS.error(path, "header", f"a card {key}", ", ".join(header) or "none")


def _texts(values: Sequence[str]) -> list[str] | np.ndarray[Any, np.dtype[np.str_]]:
    # A column without rows needs a width.
    return [_ascii(value) for value in values] or np.empty(0, "U1")


def _ascii(text: str) -> str:
    """Return text as FITS can hold it."""
    return text.encode("ascii", "backslashreplace").decode()
