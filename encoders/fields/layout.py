"""What all fields of a folder must have in common, and whether a field is whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datagen.errors import DataFormatError
from datagen.fields.version import FORMAT_VERSION

# Every file of a folder must agree on these, or a batch would mix different things.
COMMON_KEYS = ("bands", "pixel_scale", "zero_point", "cell_px")
CLUSTER_KEYS = ("cluster_redshift", "cluster_richness")


def layout_of(path: Path, number: int, datum: Mapping[str, Any]) -> dict[str, Any]:
    """Return the common meta values and the image shape of one field.

    Raises:
        DataFormatError: A key is missing, is of another format, or does not fit the others.
    """
    where = f"{path}, field {number}"
    for key in ("images", "tile_catalog", "redshift_map", "meta"):
        _require(isinstance(datum, dict) and key in datum, where, key, "is missing")
    images, cells, meta = datum["images"], datum["tile_catalog"], datum["meta"]
    version = meta.get("format_version")
    if version != FORMAT_VERSION:
        raise DataFormatError(
            f"{where}: expected meta.format_version = {FORMAT_VERSION}, but got {version}; make "
            "all files again with the same datagen command and data_gen.overwrite=true",
            version,
            FORMAT_VERSION,
        )
    for key in COMMON_KEYS:
        _require(key in meta, where, f"meta.{key}", "is missing")
    for key in ("membership", *CLUSTER_KEYS):
        _require(key in cells, where, f"tile_catalog.{key}", "is missing")
    shape, cell_px = tuple(images.shape), meta["cell_px"]
    is_image = len(shape) == 3 and shape[0] == len(meta["bands"])
    _require(is_image, where, "images", f"has shape {shape} for {len(meta['bands'])} bands")
    grid = tuple(cells["membership"].shape[:2])
    wanted = (shape[1] // cell_px, shape[2] // cell_px)
    is_whole = shape[1] % cell_px == 0 and shape[2] % cell_px == 0
    _require(
        is_whole and grid == wanted,
        where,
        "tile_catalog.membership",
        f"has {grid} cells for images {shape} and cell_px = {cell_px}",
    )
    return {key: meta[key] for key in COMMON_KEYS} | {"image shape": shape[1:]}


def check_same(where: str, layout: Mapping[str, Any], first: Mapping[str, Any], other: str) -> None:
    """Raise `DataFormatError` unless two fields have the same layout."""
    for key, value in layout.items():
        if value != first[key]:
            raise DataFormatError(
                f"expected one {key} in all file data, but got {key} = {value} in {where} and "
                f"{first[key]} in {other}; keep different data in different folders",
                value,
                first[key],
            )


def _require(condition: bool, where: str, key: str, problem: str) -> None:
    if not condition:
        raise DataFormatError(
            f"{where}: {key} {problem}; delete the file and run python datagen/run.py again", key
        )
