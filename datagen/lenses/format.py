"""Files of the lens simulator: images (npy) and truth (FITS), their names, writers and readers.

Nothing is pickled and nothing carries a date: the same content gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astropy.table import Table

from datagen.files import Card, read_json
from datagen.lenses.version import CLASSES, FORMAT_VERSION
from datagen.stacks import Stacks

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

_STACKS = Stacks("image", "lenses", "bands", FORMAT_VERSION, COMMAND)
images_path, truth_path, truth_of = _STACKS.path, _STACKS.truth_path, _STACKS.truth_of
# Images are (n, bands, side, side) float32 counts.
image_files, write_images, read_images = _STACKS.files, _STACKS.write, _STACKS.read
check_finite = _STACKS.check_finite


def is_dataset(folder: Path) -> bool:
    """Tell whether `data_gen=lenses` made a folder."""
    return (folder / "settings.json").is_file() and (folder / "images").is_dir()


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
    _STACKS.write_tables(path, {"LENSES": lenses, "SUBSTRUCTURE": substructure}, UNITS, meta)


def read_truth(path: Path) -> Table:
    """Read the table LENSES; the primary header is in its meta.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged, of another version, or lacks a column.
    """
    return _STACKS.read_table(path, "LENSES", LENS_COLUMNS)


def read_substructure(path: Path) -> Table:
    """Read the table SUBSTRUCTURE; INDEX names the image.

    KIND is 0 for a subhalo, 1 for a rod, 2 for a halo on the line of sight. THETA_E is that of the
    mass as a point; lengths are in arcsec, angles in rad.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged, of another version, or lacks a column.
    """
    return _STACKS.read_table(path, "SUBSTRUCTURE", SUBSTRUCTURE_COLUMNS)


def read_settings(folder: Path) -> dict[str, Any]:
    """Read `settings.json`, with side, pixel_scale [arcsec/px], bands and preset at its top.

    Raises:
        DataNotFoundError: It is missing.
        DataFormatError: It is not that of simulated lenses.
    """
    path = Path(folder) / "settings.json"
    settings = read_json(path)
    if not isinstance(settings, dict) or "lens" not in settings:
        raise _STACKS.error(path, "lens", "the settings of data_gen=lenses", "none")
    imaging = settings["lens"]["imaging"]
    top = {name: imaging[name] for name in ("side", "pixel_scale", "bands")}
    return settings | top | {"preset": settings["lens"]["name"]}
