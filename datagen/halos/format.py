"""Files of cluster maps: maps (npy) and truth (FITS), their names, writers and readers.

One folder holds one suite. Whoever writes files of this form, simulated or observed, can train on
them. Nothing is pickled and nothing carries a date: the same content gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from datagen.files import Card
from datagen.halos.version import CHANNELS, FORMAT_VERSION
from datagen.stacks import Stacks

__all__ = [
    "CHANNELS",
    "FORMAT_VERSION",
    "HEADER_KEYS",
    "TRUTH_COLUMNS",
    "UNITS",
    "channels_of",
    "check_finite",
    "is_dataset",
    "map_files",
    "maps_path",
    "read_header",
    "read_maps",
    "read_truth",
    "truth_of",
    "truth_path",
    "write_maps",
    "write_truth",
]

COMMAND = "python datagen/run.py data_gen=halos"
# What every truth table holds; writers add columns of their own.
TRUTH_COLUMNS = ("INDEX", "CLUSTER", "PROJECTION", "CROSS_SECTION", "M200", "REDSHIFT")
_WHOLE_NUMBERS = ("INDEX", "CLUSTER", "PROJECTION")
# What every header holds, besides the UNIT_k of each channel and FORMATV.
HEADER_KEYS = ("SUITE", "CHANNELS", "SIDE", "PIXSCALE", "DEPTH", "ENGINE", "SEED")
# Units of known columns, as FITS writes them; others have none unless their writer names one.
UNITS = {
    **dict.fromkeys(("CROSS_SECTION", "SIGMA_EFF"), "cm2 g-1"),
    **dict.fromkeys(("M200", "M_BCG", "M_SUB"), "Msun"),
    **dict.fromkeys(("R200", "R_1", "R_CORE", "R_GAS", "BCG_X", "BCG_Y"), "kpc"),
    **{"RHO_0": "Msun kpc-3", "S_1D": "km s-1", "AGE": "Gyr", "ANGLE": "rad"},
}

_STACKS = Stacks("map", "halos", "channels", FORMAT_VERSION, COMMAND)
maps_path, truth_path, truth_of = _STACKS.path, _STACKS.truth_path, _STACKS.truth_of
# Maps are (n, channels, side, side) float32; the header of the truth has their units.
map_files, write_maps, read_maps = _STACKS.files, _STACKS.write, _STACKS.read
is_dataset, check_finite = _STACKS.exist, _STACKS.check_finite


def write_truth(
    path: Path,
    columns: Mapping[str, Any],
    meta: Mapping[str, Card | tuple[Card, str]],
    units: Mapping[str, str] | None = None,
) -> None:
    """Write the table HALOS.

    Args:
        path: Final name.
        columns: Columns with one row per map: `TRUTH_COLUMNS` and any others. CROSS_SECTION is NaN
            where it is not known or there is no halo.
        meta: Cards of the primary header, or pairs of a card and its comment: `HEADER_KEYS`, and
            UNIT_0 and on for each channel.
        units: Units of columns that `UNITS` does not know, as FITS writes them.

    Raises:
        DataFormatError: A column or card is missing.
    """
    meta = {key.upper(): card for key, card in meta.items()}
    _check_header(path, meta)
    _STACKS.check_columns(path, "HALOS", list(columns), TRUTH_COLUMNS)
    _check_numbers(path, columns)
    _STACKS.write_tables(path, {"HALOS": columns}, {**UNITS, **(units or {})}, meta)


def read_truth(path: Path) -> Table:
    """Read the table HALOS; the primary header is in its meta.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged, of another version, or lacks a column or card.
    """
    table = _STACKS.read_table(path, "HALOS", TRUTH_COLUMNS)
    _check_header(path, table.meta)
    _check_numbers(path, table)
    return table


def read_header(path: Path) -> dict[str, Any]:
    """Read the primary header of a truth file: how its maps were made.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged, of another version, or lacks a card.
    """
    header = _STACKS.read_header(path)
    _check_header(path, header)
    return header


def channels_of(header: Mapping[str, Any]) -> list[str]:
    """Return the names of the channels of a file, in their order."""
    card = header["CHANNELS"]  # with its comment, where it is to be written
    return str(card[0] if isinstance(card, tuple) else card).split(",")


def _check_header(path: Path, header: Mapping[str, Any]) -> None:
    missing = [key for key in HEADER_KEYS if key not in header]
    if not missing:
        units = [f"UNIT_{k}" for k in range(len(channels_of(header)))]
        missing = [key for key in units if key not in header]
    if missing:
        found = ", ".join(header) or "none"
        raise _STACKS.error(path, "header", f"a card {missing[0]}", found)
    names = channels_of(header)
    if len(set(names)) < len(names) or not set(names) <= set(CHANNELS):
        allowed = f"distinct names out of {', '.join(CHANNELS)}"
        raise _STACKS.error(path, "CHANNELS", allowed, ",".join(names))


def _check_numbers(path: Path, columns: Mapping[str, Any]) -> None:
    for name in _WHOLE_NUMBERS:
        kind = np.asarray(columns[name]).dtype
        if kind.kind not in "iu":
            raise _STACKS.error(path, name, "whole numbers", kind)
