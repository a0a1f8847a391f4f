"""Checks every file of a folder that `data_gen=lenses` wrote."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from datagen.errors import DataFormatError
from datagen.fields.validate import check_manifest
from datagen.lenses import format as files

# Columns that are NaN where they were not asked for or images have no noise.
UNKNOWN = ("DELTA_CHI2", "SNR")


def holds_lenses(folder: Path) -> bool:
    """Tell whether a folder holds images of lenses."""
    return any((Path(folder) / "images").glob("lenses_*"))


def validate_lenses(folder: Path) -> str:
    """Check all images and truth tables of a folder, in the order of their names.

    Args:
        folder: What `data_gen.data_dir` was.

    Returns:
        A summary in words.

    Raises:
        DataNotFoundError: The folder holds no images, or a file is missing.
        DataFormatError: The message names the first bad file and key.
    """
    folder = Path(folder)
    settings = files.read_settings(folder)
    shape = (len(settings["bands"]), settings["side"], settings["side"])
    counts: Counter[str] = Counter()
    paths = files.image_files(folder)
    for path in paths:
        images = files.read_images(path)
        if images.shape[1:] != shape:
            raise DataFormatError(
                f"{path}, shape: expected (n, {', '.join(map(str, shape))}) as in settings.json, "
                f"but got {images.shape}",
                value=images.shape,
            )
        files.check_finite(path, images)
        counts.update(_check_truth(files.truth_of(path), len(images)))
    check_manifest(folder)
    words = ", ".join(f"{counts[name]} {name}" for name in files.CLASSES)
    return f"{len(paths)} files of images ({words}) in {folder}"


def _check_truth(path: Path, n_images: int) -> list[str]:
    """Check the truth of one file of images and return the names of their classes."""
    lenses, substructure = files.read_truth(path), files.read_substructure(path)
    if len(lenses) != n_images:
        raise DataFormatError(
            f"{path}, LENSES: expected one row per image, {n_images}, but got {len(lenses)}",
            value=len(lenses),
        )
    for name in lenses.colnames:
        if name not in UNKNOWN and not np.isfinite(lenses[name]).all():
            raise DataFormatError(f"{path}, {name}: expected finite values, but got nan or inf")
    labels = np.asarray(lenses["CLASS"])
    if not np.isin(labels, range(len(files.CLASSES))).all():
        raise DataFormatError(f"{path}, CLASS: expected 0 to 2, but got {np.unique(labels)}")
    if not np.isin(substructure["INDEX"], lenses["INDEX"]).all():
        raise DataFormatError(f"{path}, INDEX: SUBSTRUCTURE has rows of images not in LENSES")
    return [files.CLASSES[label] for label in labels]
