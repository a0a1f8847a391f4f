"""Checks every file of a folder of raw stamps that `data_gen=galaxies` wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.table import Table

from datagen.errors import DataFormatError
from datagen.fields.validate import check_manifest
from datagen.galaxies import format as files

__all__ = ["validate_galaxies"]


def validate_galaxies(folder: Path) -> str:
    """Check all labels and images of a suite, in the order of their names.

    Args:
        folder: What `data_gen.data_dir` was.

    Returns:
        A summary in words.

    Raises:
        DataNotFoundError: The folder holds no labels, or an image is missing.
        DataFormatError: The message names the first bad file and key.
    """
    folder = Path(folder)
    seen: set[str] = set()
    objects: set[int] = set()
    paths = files.label_files(folder)
    for path in paths:
        table = files.read_labels(path)
        _check_labels(path, table, seen)
        for name in table["FILE"]:
            _check_image(files.images_path(folder, str(name)), table.meta)
        seen |= {str(name) for name in table["FILE"]}
        objects |= {int(number) for number in table["OBJECT"]}
    check_manifest(folder)
    kind = table.meta["KIND"]
    return f"{len(paths)} tables of labels, {len(seen)} images of {len(objects)} {kind} in {folder}"


def _check_labels(path: Path, table: Table, seen: set[str]) -> None:
    names = [str(name) for name in table["FILE"]]
    if len(set(names)) < len(names) or seen & set(names):
        raise DataFormatError(f"{path}, FILE: expected names that are unique in the suite")
    for name in table.colnames:
        if table[name].dtype.kind == "f" and not np.isfinite(table[name]).all():
            raise DataFormatError(f"{path}, {name}: expected finite values, but got nan or inf")


def _check_image(path: Path, meta: dict[str, object]) -> None:
    image, cards = files.read_images(path)
    bands, side = str(meta["BANDS"]).split(","), meta["SIDE"]
    if list(cards) != bands or image.shape[1:] != (side, side):
        raise DataFormatError(
            f"{path}: expected bands {', '.join(bands)} of {side} x {side} px as its labels say, "
            f"but got {', '.join(cards)} of {image.shape[1]} x {image.shape[2]} px",
            value=list(cards),
            allowed=bands,
        )
    if not np.isfinite(image).all():
        raise DataFormatError(f"{path}, pixels: expected finite values, but found nan or inf")
