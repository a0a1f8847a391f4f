"""Checks what `data_gen=prepared` wrote to a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datagen.errors import DataFormatError
from datagen.fields.validate import check_manifest
from datagen.prepared import format as files
from datagen.prepared.splitting import SPLITS, count_straddlers

__all__ = ["validate_prepared"]


def validate_prepared(folder: Path) -> str:
    """Check table, scaler and manifest.

    Args:
        folder: Such as data/prepared.

    Returns:
        A summary in words.

    Raises:
        DataNotFoundError: A file is missing.
        DataFormatError: One is damaged, an object is in two splits, or a partner is no row.
    """
    table = files.read_prepared(folder)
    files.read_scaler(folder)
    files.read_manifest(folder)
    splits, matches = np.asarray(table["SPLIT"], str), np.asarray(table["MATCH"])
    n_split = count_straddlers(np.asarray(table[files.IDENTITY]), splits)
    partners = matches[matches >= 0]
    for wrong, key, expected, got in (
        (not set(splits) <= set(SPLITS), "SPLIT", ", ".join(SPLITS), sorted(set(splits))),
        (n_split > 0, "SPLIT", "each object in one split", f"{n_split} in several"),
        ((partners >= len(table)).any(), "MATCH", f"rows below {len(table)}", matches.max()),
    ):
        if wrong:
            raise DataFormatError(
                f"{files.prepared_path(folder)}, {key}: expected {expected}, but got {got}; make "
                f"it again with: {files.COMMAND}",
                got,
                expected,
            )
    check_manifest(folder)
    counts = ", ".join(f"{(splits == split).sum()} {split}" for split in SPLITS)
    return f"{len(table)} prepared stamps ({counts}) in {folder}"
