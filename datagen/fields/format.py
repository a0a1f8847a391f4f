"""Files of the field simulator: names, source catalogs, cluster tables, images, file data.

Everything is written through `datagen.files`, so that what stands under its final name is whole,
and without dates, so that the same content gives the same bytes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray

from datagen.errors import DataFormatError, DataNotFoundError
from datagen.fields.schema import (
    CATALOG_COLUMNS,
    CELL_KEYS,
    CLUSTER_COLUMNS,
    check_catalog,
    check_clusters,
    check_file_data,
)
from datagen.fields.version import FORMAT_VERSION
from datagen.files import Card, atomic_path, save_torch, write_bytes

__all__ = [
    "CATALOG_COLUMNS",
    "CELL_KEYS",
    "CLUSTER_COLUMNS",
    "FORMAT_VERSION",
    "RiceCompression",
    "catalog_path",
    "check_file_data",
    "clusters_path",
    "file_data_path",
    "image_path",
    "read_catalog",
    "read_clusters",
    "read_file_data",
    "read_header",
    "read_image",
    "write_catalog",
    "write_clusters",
    "write_file_data",
    "write_image",
]

# Positions need 1e-4 px; seven digits are far below the noise of every other quantity.
_FORMATS = {"RA": "%.9f", "DEC": "%.9f", "X": "%.5f", "Y": "%.5f"}
_INTEGERS = ("MEM", "SOURCE_TYPE", "CLUSTER_ID", "IS_RED")


def catalog_path(folder: Path, index: int) -> Path:
    """Return the name of a field's source catalog."""
    return Path(folder) / "catalogs" / f"field_{index:06d}.dat"


def clusters_path(folder: Path, index: int) -> Path:
    """Return the name of a field's cluster truth table."""
    return Path(folder) / "catalogs" / f"field_{index:06d}_clusters.ecsv"


def image_path(folder: Path, index: int, band: str) -> Path:
    """Return the name of a field's image in one band."""
    return Path(folder) / "images" / f"field_{index:06d}_{band}.fits"


def file_data_path(folder: Path, number: int, n_fields: int) -> Path:
    """Return the name of a file datum that holds `n_fields` fields."""
    return Path(folder) / "file_data" / f"file_data_{number}_size_{n_fields}.pt"


def write_catalog(path: Path, table: Table, meta: Mapping[str, Card]) -> None:
    """Write a source catalog as text with a `#`-commented header line.

    The names stand in the first line, which is what astropy (`ascii.commented_header`) expects;
    `# key = value` lines with the meta follow.

    Args:
        path: Final name.
        table: Columns `CATALOG_COLUMNS`, one row per source.
        meta: Plain values (seed, index, hash of the settings).
    """
    check_catalog(table, path)
    buffer = io.BytesIO()
    comments = [" ".join(CATALOG_COLUMNS), *(f"{key} = {value}" for key, value in meta.items())]
    columns = np.empty((len(table), len(CATALOG_COLUMNS)), np.float64)
    for number, name in enumerate(CATALOG_COLUMNS):
        columns[:, number] = table[name]
    formats = [
        _FORMATS.get(name, "%d" if name in _INTEGERS else "%.7g") for name in CATALOG_COLUMNS
    ]
    np.savetxt(buffer, columns, fmt=formats, header="\n".join(comments))
    write_bytes(path, buffer.getvalue())


def read_catalog(path: Path) -> Table:
    """Read a source catalog; its meta is in `table.meta` as text.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is empty or damaged, or a needed column or value is missing.
    """
    path = Path(path)
    with _reading(path, "source catalog", "catalog"):
        lines = path.read_text().splitlines()
        comments = [line[1:].strip() for line in lines if line.startswith("#")]
        names = comments[0].split() if comments else []
        rows = len(lines) - len(comments)
        body = "\n".join(lines[len(comments) :])
        values = np.loadtxt(io.StringIO(body), ndmin=2) if rows else np.empty((0, len(names)))
        if values.shape[1] != len(names):
            raise ValueError(f"{len(names)} names but {values.shape[1]} columns")
    table = Table()
    for name, column in zip(names, values.T, strict=True):
        table[name] = column.astype(np.int64) if name in _INTEGERS else column
    pairs = (line.split(" = ", 1) for line in comments[1:] if " = " in line)
    table.meta.update(dict(pairs))
    check_catalog(table, path)
    return table[list(CATALOG_COLUMNS)]


def write_clusters(path: Path, table: Table, meta: Mapping[str, Any]) -> None:
    """Write a cluster truth table (ECSV) with columns `CLUSTER_COLUMNS`, then any others."""
    check_clusters(table, path)
    others = [name for name in table.colnames if name not in CLUSTER_COLUMNS]
    table = table[[*CLUSTER_COLUMNS, *others]]
    table.meta = dict(meta)
    with atomic_path(path) as temporary:
        table.write(temporary, format="ascii.ecsv", overwrite=True)


def read_clusters(path: Path) -> Table:
    """Read a cluster truth table.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged or a column is missing.
    """
    path = Path(path)
    with _reading(path, "cluster table", "catalog"):
        table = Table.read(path, format="ascii.ecsv")
    check_clusters(table, path)
    return table


@dataclass(frozen=True)
class RiceCompression:
    """How a survey tile is compressed: floats are scaled to integers with a fixed dither.

    Args:
        quantize_level: Quantisation steps per standard deviation of the noise.
        tile_shape: Compressed pieces (rows, columns) [px]; `[1, W]` is one row each.
        dither_seed: 1 to 10000; fixed, so that the bytes do not depend on the clock.
    """

    quantize_level: float
    tile_shape: tuple[int, int]
    dither_seed: int


def write_image(
    path: Path,
    image: NDArray[np.float32],
    header: Mapping[str, Card | tuple[Card, str]],
    compression: RiceCompression | None = None,
) -> None:
    """Write one image as FITS: plain in HDU 0, or RICE-compressed in HDU 1.

    Args:
        path: Final name.
        image: Counts, shape (H, W).
        header: Cards; a tuple adds the comment.
        compression: None writes plain FITS.
    """
    cards = fits.Header()
    for key, value in header.items():
        cards[key] = value
    with atomic_path(path) as temporary:
        _hdu_list(image, cards, compression).writeto(temporary, overwrite=True)


def _hdu_list(
    image: NDArray[np.float32], cards: fits.Header, compression: RiceCompression | None
) -> fits.HDUList:
    if compression is None:
        return fits.HDUList([fits.PrimaryHDU(image, cards)])
    compressed = fits.CompImageHDU(
        image,
        cards,
        compression_type="RICE_1",
        tile_shape=compression.tile_shape,
        quantize_level=compression.quantize_level,
        quantize_method=2,  # subtractive dither that keeps exact zeros, as DES uses
        dither_seed=compression.dither_seed,
    )
    return fits.HDUList([fits.PrimaryHDU(), compressed])


def read_image(path: Path) -> tuple[NDArray[np.float32], fits.Header]:
    """Read the first image of a FITS file.

    Returns:
        Counts, shape (H, W), in native byte order, and the header.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is empty, truncated, not FITS, or holds no image.
    """
    with _image_hdu(Path(path)) as hdu:
        return np.asarray(hdu.data, np.float32), hdu.header


def read_header(path: Path) -> fits.Header:
    """Read the header of the first image of a FITS file, without its pixels.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is empty, truncated, not FITS, or holds no image.
    """
    with _image_hdu(Path(path)) as hdu:
        return hdu.header.copy()


@contextmanager
def _image_hdu(path: Path) -> Iterator[Any]:
    """Open the first two-dimensional image of a FITS file."""
    with _reading(path, "FITS image", "image"), fits.open(path, memmap=False) as hdus:
        images = [hdu for hdu in hdus if hdu.is_image and hdu.header.get("NAXIS") == 2]
        if not images:
            raise ValueError("it holds no two-dimensional image")
        yield images[0]


def write_file_data(path: Path, data: list[dict[str, Any]]) -> None:
    """Write a file datum: a list with one mapping of tensors and plain values per field."""
    save_torch(path, data)


def read_file_data(path: Path) -> list[dict[str, Any]]:
    """Read a file datum, memory-mapped and without running any code that it may carry.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is empty, damaged, or holds more than tensors and plain values.
    """
    import torch

    path = Path(path)
    with _reading(path, "file datum", "datum"):
        data = torch.load(path, mmap=True, weights_only=True, map_location="cpu")
        if not isinstance(data, list):
            raise TypeError(f"it holds a {type(data).__name__}, not a list of fields")
    return data


@contextmanager
def _reading(path: Path, what: str, phase: str) -> Iterator[None]:
    """Turn whatever a reader raises on a missing or damaged file into one clear line."""
    command = _command(path, phase)
    if not path.is_file():
        raise DataNotFoundError(f"{what} {path} does not exist; make it with: {command}", str(path))
    if path.stat().st_size == 0:
        raise DataFormatError(f"{what} {path} is empty; make it again with: {command}", str(path))
    try:
        with warnings.catch_warnings():
            # astropy only warns of a truncated file, then reads what is left.
            warnings.filterwarnings("error", message=".*truncated.*")
            yield
    except Exception as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise DataFormatError(
            f"cannot read {what} {path}: {reason[0]}; make it again with: {command}", str(path)
        ) from error


def _command(path: Path, phase: str) -> str:
    """Return the command that makes a file; those of survey tiles are named like their folder."""
    is_survey = path.parent.name.startswith("DES") or path.name.startswith("truth")
    simulator = "survey" if is_survey else "fields"
    return f"python datagen/run.py data_gen={simulator} data_gen.phases=[{phase}]"
