"""Files of raw stamps: an image per stamp (FITS, one extension per band) and tables of labels.

Nothing carries a date: the same content gives the same bytes. The headers of images are written
without a FITS library, which would take as long as drawing them does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray

from datagen.errors import DataFormatError, DataNotFoundError
from datagen.files import Card, write_bytes
from datagen.galaxies.version import FORMAT_VERSION
from datagen.stacks import Stacks

__all__ = [
    "CARDS",
    "COLUMNS",
    "FORMAT_VERSION",
    "holds_labels",
    "image_name",
    "images_path",
    "label_files",
    "labels_path",
    "read_images",
    "read_labels",
    "write_images",
    "write_labels",
]

COMMAND = "python datagen/run.py data_gen=galaxies"
TABLE = "LABELS"
# What every table of labels holds.
COLUMNS = ("SNAPSHOT", "OBJECT", "PROJECTION", "FILE")
WHOLE_NUMBERS = (
    "SNAPSHOT",
    "OBJECT",
    "PROJECTION",
    "N_MERGERS",
    "IS_QUENCHED",
    "N_SATELLITES",
    "IS_COOL",
    "N_CLUMPS",
)
# What the header of every band holds, with their meaning.
CARDS = {
    "BUNIT": "unit of the pixels",
    "PIXSCALE": "[arcsec/px]",
    "ZEROPT": "magnitude of 1 (AB)",
    "FWHM": "of the PSF [arcsec]",
    "SKYSIGMA": "noise of the sky per pixel",
}
# Logarithms have none: FITS knows no unit for them.
UNITS = {
    **dict.fromkeys(("R_EFF", "R200C", "R500C", "R_CORE"), "kpc"),
    **dict.fromkeys(("MERGER_TIME", "WINDOW"), "Gyr"),
    **dict.fromkeys(("MAG_G", "MAG_R", "MAG_I", "MAG_Z", "GAP"), "mag"),
    **dict.fromkeys(("G_R", "R_I", "I_Z"), "mag"),
    **{"SFR": "Msun yr-1", "INCLINATION": "deg", "COUNTS": "count"},
}
_BLOCK = 2880

_TABLES = Stacks("label", "labels", "bands", FORMAT_VERSION, COMMAND)


def image_name(snapshot: int, number: int, projection: int) -> str:
    """Return the name of a stamp's file: `snap_084-17_2.fits`."""
    return f"snap_{snapshot:03d}-{number}_{projection}.fits"


def images_path(folder: Path, name: str) -> Path:
    """Return the path of a stamp's file by its name."""
    return Path(folder) / "images" / name


def labels_path(folder: Path, number: int) -> Path:
    """Return the path of a table of labels."""
    return Path(folder) / "labels" / f"labels_{number:06d}.fits"


def holds_labels(folder: Path) -> bool:
    """Tell whether a folder holds raw stamps with labels."""
    return any((Path(folder) / "labels").glob("labels_*.fits"))


def label_files(folder: Path) -> list[Path]:
    """List the tables of labels below a data folder, sorted.

    Raises:
        DataNotFoundError: There is none.
    """
    found = sorted((Path(folder) / "labels").glob("labels_*.fits"))
    if not found:
        raise DataNotFoundError(
            f"{folder} holds no labels/labels_*.fits; make some with: {COMMAND} "
            f"data_gen.data_dir={folder}",
            value=str(folder),
        )
    return found


def write_images(
    path: Path, image: NDArray[np.float32], cards: Mapping[str, Mapping[str, Card]]
) -> None:
    """Write a stamp: an empty primary HDU, then one image extension per band.

    Args:
        path: Final name.
        image: (bands, height, width).
        cards: Cards of each band, by its name: `CARDS`.
    """
    parts = [_header({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, "EXTEND": True})]
    for plane, (band, own) in zip(image, cards.items(), strict=True):
        height, width = plane.shape
        parts += [
            _header(
                {"XTENSION": "IMAGE", "BITPIX": -32, "NAXIS": 2, "NAXIS1": width, "NAXIS2": height}
                | {"PCOUNT": 0, "GCOUNT": 1, "EXTNAME": band}
                | {key: own[key] for key in CARDS}
            ),
            _padded(np.ascontiguousarray(plane, ">f4").tobytes(), b"\0"),
        ]
    write_bytes(path, b"".join(parts))


def read_images(path: Path) -> tuple[NDArray[np.float32], dict[str, dict[str, Card]]]:
    """Read a stamp.

    Returns:
        (bands, height, width); the cards of each band, by its name.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged, or a band lacks a card.
    """
    path = Path(path)
    if not path.is_file():
        raise DataNotFoundError(f"image {path} does not exist; make it with: {COMMAND}", str(path))
    try:
        with fits.open(path, memmap=False) as hdus:
            planes = [np.asarray(hdu.data, np.float32) for hdu in hdus[1:]]
            cards = {hdu.name.lower(): {key: hdu.header[key] for key in CARDS} for hdu in hdus[1:]}
        return np.stack(planes), cards
    except Exception as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise DataFormatError(
            f"cannot read image {path}: {reason}; make it again with: {COMMAND}", str(path)
        ) from error


def write_labels(
    path: Path,
    columns: Mapping[str, Any],
    meta: Mapping[str, Card | tuple[Card, str]],
) -> None:
    """Write a table of labels.

    Args:
        path: Final name.
        columns: Columns with one row per stamp: `COLUMNS` and what else is true of them.
        meta: Cards of the primary header, or pairs of a card and its comment.
    """
    _TABLES.write_tables(path, {TABLE: columns}, UNITS, meta)


def read_labels(path: Path) -> Table:
    """Read a table of labels; the primary header is in its meta.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged, of another version, or lacks a column.
    """
    return _TABLES.read_table(path, TABLE, COLUMNS)


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    """Return rows as columns."""
    return {
        name: np.array([row[name] for row in rows], _kind(name, rows[0][name])) for name in rows[0]
    }


def _kind(name: str, value: object) -> type:
    if isinstance(value, str):
        return np.str_
    return np.int64 if name in WHOLE_NUMBERS else np.float64


def _header(cards: Mapping[str, Card]) -> bytes:
    """Return a FITS header in the fixed format of the standard (version 4.0, section 4.2)."""
    lines = [_card(key, value) for key, value in cards.items()]
    return _padded("".join([*lines, f"{'END':80}"]).encode("ascii"), b" ")


def _card(key: str, value: Card) -> str:
    if isinstance(value, str):
        text = f"{chr(39)}{value:8}{chr(39)}".ljust(20)
    elif isinstance(value, bool):
        text = f"{'T' if value else 'F':>20}"
    else:
        text = f"{value!r:>20}".upper()
    comment = f" / {CARDS[key]}" if key in CARDS else ""
    return f"{key:8}= {text}{comment}".ljust(80)


def _padded(content: bytes, filling: bytes) -> bytes:
    return content + filling * (-len(content) % _BLOCK)
