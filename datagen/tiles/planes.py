"""Flags and weights of survey tiles: planes that say which pixels of an image are bad.

A plane is read like the image that it belongs to, section by section: `Pixels` whose values are 1
where the plane calls a pixel bad, and 0 elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from datagen.errors import DataFormatError
from datagen.tiles.damage import naming
from datagen.tiles.sections import (
    HeldPixels,
    Pixels,
    Pixels32,
    Steps,
    can_be_mapped,
    can_be_streamed,
    decode_first,
    stream_pixels,
)
from datagen.tiles.survey import ALL_FLAGS, PlaneSettings

IsBad = Callable[[NDArray[Any]], NDArray[np.bool_]]


class MaskedPixels(Pixels):
    """An image whose bad pixels are NaN.

    Args:
        image: The image.
        planes: Pixels of its shape, > 0 where the image is bad.
    """

    def __init__(self, image: Pixels, planes: list[Pixels]) -> None:
        self._image, self._planes = image, planes

    @property
    def n_kept(self) -> int:
        """Number of images of which decoded rows are kept, planes among them."""
        return sum(pixels.n_kept for pixels in (self._image, *self._planes))

    @property
    def n_held(self) -> int:
        """Number of decoded pixels in memory, those of planes among them."""
        return sum(pixels.n_held for pixels in (self._image, *self._planes))

    @property
    def rows_decoded(self) -> int:
        """The rows above this one need no more decoding."""
        return min(pixels.rows_decoded for pixels in (self._image, *self._planes))

    def forget(self, row: int, column: int) -> None:
        """Give back the memory of what lies above `row` and left of `column`."""
        for pixels in (self._image, *self._planes):
            pixels.forget(row, column)

    def decode_ahead(self, room: int) -> bool:
        """Decode the next rows if they are at most `room` pixels; return whether it did."""
        return decode_first(room, (self._image, *self._planes))

    def read(self, rows: slice, columns: slice, out: Pixels32) -> None:
        """Write a section, both slices with start and stop, to `out` of its shape (h, w)."""
        self._image.read(rows, columns, out)
        bad = np.empty(out.shape, np.float32)
        for plane in self._planes:
            # All rows at once: those of compressed files are only kept for one section.
            plane.read(rows, columns, bad)
            np.copyto(out, np.float32(np.nan), where=bad > 0)

    def sample(self, steps: Steps) -> Pixels32:
        """Return every n-th row and column, from the first."""
        result = self._image.sample(steps)
        for plane in self._planes:
            np.copyto(result, np.float32(np.nan), where=plane.sample(steps) > 0)
        return result


class _Judged:
    """Something to take sections of, whose values become true where they are bad.

    Numbers are judged as they stand in the file: as floats, high bits would be lost.

    Args:
        values: What gives a section when indexed.
        is_bad: Tells which values are bad.
        path: The file, for messages.
    """

    def __init__(
        self,
        values: Any,  # noqa: ANN401 - astropy has no types
        is_bad: IsBad,
        path: Path,
    ) -> None:
        self._values, self._is_bad, self._path = values, is_bad, path

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[np.bool_]:
        with naming(self._path):
            return self._is_bad(np.asarray(self._values[key]))


def open_plane(
    hdus: fits.HDUList,
    plane: PlaneSettings,
    path: Path,
    shape: tuple[int, int],
) -> Pixels:
    """Return the pixels of a plane.

    Args:
        hdus: The open file that holds it.
        plane: Where it stands and which values are bad.
        path: The file.
        shape: (H, W) of the image [px].

    Raises:
        DataFormatError: There is no such plane, or it has another shape or type than it should.
    """
    try:
        hdu = hdus[plane.hdu]
    except (KeyError, IndexError):
        hdu = None
    if hdu is None or not hdu.is_image or hdu.shape != shape:
        found = "no such HDU" if hdu is None else "no image"
        if hdu is not None and hdu.is_image:
            found = f"shape {hdu.shape}"
        raise DataFormatError(
            f"expected {plane.kind} of shape {shape}, that of the image, in HDU {plane.hdu} of "
            f"{path.name}, but got {found}",
            value=plane.hdu,
            allowed=shape,
        )
    is_bad: IsBad = _is_unweighted
    if plane.kind == "flags":
        is_bad = partial(_is_flagged, plane.mask)
        if plane.mask != ALL_FLAGS and hdu.header["BITPIX"] < 0:
            raise DataFormatError(
                f"{path.name} holds flags as floats, which have no bits; survey.flags_mask = all "
                "takes every value but 0 for bad",
                value=plane.mask,
                allowed=ALL_FLAGS,
            )
    if can_be_streamed(hdu):
        return stream_pixels(_Judged(hdu.section, is_bad, path), hdu)
    n_held = 0 if can_be_mapped(hdus, hdu) else shape[0] * shape[1]
    return HeldPixels(_Judged(hdu.data, is_bad, path), n_held)


def _is_flagged(mask: int | str | None, flags: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where a bit of the mask is set; with `all`, where the flags are not 0."""
    if mask == ALL_FLAGS:
        return np.asarray(flags != 0, np.bool_)
    return np.asarray(flags.astype(np.int64) & int(mask or 0), np.bool_)


def _is_unweighted(weight: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where a weight is not positive, or unknown."""
    return ~np.asarray(weight > 0, np.bool_)
