"""What the files of the field simulator must hold, and checks that name the file and the key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from datagen.errors import DataFormatError
from datagen.fields.version import FORMAT_VERSION
from datagen.fields.wcs import tan_cards

CATALOG_COLUMNS = (
    "RA", "DEC", "X", "Y", "MEM", "FLUX_G", "FLUX_R", "FLUX_I", "FLUX_Z", "HLR", "FRACDEV", "G1",
    "G2", "Z", "SOURCE_TYPE", "GI_COLOR", "IZ_COLOR", "CLUSTER_ID", "SERSIC_N", "MAG_I", "IS_RED",
    "LABEL_WEIGHT",
)  # fmt: skip
CLUSTER_COLUMNS = (
    "CLUSTER_ID", "RA", "DEC", "X", "Y", "Z", "M200M", "RICHNESS", "R_LAMBDA_MPC", "R_LAMBDA_PX",
    "N_MEMBERS", "LABELLED",
)  # fmt: skip
# A Sersic index may be unknown (nan): then FRACDEV gives the profile.
_MAY_BE_NAN = ("SERSIC_N",)
# Key of the cell catalog: trailing shape after (ny, nx), dtype name; "bands" is the band count.
CELL_KEYS: dict[str, tuple[tuple[int | str, ...], str]] = {
    "n_sources": ((), "int64"),
    "locs": ((1, 2), "float32"),
    "fluxes": ((1, "bands"), "float32"),
    "membership": ((1, 1), "bool"),
    "redshift": ((1, 1), "float32"),
    "source_type": ((1, 1), "float32"),
    "galaxy_params": ((1, 4), "float32"),
    "n_members": ((1, 1), "int64"),
    "cell_weight": ((1, 1), "float32"),
    "cluster_redshift": ((1, 1), "float32"),
    "cluster_richness": ((1, 1), "float32"),
}
# Side of the squares of a redshift map [px].
PATCH_PX = 16
META_KEYS: dict[str, type | tuple[type, ...]] = {
    "format_version": int,
    "seed": int,
    "index": int,
    "config_hash": str,
    "package_version": str,
    "bands": list,
    "reference_band": str,
    "pixel_scale": float,
    "zero_point": float,
    "cell_px": int,
    "noise_sigma": list,
    "psf_fwhm": list,
    "wcs": dict,
    "prior": dict,
    "units": dict,
}


def check_catalog(table: Table, path: Path) -> None:
    """Raise `DataFormatError` unless a source catalog has all columns and finite values."""
    _check_columns(table, CATALOG_COLUMNS, "source catalog", path)
    if len(table) and (np.asarray(table["HLR"]) < 0).any():
        row = int(np.argmax(np.asarray(table["HLR"]) < 0))
        raise _bad(
            path, "HLR", f"expected sizes >= 0 arcsec, but row {row} has {table['HLR'][row]:g}"
        )


def check_clusters(table: Table, path: Path) -> None:
    """Raise `DataFormatError` unless a cluster table has all columns and finite values."""
    _check_columns(table, CLUSTER_COLUMNS, "cluster table", path)


def check_config_hash(found: object, wanted: str, path: Path) -> None:
    """Raise `DataFormatError` unless a file was made with the settings of this run.

    Args:
        found: Hash of the settings that the file carries; None without one.
        wanted: Hash of this run's settings.
        path: For the message.
    """
    if found != wanted:
        raise _bad(path, "config_hash", f"expected {wanted} as in this run, but got {found}")


def check_file_data(data: list[dict[str, Any]], path: Path) -> None:
    """Check the structure, shapes, types and values of a file datum.

    Args:
        data: What `read_file_data` returned.
        path: For the message.

    Raises:
        DataFormatError: The message names the file, the field and the first bad key.
    """
    if not data:
        raise _bad(path, "list", "expected at least one field, but got none")
    for number, datum in enumerate(data):
        _check_datum(datum, path, f"[{number}]")


def _check_datum(datum: object, path: Path, where: str) -> None:
    if not isinstance(datum, dict):
        raise _bad(path, where, f"expected a mapping, but got {type(datum).__name__}")
    for key in ("images", "tile_catalog", "redshift_map", "meta"):
        if key not in datum:
            raise _bad(path, f"{where}.{key}", "expected this key, but it is missing")
    for key in ("tile_catalog", "meta"):
        if not isinstance(datum[key], dict):
            got = type(datum[key]).__name__
            raise _bad(path, f"{where}.{key}", f"expected a mapping, but got {got}")
    _check_meta(datum["meta"], path, f"{where}.meta")
    _check_tensors(datum, path, where)


def _check_meta(meta: Mapping[str, Any], path: Path, where: str) -> None:
    for key, kind in META_KEYS.items():
        value = meta.get(key)
        if not isinstance(value, kind):
            name = getattr(kind, "__name__", str(kind))
            raise _bad(path, f"{where}.{key}", f"expected {name}, but got {value!r}")
    if meta["format_version"] != FORMAT_VERSION:
        version = meta["format_version"]
        raise _bad(path, f"{where}.format_version", f"expected {FORMAT_VERSION}, but got {version}")
    if meta["cell_px"] < 1:
        raise _bad(path, f"{where}.cell_px", f"expected > 0, but got {meta['cell_px']}")
    _check_bands(meta, path, where)
    for key, card in tan_cards(0.0, 0.0, (1, 1), 1.0).items():
        found = meta["wcs"].get(key)
        if type(found) is not type(card):
            name = type(card).__name__
            raise _bad(path, f"{where}.wcs.{key}", f"expected {name}, but got {found!r}")


def _check_bands(meta: Mapping[str, Any], path: Path, where: str) -> None:
    """Check the values that a field has per band."""
    bands = meta["bands"]
    for key in ("noise_sigma", "psf_fwhm"):
        values = meta[key]
        if key == "psf_fwhm" and not values:
            # Of survey tiles it is not known.
            continue
        if len(values) != len(bands):
            reason = f"expected {len(bands)} values, but got {len(values)}"
            raise _bad(path, f"{where}.{key}", reason)
        if not all(isinstance(value, float) and 0.0 < value < np.inf for value in values):
            raise _bad(path, f"{where}.{key}", f"expected numbers > 0, but got {values}")
    if meta["reference_band"] not in bands:
        reason = f"expected one of {bands}, but got {meta['reference_band']!r}"
        raise _bad(path, f"{where}.reference_band", reason)


def _check_tensors(datum: Mapping[str, Any], path: Path, where: str) -> None:
    bands, cell_px = len(datum["meta"]["bands"]), datum["meta"]["cell_px"]
    images = datum["images"]
    shape = tuple(getattr(images, "shape", ()))
    if len(shape) != 3 or shape[0] != bands or shape[1] % cell_px or shape[2] % cell_px:
        expected = f"({bands}, H, W) with H and W multiples of {cell_px}"
        raise _bad(path, f"{where}.images", f"expected shape {expected}, but got {shape}")
    _check_images(datum, shape, path, f"{where}.images")
    patches = (-(-shape[1] // PATCH_PX), -(-shape[2] // PATCH_PX))
    _check_tensor(datum["redshift_map"], patches, "float32", path, f"{where}.redshift_map")
    grid = (shape[1] // cell_px, shape[2] // cell_px)
    for key, (trailing, dtype) in CELL_KEYS.items():
        name = f"{where}.tile_catalog.{key}"
        if key not in datum["tile_catalog"]:
            raise _bad(path, name, "expected this key, but it is missing")
        wanted = grid + tuple(bands if size == "bands" else int(size) for size in trailing)
        _check_tensor(datum["tile_catalog"][key], wanted, dtype, path, name)
    _check_cells(datum["tile_catalog"], path, f"{where}.tile_catalog")


def _check_images(datum: Mapping[str, Any], shape: tuple[int, ...], path: Path, name: str) -> None:
    """Check images: only pixels of survey tiles may be masked (NaN), as many as meta tells."""
    images, told = datum["images"], datum["meta"].get("masked_fraction")
    if told is None:
        _check_tensor(images, shape, "float32", path, name)
        return
    _check_tensor(images.nan_to_num(0.0, np.inf, np.inf), shape, "float32", path, name)
    found = [float(band.isnan().double().mean()) for band in images]
    if not np.allclose(found, told, rtol=0.0, atol=1e-9):
        raise _bad(path, name, f"expected the masked fractions {told} of meta, but got {found}")


def _check_cells(cells: Mapping[str, Any], path: Path, where: str) -> None:
    """Check the values of a cell catalog."""
    locs, weight = cells["locs"], cells["cell_weight"]
    if bool(((locs < 0) | (locs >= 1)).any()):
        raise _bad(path, f"{where}.locs", "expected fractions in [0, 1)")
    if bool(((weight < 0) | (weight > 1)).any()):
        raise _bad(path, f"{where}.cell_weight", "expected weights in [0, 1]")
    if bool(((cells["n_members"] > 0) != cells["membership"]).any()):
        raise _bad(path, f"{where}.membership", "expected True where n_members > 0, and only there")
    for key in ("cluster_redshift", "cluster_richness"):
        values = cells[key]
        if bool(((values < 0) | ((values > 0) & ~cells["membership"])).any()):
            raise _bad(path, f"{where}.{key}", "expected >= 0, and 0 where there is no member")


def _check_tensor(tensor: Any, shape: tuple[int, ...], dtype: str, path: Path, name: str) -> None:  # noqa: ANN401
    """Check one tensor; torch is not imported, so that reading catalogs stays light."""
    got_shape = tuple(getattr(tensor, "shape", ()))
    got_dtype = str(getattr(tensor, "dtype", type(tensor).__name__)).removeprefix("torch.")
    if got_shape != shape or got_dtype != dtype:
        raise _bad(path, name, f"expected {dtype} {shape}, but got {got_dtype} {got_shape}")
    if dtype == "float32" and not bool(tensor.isfinite().all()):
        raise _bad(path, name, "expected finite values, but found nan or inf")


def _check_columns(table: Table, columns: tuple[str, ...], what: str, path: Path) -> None:
    missing = [name for name in columns if name not in table.colnames]
    if missing:
        raise _bad(path, missing[0], f"the {what} has no column {', '.join(missing)}")
    for name in columns:
        values = np.asarray(table[name])
        if values.dtype.kind not in "iufb":
            raise _bad(path, name, f"expected numbers, but got {values.dtype}")
        if name not in _MAY_BE_NAN and not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values)))
            raise _bad(path, name, f"expected finite values, but row {row} has {values[row]}")


def _bad(path: Path, key: str, reason: str) -> DataFormatError:
    return DataFormatError(
        f"{path}, {key}: {reason}; delete the file and run python datagen/run.py again", value=key
    )
