"""Checks every file of a folder that `data_gen=fields`, `survey` or `tiles` wrote."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from datagen.errors import DataFormatError, DataNotFoundError
from datagen.fields import format as files
from datagen.files import read_json
from datagen.pipeline import read_manifest

IMAGE_CARDS = (
    *("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD2_2"),
    *("BAND", "MAGZERO", "PSFFWHM", "SKYSIGMA", "SEED", "INDEX", "CONFHASH"),
)
# All bands of one image show the same pixels of the same sky.
SHARED_CARDS = ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD2_2", "MAGZERO", "CONFHASH")
_BAND = re.compile(r"^(?P<image>.*)_(?P<band>[a-zA-Z])(?P<end>(_nobkg)?\.fits(\.fz)?)$")
_DATUM = re.compile(r"^file_data_.+_size_(?P<n>\d+)\.pt$")


def validate_folder(folder: Path) -> str:
    """Check every file of a data folder, in the order of their names.

    Args:
        folder: What `data_gen.data_dir` was.

    Returns:
        A summary in words.

    Raises:
        DataNotFoundError: The folder is missing or holds no file of these formats.
        DataFormatError: The message names the first bad file and key.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataNotFoundError(
            f"{folder} is no folder; expected one that a data_gen of datagen/run.py has written, "
            "such as data/fields or data/halos/a",
            str(folder),
        )
    counts: Counter[str] = Counter()
    images: dict[Path, dict[str, Any]] = defaultdict(dict)
    for path in sorted(folder.rglob("*")):
        kind = _kind(path)
        if kind is None:
            continue
        _CHECKS[kind](path)
        counts[kind] += 1
        if kind == "images":
            _compare_bands(path, images)
    if not counts.keys() - {"records"}:
        raise DataNotFoundError(
            f"{folder} holds no simulated data; make some with: python datagen/run.py "
            f"data_gen=fields data_gen.data_dir={folder}",
            value=str(folder),
        )
    _check_same_bands(images)
    check_manifest(folder)
    words = ", ".join(f"{counts[kind]} {kind}" for kind in _CHECKS if counts[kind])
    return f"{words} in {folder}"


def check_manifest(folder: Path) -> None:
    """Make sure that every file of the manifests is there and as large as it was."""
    for name, record in sorted(read_manifest(folder).items()):
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != record["bytes"]:
            state = "is missing" if found is None else f"has {found} bytes"
            raise DataFormatError(
                f"{path} {state}, but the manifest lists it with {record['bytes']} bytes; "
                "run the same datagen command again to make it again",
                value=found,
            )


def _kind(path: Path) -> str | None:
    """Return what a file should be by its name, None for files that are not ours."""
    if not path.is_file() or path.name.startswith("."):
        return None
    endings = {
        ".pt": "file data",
        ".dat": "source catalogs",
        "clusters.ecsv": "cluster tables",
        ".fits": "images",
        ".fits.fz": "images",
        "settings.json": "records",
    }
    return next((kind for end, kind in endings.items() if path.name.endswith(end)), None)


def _check_file_data(path: Path) -> None:
    data = files.read_file_data(path)
    match = _DATUM.match(path.name)
    if match is None or int(match["n"]) != len(data):
        raise DataFormatError(
            f"{path}, list: expected file_data_<number>_size_{len(data)}.pt as the name of a file "
            f"with {len(data)} fields",
            value=path.name,
        )
    files.check_file_data(data, path)


def _check_image(path: Path) -> None:
    image, header = files.read_image(path)
    for key in IMAGE_CARDS:
        if key not in header:
            raise DataFormatError(f"{path}, {key}: expected this card, but it is missing", key)
    if not np.isfinite(image).all():
        raise DataFormatError(f"{path}, pixels: expected finite values, but found nan or inf")
    match = _BAND.match(path.name)
    if match is None or match["band"] != header["BAND"]:
        raise DataFormatError(
            f"{path}, BAND: expected the band of the file's name, but got {header['BAND']!r}",
            value=header["BAND"],
        )


def _check_record(path: Path) -> None:
    read_json(path)


_CHECKS: dict[str, Callable[[Path], Any]] = {
    "file data": _check_file_data,
    "images": _check_image,
    "source catalogs": files.read_catalog,
    "cluster tables": files.read_clusters,
    "records": _check_record,
}


def _compare_bands(path: Path, images: dict[Path, dict[str, Any]]) -> None:
    """Refuse a band whose shape or world coordinates are not those of the first band."""
    match = _BAND.match(path.name)
    if match is None:
        return
    header = files.read_header(path)
    cards = {key: header[key] for key in ("NAXIS1", "NAXIS2", *SHARED_CARDS)}
    image = images[path.with_name(match["image"] + match["end"])]
    first = next(iter(image.values()), cards)
    for key, value in cards.items():
        if value != first[key]:
            raise DataFormatError(
                f"{path}, {key}: expected {first[key]} as in the other bands, but got {value}",
                value=value,
            )
    image[match["band"]] = cards


def _check_same_bands(images: dict[Path, dict[str, Any]]) -> None:
    """Refuse a field or survey tile that lacks a band which others have."""
    bands = sorted({band for image in images.values() for band in image})
    for name, image in images.items():
        for band in bands:
            if band not in image:
                raise DataFormatError(
                    f"{name.parent}: expected bands {', '.join(bands)}, but {name.name} has only "
                    f"{', '.join(image)}; run python datagen/run.py again",
                    value=band,
                )
