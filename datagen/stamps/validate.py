"""Checks every file of a folder that holds stamps, cut by `data_gen=stamps` or a user's own."""

from __future__ import annotations

from pathlib import Path

from datagen.errors import DataFormatError
from datagen.fields.validate import check_manifest
from datagen.stamps import format as files

__all__ = ["validate_stamps"]


def validate_stamps(folder: Path) -> str:
    """Check all stamps and labels of a suite, in the order of their names.

    Args:
        folder: Of one suite, such as data/stamps/a.

    Returns:
        A summary in words.

    Raises:
        DataNotFoundError: The folder holds no stamps, or a file is missing.
        DataFormatError: The message names the first bad file and key.
    """
    folder = Path(folder)
    table = files.read_labels(folder)
    bands, side = files.bands_of(table.meta), table.meta["SIDE"]
    identities = {tuple(row) for row in table["SNAPSHOT", "OBJECT", "PROJECTION"].iterrows()}
    if len(identities) < len(table):
        raise DataFormatError(
            f"{folder}: expected stamps with different SNAPSHOT, OBJECT and PROJECTION, but only "
            f"{len(identities)} of {len(table)} are different",
            len(identities),
        )
    paths = files.stamp_files(folder)
    for path in paths:
        stamps = files.read_stamps(path)
        number = int(path.stem.rpartition("_")[2])
        expected = (int((table["FILE_NUMBER"] == number).sum()), len(bands), side, side)
        if stamps.shape != expected:
            raise DataFormatError(
                f"{path}, shape: expected {expected} as in its truth, but got {stamps.shape}",
                stamps.shape,
                expected,
            )
        files.check_finite(path, stamps)
    # Only what `data_gen=stamps` made has a manifest.
    if any(folder.glob("manifest-*.jsonl")):
        check_manifest(folder)
    n_objects = len(set(table["OBJECT"].tolist()))
    return (
        f"{len(paths)} files of stamps ({len(table)} of {n_objects} objects, bands "
        f"{', '.join(bands)}, {side} px) in {folder}"
    )
