"""Checks every file of a folder that holds cluster maps, simulated or a user's own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from datagen.errors import DataFormatError
from datagen.fields.validate import check_manifest
from datagen.halos import format as files

__all__ = ["validate_halos"]


def validate_halos(folder: Path) -> str:
    """Check all maps and truth tables of a suite, in the order of their names.

    Args:
        folder: What `data_gen.data_dir` was.

    Returns:
        A summary in words.

    Raises:
        DataNotFoundError: The folder holds no maps, or a file is missing.
        DataFormatError: The message names the first bad file and key.
    """
    folder, counts = Path(folder), Counter[str]()
    seen: set[int] = set()
    clusters: set[int] = set()
    paths = files.map_files(folder)
    for path in paths:
        maps, truth = files.read_maps(path), files.truth_of(path)
        files.check_finite(path, maps)
        table = files.read_truth(truth)
        _check_shape(path, maps.shape, table.meta)
        if len(table) != len(maps):
            raise DataFormatError(
                f"{truth}, HALOS: expected one row per map, {len(maps)}, but got {len(table)}",
                value=len(table),
            )
        for name in ("M200", "REDSHIFT"):
            if not np.isfinite(table[name]).all():
                raise DataFormatError(
                    f"{truth}, {name}: expected finite values, but got nan or inf"
                )
        index = {int(number) for number in table["INDEX"]}
        if len(index) < len(table) or index & seen:
            raise DataFormatError(f"{truth}, INDEX: expected numbers that are unique in the suite")
        seen |= index
        clusters |= {int(number) for number in table["CLUSTER"]}
        counts.update(f"{value:g}" for value in table["CROSS_SECTION"])
    # Only what `data_gen=halos` or a converter of ours made has a manifest.
    if any(folder.glob("manifest-*.jsonl")):
        check_manifest(folder)
    words = ", ".join(f"{n} of sigma/m {value}" for value, n in sorted(counts.items()))
    return f"{len(paths)} files of maps ({words}) of {len(clusters)} clusters in {folder}"


def _check_shape(path: Path, shape: tuple[int, ...], header: dict[str, object]) -> None:
    expected = (len(files.channels_of(header)), header["SIDE"], header["SIDE"])
    if shape[1:] != expected:
        raise DataFormatError(
            f"{path}, shape: expected (n, {', '.join(map(str, expected))}) as in the header of its "
            f"truth, but got {shape}",
            value=shape,
        )
