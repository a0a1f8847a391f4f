"""Reads the planes of one image: from FITS, HDF5, or npz that holds no pickled objects.

Where a band stands is said by an address: the name or number of an HDU, the path of an HDF5
dataset or the name of an npz array, and in brackets the plane of a cube, as in `images[2]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from datagen.stamps.drops import DroppedError
from datagen.stamps.names import Image

_ADDRESS = re.compile(r"(?P<key>.+?)(?:\[(?P<plane>\d+)\])?")


@dataclass(frozen=True)
class Raw:
    """An image as its files hold it.

    Args:
        planes: (bands, h, w), in the units of the file.
        cards: Of each band, what its header or attributes say.
    """

    planes: NDArray[np.float64]
    cards: list[dict[str, Any]]


class Opened(Protocol):
    """An open file."""

    def array(self, key: str) -> tuple[Any, dict[str, Any]]:
        """Return an array and its cards; a `KeyError` or `IndexError` if there is none."""


class _Fits:
    def __init__(self, path: Path) -> None:
        self._hdus = fits.open(path, memmap=False, lazy_load_hdus=True)

    def array(self, key: str) -> tuple[Any, dict[str, Any]]:
        hdu = self._hdus[int(key) if key.isdigit() else key]
        # What a keyword lacks in the HDU the primary header may tell.
        return hdu.data, {**_cards(self._hdus[0].header), **_cards(hdu.header)}

    def close(self) -> None:
        self._hdus.close()


class _Hdf5:
    def __init__(self, path: Path) -> None:
        self._file = h5py.File(path, "r")

    def array(self, key: str) -> tuple[Any, dict[str, Any]]:
        found = self._file[key]
        if not isinstance(found, h5py.Dataset):
            raise KeyError(f"{key} is a group")
        return found[()], {**dict(self._file.attrs), **dict(found.attrs)}

    def close(self) -> None:
        self._file.close()


class _Npz:
    def __init__(self, path: Path) -> None:
        self._file = np.load(path, allow_pickle=False)
        if not isinstance(self._file, np.lib.npyio.NpzFile):
            raise ValueError("it is no npz file")

    def array(self, key: str) -> tuple[Any, dict[str, Any]]:
        shapes = {name: self._file[name] for name in self._file.files if name != key}
        return self._file[key], {n: a.item() for n, a in shapes.items() if a.size == 1}

    def close(self) -> None:
        self._file.close()


_OPENERS: dict[str, Callable[[Path], Any]] = {"fits": _Fits, "hdf5": _Hdf5, "npz": _Npz}


def _cards(header: fits.Header) -> dict[str, Any]:
    return {key: header[key] for key in header if key not in ("COMMENT", "HISTORY", "")}


def read_image(image: Image, addresses: Mapping[str, str], reader: str) -> Raw:
    """Read the planes of an image.

    Args:
        image: Which one.
        addresses: Band -> where it stands in its file; their order is that of the planes.
        reader: fits, hdf5 or npz.

    Raises:
        DroppedError: A file cannot be read, a band is missing, or planes are no images of one
            shape.
    """
    planes: list[NDArray[np.float64]] = []
    cards: list[dict[str, Any]] = []
    opened: dict[Path, Any] = {}
    try:
        for band, address in addresses.items():
            path = image.files[band]
            with _reading(path):
                if path not in opened:
                    opened[path] = _OPENERS[reader](path)
                plane, about = _plane(opened[path], address)
            _check_plane(path, band, address, plane)
            planes.append(np.asarray(plane, np.float64))
            cards.append(about)
    finally:
        for file in opened.values():
            file.close()
    shapes = {band: plane.shape for band, plane in zip(addresses, planes, strict=True)}
    if len(set(shapes.values())) > 1:
        words = ", ".join(f"{band} {shape}" for band, shape in shapes.items())
        raise DroppedError(f"{image.name}: bands have different shapes: {words}", "shape")
    return Raw(np.stack(planes), cards)


def _plane(file: Opened, address: str) -> tuple[Any, dict[str, Any]]:
    match = _ADDRESS.fullmatch(address)
    key, plane = (match["key"], match["plane"]) if match else (address, None)
    try:
        found, about = file.array(key)
        return (found if plane is None else found[int(plane)]), about
    except (KeyError, IndexError) as error:
        reason = str(error).strip("'\"").splitlines()[0]
        raise DroppedError(f"there is no {address}: {reason}", "band") from error


def _check_plane(path: Path, band: str, address: str, plane: Any) -> None:  # noqa: ANN401
    if plane is None or np.ndim(plane) != 2 or np.asarray(plane).dtype.kind not in "iuf":
        got = "nothing" if plane is None else f"{np.asarray(plane).dtype} of {np.shape(plane)}"
        raise DroppedError(
            f"{path.name}, band {band} ({address}): expected an image of numbers (h, w), but got "
            f"{got}",
            "shape",
        )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into one line."""
    try:
        yield
    except DroppedError as error:
        raise DroppedError(f"{path.name}: {error}", error.value) from error
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if "allow_pickle" in reason or "pickled" in reason or "Object arrays" in reason:
            reason = "it holds pickled objects, which are not read since they may run code"
        raise DroppedError(f"{path.name} cannot be read: {reason}", "unreadable") from error
