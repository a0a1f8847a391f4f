"""Files of the lens simulator: images (npy) and truth (FITS), their names, writers and readers.

Nothing is pickled and nothing carries a date: the same content gives the same bytes.
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
from datagen.files import atomic_path, read_json
from datagen.lenses.version import CLASSES, FORMAT_VERSION

__all__ = [
    "CLASSES",
    "FORMAT_VERSION",
    "check_finite",
    "image_files",
    "images_path",
    "is_dataset",
    "read_images",
    "read_settings",
    "read_substructure",
    "read_truth",
    "truth_of",
    "truth_path",
    "write_images",
    "write_truth",
]

COMMAND = "python datagen/run.py data_gen=lenses"
# What every truth table holds; presets add columns.
LENS_COLUMNS = (
    *("INDEX", "CLASS", "DELTA_CHI2", "SNR", "SKY_SIGMA", "THETA_E", "THETA_MAIN", "Q", "ANGLE"),
    *("X", "Y", "GAMMA_1", "GAMMA_2", "Z_LENS", "Z_SOURCE"),
    *("SRC_X", "SRC_Y", "SRC_Q", "SRC_ANGLE", "SRC_N", "SRC_R_EFF", "SRC_FLUX"),
)
SUBSTRUCTURE_COLUMNS = ("INDEX", "KIND", "X", "Y", "THETA_E", "R_S", "R_T", "LENGTH", "ANGLE")
_LIGHT_UNITS = {"X": "arcsec", "Y": "arcsec", "Q": "", "ANGLE": "rad", "N": "", "R_EFF": "arcsec"}
# Units of all columns, as FITS writes them; "" for numbers without one.
UNITS = {
    **dict.fromkeys(("INDEX", "CLASS", "KIND", "DELTA_CHI2", "N_DRAWS", "SNR"), ""),
    **dict.fromkeys(("Q", "GAMMA_1", "GAMMA_2", "Z_LENS", "Z_SOURCE"), ""),
    **dict.fromkeys(("THETA_E", "THETA_MAIN", "X", "Y", "R_S", "R_T", "LENGTH"), "arcsec"),
    **{"ANGLE": "rad", "SKY_SIGMA": "count"},
    **dict.fromkeys(("MULTIPOLE_3", "MULTIPOLE_4"), ""),
    **dict.fromkeys(("MULTIPOLE_ANGLE_3", "MULTIPOLE_ANGLE_4"), "rad"),
    **{
        f"{light}_{name}": unit
        for light in ("SRC", "LIGHT")
        for name, unit in (_LIGHT_UNITS | {"FLUX": "count"}).items()
    },
}
# KIND in the table SUBSTRUCTURE.
SUBHALO, ROD, LINE_OF_SIGHT = 0, 1, 2


def images_path(folder: Path, number: int) -> Path:
    """Return the name of a file of images."""
    return Path(folder) / "images" / f"lenses_{number:06d}.npy"


def truth_path(folder: Path, number: int) -> Path:
    """Return the name of the truth of a file of images."""
    return Path(folder) / "truth" / f"lenses_{number:06d}.fits"


def truth_of(image_path: Path) -> Path:
    """Return the name of the truth that belongs to a file of images."""
    path = Path(image_path)
    return path.parent.parent / "truth" / f"{path.stem}.fits"


def is_dataset(folder: Path) -> bool:
    """Tell whether `data_gen=lenses` made a folder."""
    return (folder / "settings.json").is_file() and (folder / "images").is_dir()


def image_files(folder: Path) -> list[Path]:
    """List the files of images below a data folder, sorted.

    Raises:
        DataNotFoundError: There is none.
    """
    found = sorted((Path(folder) / "images").glob("lenses_*.npy"))
    if not found:
        raise DataNotFoundError(
            f"{folder} holds no images/lenses_*.npy; make some with: {COMMAND} "
            f"data_gen.data_dir={folder}",
            value=str(folder),
        )
    return found


def write_images(path: Path, images: NDArray[np.float32]) -> None:
    """Write images (n, bands, side, side) in float32 counts, as a plain npy file."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array(stream, np.ascontiguousarray(images, "<f4"), allow_pickle=False)


def read_images(path: Path) -> NDArray[np.float32]:
    """Map images into memory: (n, bands, side, side) float32 counts, read-only.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged, pickled, or holds arrays of another shape or type.
    """
    path = Path(path)
    with _reading(path, "images"):
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    if images.dtype != np.float32:
        raise _format_error(path, "dtype", "float32", images.dtype)
    if images.ndim != 4 or images.shape[-1] != images.shape[-2] or 0 in images.shape:
        raise _format_error(path, "shape", "(n, bands, side, side)", images.shape)
    return images  # type: ignore[no-any-return]


def check_finite(path: Path, images: NDArray[np.float32]) -> None:
    """Raise `DataFormatError` where an image holds nan or inf, naming the first one."""
    for number, image in enumerate(images):
        if not np.isfinite(image).all():
            raise _format_error(path, f"image {number}", "finite pixels", "nan or inf")


def write_truth(
    path: Path,
    lenses: Mapping[str, Any],
    substructure: Mapping[str, Any],
    meta: Mapping[str, Card | tuple[Card, str]],
) -> None:
    """Write the tables LENSES and SUBSTRUCTURE.

    Args:
        path: Final name.
        lenses: Columns with one row per image.
        substructure: Columns with one row per subhalo, rod or halo on the line of sight.
        meta: Cards of the primary header, or pairs of a card and its comment.
    """
    header = fits.Header()
    for key, value in {**meta, "FORMATV": FORMAT_VERSION}.items():
        header[key] = value
    tables = [_table(columns) for columns in (lenses, substructure)]
    for table, name in zip(tables, ("LENSES", "SUBSTRUCTURE"), strict=True):
        table.name = name
    with atomic_path(path) as temporary:
        fits.HDUList([fits.PrimaryHDU(header=header), *tables]).writeto(temporary, overwrite=True)


def _table(columns: Mapping[str, Any]) -> fits.BinTableHDU:
    table = Table({name: np.asarray(column) for name, column in columns.items()})
    for name in table.colnames:
        table[name].unit = UNITS[name] or None
    return fits.BinTableHDU(table)


def read_truth(path: Path) -> Table:
    """Read the table LENSES; the primary header is in its meta.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged, of another version, or lacks a column.
    """
    return _read_table(Path(path), "LENSES", LENS_COLUMNS)


def read_substructure(path: Path) -> Table:
    """Read the table SUBSTRUCTURE; INDEX names the image.

    KIND is 0 for a subhalo, 1 for a rod, 2 for a halo on the line of sight. THETA_E is that of the
    mass as a point; lengths are in arcsec, angles in rad.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged, of another version, or lacks a column.
    """
    return _read_table(Path(path), "SUBSTRUCTURE", SUBSTRUCTURE_COLUMNS)


def _read_table(path: Path, name: str, columns: tuple[str, ...]) -> Table:
    with _reading(path, "truth"), fits.open(path, memmap=False) as hdus:
        header, table = hdus[0].header.copy(), Table(hdus[name].data)
        for column in hdus[name].columns:
            table[column.name].unit = column.unit
    if header.get("FORMATV") != FORMAT_VERSION:
        raise _format_error(path, "FORMATV", str(FORMAT_VERSION), header.get("FORMATV"))
    for column in columns:
        if column not in table.colnames:
            raise _format_error(path, f"table {name}", f"a column {column}", table.colnames)
    table.meta = {key: header[key] for key in header if key not in ("SIMPLE", "BITPIX", "NAXIS")}
    return table


def read_settings(folder: Path) -> dict[str, Any]:
    """Read `settings.json`, with side, pixel_scale [arcsec/px], bands and preset at its top.

    Raises:
        DataNotFoundError: It is missing.
        DataFormatError: It is not that of simulated lenses.
    """
    path = Path(folder) / "settings.json"
    settings = read_json(path)
    if not isinstance(settings, dict) or "lens" not in settings:
        raise _format_error(path, "lens", "the settings of data_gen=lenses", "none")
    imaging = settings["lens"]["imaging"]
    top = {name: imaging[name] for name in ("side", "pixel_scale", "bands")}
    return settings | top | {"preset": settings["lens"]["name"]}


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
