"""Files of cluster maps: maps (npy) and truth (FITS), their names, writers and readers.

One folder holds one suite. Whoever writes files of this form, simulated or observed, can train on
them. Nothing is pickled and nothing carries a date: the same content gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray

from datagen.errors import DataFormatError, DataNotFoundError
from datagen.fields.wcs import Card
from datagen.files import atomic_path
from datagen.halos.version import CHANNELS, FORMAT_VERSION

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


def maps_path(folder: Path, number: int) -> Path:
    """Return the name of a file of maps."""
    return Path(folder) / "maps" / f"halos_{number:06d}.npy"


def truth_path(folder: Path, number: int) -> Path:
    """Return the name of the truth of a file of maps."""
    return Path(folder) / "truth" / f"halos_{number:06d}.fits"


def truth_of(maps: Path) -> Path:
    """Return the name of the truth that belongs to a file of maps."""
    path = Path(maps)
    return path.parent.parent / "truth" / f"{path.stem}.fits"


def is_dataset(folder: Path) -> bool:
    """Tell whether a folder holds maps in this form."""
    return any((Path(folder) / "maps").glob("halos_*.npy"))


def map_files(folder: Path) -> list[Path]:
    """List the files of maps below the folder of a suite, sorted.

    Raises:
        DataNotFoundError: There is none.
    """
    found = sorted((Path(folder) / "maps").glob("halos_*.npy"))
    if not found:
        raise DataNotFoundError(
            f"{folder} holds no maps/halos_*.npy; make some with: {COMMAND} "
            f"data_gen.data_dir={folder}",
            value=str(folder),
        )
    return found


def write_maps(path: Path, maps: NDArray[np.float32]) -> None:
    """Write maps (n, channels, side, side) float32 as a plain npy file; the header has units."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array(stream, np.ascontiguousarray(maps, "<f4"), allow_pickle=False)


def read_maps(path: Path) -> NDArray[np.float32]:
    """Map a file of maps into memory: (n, channels, side, side) float32, read-only.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged, pickled, or holds arrays of another shape or type.
    """
    path = Path(path)
    with _reading(path, "maps"):
        maps = np.load(path, mmap_mode="r", allow_pickle=False)
    if maps.dtype != np.float32:
        raise _format_error(path, "dtype", "float32", maps.dtype)
    if maps.ndim != 4 or maps.shape[-1] != maps.shape[-2] or 0 in maps.shape:
        raise _format_error(path, "shape", "(n, channels, side, side)", maps.shape)
    return maps  # type: ignore[no-any-return]


def check_finite(path: Path, maps: NDArray[np.float32]) -> None:
    """Raise `DataFormatError` where a map holds nan or inf, naming the first one."""
    for number, image in enumerate(maps):
        if not np.isfinite(image).all():
            raise _format_error(path, f"map {number}", "finite pixels", "nan or inf")


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
    header = fits.Header()
    for key, value in {**meta, "FORMATV": FORMAT_VERSION}.items():
        header[key] = value
    table = Table({name: np.asarray(column) for name, column in columns.items()})
    for name, unit in {**UNITS, **(units or {})}.items():
        if name in table.colnames:
            table[name].unit = unit
    _check_header(Path(path), header)
    _check_table(Path(path), table)
    hdu = fits.BinTableHDU(table, name="HALOS")
    with atomic_path(path) as temporary:
        fits.HDUList([fits.PrimaryHDU(header=header), hdu]).writeto(temporary, overwrite=True)


def read_truth(path: Path) -> Table:
    """Read the table HALOS; the primary header is in its meta.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged, of another version, or lacks a column or card.
    """
    path = Path(path)
    with _reading(path, "truth"), fits.open(path, memmap=False) as hdus:
        header, table = hdus[0].header.copy(), Table(hdus["HALOS"].data)
        for column in hdus["HALOS"].columns:
            table[column.name].unit = column.unit
    _check_header(path, header)
    _check_table(path, table)
    table.meta = _plain(header)
    return table


def read_header(path: Path) -> dict[str, Any]:
    """Read the primary header of a truth file: how its maps were made.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged, of another version, or lacks a card.
    """
    path = Path(path)
    with _reading(path, "truth"):
        header = fits.getheader(path)
    _check_header(path, header)
    return _plain(header)


def channels_of(header: Mapping[str, Any]) -> list[str]:
    """Return the names of the channels of a file, in their order."""
    return str(header["CHANNELS"]).split(",")


def _plain(header: fits.Header) -> dict[str, Any]:
    skipped = ("SIMPLE", "BITPIX", "NAXIS", "EXTEND")
    return {key: header[key] for key in header if key not in skipped}


def _check_header(path: Path, header: fits.Header) -> None:
    if header.get("FORMATV") != FORMAT_VERSION:
        raise _format_error(path, "FORMATV", str(FORMAT_VERSION), header.get("FORMATV"))
    missing = [key for key in HEADER_KEYS if key not in header]
    if not missing:
        units = [f"UNIT_{k}" for k in range(len(channels_of(header)))]
        missing = [key for key in units if key not in header]
    if missing:
        raise _format_error(path, "header", f"a card {missing[0]}", ", ".join(header) or "none")
    names = channels_of(header)
    if len(set(names)) < len(names) or not set(names) <= set(CHANNELS):
        allowed = f"distinct names out of {', '.join(CHANNELS)}"
        raise _format_error(path, "CHANNELS", allowed, header["CHANNELS"])


def _check_table(path: Path, table: Table) -> None:
    for name in TRUTH_COLUMNS:
        if name not in table.colnames:
            raise _format_error(path, "table HALOS", f"a column {name}", table.colnames)
    for name in _WHOLE_NUMBERS:
        if table[name].dtype.kind not in "iu":
            raise _format_error(path, name, "whole numbers", table[name].dtype)


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a reader raises on a missing or damaged file into one clear line."""
    if not path.is_file():
        raise DataNotFoundError(f"{what} {path} does not exist; make it with: {COMMAND}", str(path))
    try:
        yield
    except Exception as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        if any(word in reason[0] for word in ("allow_pickle", "pickled", "Python objects")):
            reason = ["it holds pickled objects, which are not read since they may run code"]
        raise DataFormatError(
            f"cannot read {what} {path}: {reason[0]}; make it again with: {COMMAND}", str(path)
        ) from error


def _format_error(path: Path, key: str, expected: str, got: object) -> DataFormatError:
    return DataFormatError(
        f"{path}, {key}: expected {expected}, but got {got}; make it again with: {COMMAND}",
        value=got,
        allowed=expected,
    )
