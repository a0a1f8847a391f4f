"""Tables of predictions: the bytes of their parts, and how they are read and put together."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from numpy.typing import NDArray

from datagen.errors import DataFormatError, DataNotFoundError

FORMAT_VERSION = 1
PREDICTIONS, FAILURES = "PREDICTIONS", "FAILURES"
_COMMENTS = {
    "FMTVERS": "format version",
    "PARTHASH": "checkpoint, settings and input",
    "RUNHASH": "checkpoint and settings",
    "CKPTSHA": "",  # its value leaves no room for a comment
    "VERSION": "version of skyfold",
    "COLUMNS": "probabilities",
}
Meta = Mapping[str, str | int | float]


@dataclass(frozen=True)
class Form:
    """What the tables of a task have in common.

    Args:
        command: That makes them, for messages.
        columns: Columns of every table beside the probabilities.
        comments: Keywords beside those of all tasks, and what they mean.
        units: Of columns, as FITS writes them.
    """

    command: str
    columns: tuple[str, ...]
    comments: Mapping[str, str]
    units: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PartResult:
    """What became of the items of a part, such as images.

    Args:
        predictions: A row for each item that was predicted on.
        failures: Columns id and reason, a row for each item or file that was not.
        meta: Keywords of the file.
    """

    predictions: Table
    failures: Table
    meta: Meta


def probability_columns(classes: Sequence[str]) -> list[str]:
    """Return the names of the columns that hold the probabilities of classes."""
    return [f"P_{name.upper()}" for name in classes]


def failure_rows(failures: Sequence[tuple[str, str]]) -> Table:
    """Return a table of (id, reason)."""
    ids, reasons = zip(*failures, strict=True) if failures else ((), ())
    return Table([strings(ids), strings(reasons)], names=["id", "reason"])


def to_fits(result: PartResult, form: Form) -> bytes:
    """Return predictions and failures as the bytes of a FITS file; equal ones give equal bytes."""
    header, comments = fits.Header(), {**_COMMENTS, **form.comments}
    columns = " ".join(name for name in result.predictions.columns if name.startswith("P_"))
    for key, value in {**result.meta, "FMTVERS": FORMAT_VERSION, "COLUMNS": columns}.items():
        header[key] = (value, comments.get(key, ""))
    hdus = fits.HDUList([fits.PrimaryHDU(header=header)])
    for name, table in ((PREDICTIONS, result.predictions), (FAILURES, result.failures)):
        hdu = fits.BinTableHDU(table.as_array(), name=name)
        for column in hdu.columns:
            column.unit = form.units.get(column.name)
        hdus.append(hdu)
    buffer = io.BytesIO()
    hdus.writeto(buffer)
    return buffer.getvalue()


def read_result(path: Path, form: Form) -> PartResult:
    """Read a part, or the table of everything.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged or no such table.
    """
    try:
        with warnings.catch_warnings():
            # What is cut off is reported by a warning alone.
            warnings.simplefilter("error", AstropyUserWarning)
            return _read(path, form)
    except FileNotFoundError as error:
        raise DataNotFoundError(
            f"{path} does not exist; make it with: {form.command}", value=str(path)
        ) from error
    except Exception as error:  # astropy raises many unrelated classes for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataFormatError(
            f"{path} is damaged or no table of predictions: {reason}; `{form.command}` with the "
            "same settings writes it again",
            value=str(path),
        ) from error


def _read(path: Path, form: Form) -> PartResult:
    with fits.open(path, memmap=False) as hdus:
        header = hdus[0].header
        if header["FMTVERS"] != FORMAT_VERSION:
            raise ValueError(f"FMTVERS = {header['FMTVERS']}, expected {FORMAT_VERSION}")
        meta = {key: header[key] for key in [*_COMMENTS, *form.comments] if key in header}
        predictions, failures = (Table(_native(hdus[n])) for n in (PREDICTIONS, FAILURES))
    for name in [*header["COLUMNS"].split(), *form.columns]:
        if name not in predictions.columns:
            raise ValueError(f"it lacks the column {name}")
    return PartResult(predictions, failures, meta)


def stacked(tables: Sequence[Table]) -> Table:
    """Return tables one below the other; numbers that one of them lacks are NaN, texts empty."""
    names = dict.fromkeys(name for table in tables for name in table.columns)
    return Table({name: np.concatenate(_pieces(tables, name)) for name in names})


def _pieces(tables: Sequence[Table], name: str) -> list[NDArray[np.generic]]:
    """Return a column of each table; one without rows tells nothing of the type."""
    found = [np.asarray(table[name]) if name in table.columns else None for table in tables]
    is_text = any(values is not None and values.dtype.kind == "U" for values in found)
    return [
        np.full(len(table), "" if is_text else np.nan) if values is None else values
        for table, values in zip(tables, found, strict=True)
        if values is not None or len(table)
    ]


def strings(values: Sequence[str] | NDArray[np.str_]) -> NDArray[np.str_]:
    """Return strings as FITS can hold them: ASCII, of at least one character."""
    escaped = [str(v).encode("ascii", "backslashreplace").decode() for v in values]
    return np.array(escaped, dtype=f"U{max([1, *map(len, escaped)])}")


def _native(hdu: fits.BinTableHDU) -> dict[str, NDArray[np.generic]]:
    """Return the columns of a table in the byte order of the machine, strings as str."""
    columns = {}
    for name in hdu.columns.names:
        values = np.asarray(hdu.data[name])
        columns[name] = values.astype(values.dtype.newbyteorder("="))
    return columns
