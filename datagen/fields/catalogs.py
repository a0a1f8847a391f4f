"""Reads catalogues that users supply, with a check of every column that is asked for."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from datagen.errors import DataFormatError, DataNotFoundError
from datagen.fields.tables_io import FloatArray

FORMATS = {
    ".fit": "fits",
    ".fits": "fits",
    ".ecsv": "ascii.ecsv",
    ".csv": "ascii.csv",
    ".dat": "ascii.commented_header",
}
# NAME or NAME[index]
_SPEC = re.compile(r"^(?P<name>[^\[\]]+)(\[(?P<index>\d+)\])?$")


def read_table(path: str) -> Table:
    """Read a FITS (first table extension), ECSV, CSV or `#`-headed catalogue.

    Raises:
        DataNotFoundError: the file does not exist.
        DataFormatError: it is not a table of the format that its suffix says, or holds no row.
    """
    if not Path(path).is_file():
        raise DataNotFoundError(
            f"expected a catalogue, but got no file {path}; set data_gen.prior.empirical.*_file",
            value=path,
        )
    suffix = Path(path.removesuffix(".gz")).suffix.lower()
    if suffix not in FORMATS:
        allowed = ", ".join(FORMATS)
        raise DataFormatError(
            f"expected {path} to end in one of {allowed}, but got suffix = {suffix or 'none'}",
            value=suffix,
            allowed=allowed,
        )
    try:
        table = _read_fits(path) if FORMATS[suffix] == "fits" else _read_text(path, FORMATS[suffix])
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataFormatError(
            f"expected {path} to be a readable {FORMATS[suffix]} table, but got: {reason}",
            value=path,
        ) from error
    if len(table) == 0:
        raise DataFormatError(f"expected {path} to hold rows, but got an empty table", value=path)
    return table


def _read_fits(path: str) -> Table:
    with fits.open(path, memmap=False) as hdus:
        for hdu in hdus:
            if isinstance(hdu, fits.BinTableHDU | fits.TableHDU):
                return Table(hdu.data)
    raise ValueError("no table extension")


def _read_text(path: str, name: str) -> Table:
    return Table.read(path, format=name)


def column(table: Table, spec: str, path: str) -> FloatArray:
    """Give one column as floats; ``MAG[3]`` is the element 3 of each row of an array column.

    Args:
        table: catalogue.
        spec: column name, with an index for an array column.
        path: file of the catalogue, for the message.

    Raises:
        DataFormatError: no such column or element, or not numbers.
    """
    match = _SPEC.match(spec)
    name = match["name"] if match else spec
    if match is None or name not in table.colnames:
        found = ", ".join(table.colnames)
        raise DataFormatError(
            f"expected column {name} in {path}, but got the columns {found}",
            value=name,
            allowed=found,
        )
    index = match["index"]
    values = np.asarray(table[name])
    n_elements = values.shape[1] if values.ndim == 2 else 0
    if (index is None) != (n_elements == 0) or (index is not None and int(index) >= n_elements):
        shape = f"{n_elements} elements per row" if n_elements else "one number per row"
        raise DataFormatError(
            f"expected {spec} to be one number per row of {path}, "
            f"but got column {name} with {shape}",
            value=spec,
        )
    if not np.issubdtype(values.dtype, np.number):
        raise DataFormatError(
            f"expected numbers in column {name} of {path}, but got type {values.dtype}", value=spec
        )
    return (values if index is None else values[:, int(index)]).astype(np.float64)


def check_finite(values: FloatArray, name: str, path: str) -> None:
    """Raise `DataFormatError` with the first row that is not a finite number."""
    bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if bad.size:
        raise DataFormatError(
            f"expected finite values of {name} in {path}, but got {values[bad[0]]} in row {bad[0]}",
            value=int(bad[0]),
        )


def check_probability(values: FloatArray, name: str, path: str) -> None:
    """Raise `DataFormatError` with the first row outside 0 to 1."""
    bad = np.flatnonzero((values < 0.0) | (values > 1.0))
    if bad.size:
        raise DataFormatError(
            f"expected probabilities in [0, 1] in column {name} of {path}, "
            f"but got {values[bad[0]]:g} in row {bad[0]}",
            value=float(values[bad[0]]),
            allowed="[0, 1]",
        )
