"""Reads catalogues of clusters and of their members, whose columns are recognised by name.

Known are the truth of simulated survey tiles (ECSV), redMaPPer cluster and member tables (FITS)
and clusterdb tables (CSV, also gzipped); any other table through a column map.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Table
from astropy.units import UnitsWarning
from numpy.typing import NDArray

from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.tiles.survey import BUILD_SURVEY

# What a column is called in the catalogues we know, in order of preference.
KNOWN_NAMES = {
    "id": ("cluster_id", "mem_match_id", "id", "name"),
    "ra": ("ra", "ra_deg", "raj2000"),
    "dec": ("dec", "dec_deg", "dej2000"),
    "redshift": ("z", "redshift", "z_lambda", "z_spec"),
    "richness": ("richness", "lambda", "lambda_chisq"),
    "labelled": ("labelled",),
    "pmem": ("pmem",),
}
FORMATS = {".ecsv": "ascii.ecsv", ".csv": "ascii.csv", ".csv.gz": "ascii.csv", ".fit": "fits"}
FORMATS |= {".fits": "fits", ".fits.gz": "fits"}


@dataclass(frozen=True)
class Words:
    """How messages call the settings that a user can correct.

    Args:
        file: Key of the file, for example `evaluate.reference`.
        columns: Key of the column map.
    """

    file: str
    columns: str


def read_table(path: Path, words: Words) -> Table:
    """Read a catalogue: ECSV, CSV or FITS, gzipped or not.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It cannot be read.
    """
    if not path.is_file():
        raise DataNotFoundError(
            f"{words.file} = {path} does not exist; the truth of simulated survey tiles is "
            f"made by `{BUILD_SURVEY}`",
            value=str(path),
        )
    kind = next((FORMATS[s] for s in sorted(FORMATS) if path.name.lower().endswith(s)), None)
    if kind is None:
        raise DataFormatError(
            f"expected {path.name} to end with {', '.join(sorted(FORMATS))}", value=path.name
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnitsWarning)
            return Table.read(path, format=kind)
    except Exception as error:  # astropy's readers raise many unrelated classes
        reason = " ".join(str(error).split())
        raise DataFormatError(f"{path} cannot be read: {reason}", value=str(path)) from error


def find_columns(
    table: Table,
    wanted: Mapping[str, str | None],
    path: Path,
    words: Words,
    needed: Sequence[str] = ("ra", "dec"),
    known: Mapping[str, tuple[str, ...]] = KNOWN_NAMES,
) -> dict[str, str]:
    """Return our names -> names in the file.

    Args:
        table: The catalogue.
        wanted: Names in the file that the user gave; those of None are recognised.
        path: For messages.
        words: For messages.
        needed: Our names that must be there.
        known: Names in known catalogues, in lower case.

    Raises:
        ConfigError: The map names what is unknown.
        DataFormatError: A column is missing.
    """
    given = {name: column for name, column in wanted.items() if column is not None}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(
            f"expected {words.columns} to map {', '.join(known)}, but got {unknown[0]}",
            value=unknown[0],
            allowed=tuple(known),
        )
    by_lower = {name.lower(): name for name in reversed(table.colnames)}
    found = {}
    for ours, names in known.items():
        candidates = (given[ours].lower(),) if ours in given else names
        match = next((by_lower[name] for name in candidates if name in by_lower), None)
        if match is not None:
            found[ours] = match
        elif ours in given or ours in needed:
            raise DataFormatError(
                f"{path.name} has no column {given.get(ours, ours)}; it has "
                f"{', '.join(table.colnames)}; {words.columns} maps names "
                f"(such as {words.columns}.ra=ALPHA)",
                value=given.get(ours, ours),
                allowed=tuple(table.colnames),
            )
    return found


def floats(table: Table, ours: str, found: Mapping[str, str]) -> NDArray[np.float64]:
    """Return a column as floats, shape (n,); NaN where masked or where there is no column."""
    if ours not in found:
        return np.full(len(table), np.nan)
    values = np.ma.asarray(table[found[ours]]).astype(np.float64)
    return np.asarray(np.ma.filled(values, np.nan), np.float64)


def flags(table: Table, ours: str, found: Mapping[str, str], path: Path) -> NDArray[np.bool_]:
    """Return a column of true and false, shape (n,); all true where there is none.

    Raises:
        DataFormatError: It holds other values.
    """
    if ours not in found:
        return np.ones(len(table), bool)
    values = np.asarray(table[found[ours]])
    if values.dtype.kind not in "biu":
        raise DataFormatError(
            f"expected column {found[ours]} of {path.name} to hold true or false, but got "
            f"{values.dtype}",
            value=str(values.dtype),
        )
    return values.astype(bool)


def names(table: Table, ours: str, found: Mapping[str, str]) -> NDArray[np.str_]:
    """Return a column of identifiers, shape (n,); the numbers of the rows where there is none."""
    if ours not in found:
        return np.arange(len(table)).astype(str)
    return np.char.strip(np.asarray(table[found[ours]]).astype(str))
