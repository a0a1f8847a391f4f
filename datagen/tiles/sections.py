"""Gives sections of one FITS image without holding all of it, by the way it is stored.

| stored as | read by |
|---|---|
| plain image without scaling | `MappedPixels`: mapped into memory; only what is asked for is read |
| compressed in two-dimensional pieces | `CompressedPixels`: decodes the pieces that are touched |
| compressed in whole rows | `RollingPixels`: keeps the rows of one row of windows |
| anything else | `HeldPixels`: the whole image in memory |
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

STRIP_ROWS = 64
# Enough to make what astropy does for each section, about 1 ms, small.
DECODED_ROWS = 128
# A piece with more rows than this is no strip: to decode it for a single row would be wasteful.
MOST_ROWS = 512

Steps = tuple[int, int]
Pixels32 = NDArray[np.float32]


class Pixels(Protocol):
    """The pixels of one image, as they stand in its file, in native floats."""

    def read(self, rows: slice, columns: slice, out: Pixels32) -> None:
        """Write a section, both slices with start and stop, to `out` of its shape (h, w)."""

    def sample(self, steps: Steps) -> Pixels32:
        """Return every n-th row and column, from the first."""


class HeldPixels:
    """An image in memory, or mapped into it.

    Args:
        image: Shape (H, W), any numbers in any byte order.
    """

    def __init__(self, image: NDArray[Any]) -> None:
        self._image = image

    def read(self, rows: slice, columns: slice, out: Pixels32) -> None:
        """Write a section, both slices with start and stop, to `out` of its shape (h, w)."""
        # FITS is big-endian; this also brings pixels to the machine's own order, once.
        np.copyto(out, self._image[rows, columns], casting="unsafe")

    def sample(self, steps: Steps) -> Pixels32:
        """Return every n-th row and column, from the first."""
        return np.array(self._image[:: steps[0], :: steps[1]], np.float32)


class MappedPixels(HeldPixels):
    """A plain image without scaling, mapped into memory.

    Args:
        path: The file.
        offset: Where the pixels begin [bytes].
        shape: (H, W).
        bitpix: What a pixel is.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, int], bitpix: int) -> None:
        dtype = np.dtype(fits.hdu.base.BITPIX2DTYPE[bitpix]).newbyteorder(">")
        super().__init__(np.memmap(path, dtype, "r", offset, shape))


class CompressedPixels:
    """A tile-compressed image; each section decodes the pieces that it touches.

    Args:
        hdu: The open HDU.
    """

    def __init__(self, hdu: Any) -> None:  # noqa: ANN401 - astropy has no types
        self._section = hdu.section
        self._shape: tuple[int, int] = hdu.shape
        self._piece_rows = int(hdu.tile_shape[0])

    def read(self, rows: slice, columns: slice, out: Pixels32) -> None:
        """Write a section, both slices with start and stop, to `out` of its shape (h, w)."""
        np.copyto(out, self._decode(rows, columns), casting="unsafe")

    def sample(self, steps: Steps) -> Pixels32:
        """Return every n-th row and column, from the first."""
        height, width = self._shape
        wanted = np.arange(0, height, steps[0])
        result = np.empty((len(wanted), -(-width // steps[1])), np.float32)
        # All wanted rows of one row of pieces together: each piece is decoded once.
        piece = wanted // self._piece_rows
        for first, last in _runs(piece):
            rows = slice(int(wanted[first]), int(wanted[last - 1]) + 1)
            result[first:last] = self._decode(rows, slice(0, width))[:: steps[0], :: steps[1]]
        return result

    def _decode(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Return a section as astropy gives it; everything that is decoded passes here."""
        section: NDArray[Any] = self._section[rows, columns]
        return section


class RollingPixels(CompressedPixels):
    """An image that is compressed in whole rows, whose sections are asked for from top to bottom.

    It keeps the rows of the last section in full width, so that the sections beside it cost
    nothing, and of the next ones below only the rows that are new are decoded: each row once.
    """

    def __init__(self, hdu: Any) -> None:  # noqa: ANN401 - astropy has no types
        super().__init__(hdu)
        self._buffer = np.empty((0, self._shape[1]), np.float32)
        self._first = self._end = 0

    def read(self, rows: slice, columns: slice, out: Pixels32) -> None:
        """Write a section, both slices with start and stop, to `out` of its shape (h, w)."""
        if rows.start < self._first or rows.stop > self._end:
            self._roll(rows)
        top = rows.start - self._first
        np.copyto(out, self._buffer[top : top + len(out), columns])

    def _roll(self, rows: slice) -> None:
        """Hold these rows, and what belongs to the same pieces."""
        unit = self._piece_rows
        first, end = rows.start // unit * unit, min(-(-rows.stop // unit) * unit, self._shape[0])
        known = max(self._end - first, 0) if first >= self._first else 0
        old = self._buffer[first - self._first :][:known] if known else self._buffer[:0]
        self._reserve(rows.stop - rows.start + 2 * (unit - 1), old)
        self._first, self._end = first, first + known
        strip = -(-DECODED_ROWS // unit) * unit
        for start in range(self._end, end, strip):
            stop = min(start + strip, end)
            self._buffer[start - first : stop - first] = self._decode(
                slice(start, stop), slice(0, self._shape[1])
            )
            self._end = stop

    def _reserve(self, n_rows: int, old: Pixels32) -> None:
        """Make room for rows, with the `old` ones on top."""
        n_rows = min(n_rows, self._shape[0])
        if n_rows > len(self._buffer):
            larger = np.empty((n_rows, self._shape[1]), np.float32)
            larger[: len(old)] = old
            self._buffer = larger
            return
        # Strip by strip: at once, numpy would copy rows that overlap to a temporary array.
        for start in range(0, len(old), STRIP_ROWS):
            self._buffer[start : start + STRIP_ROWS][: len(old) - start] = old[
                start : start + STRIP_ROWS
            ]


def open_pixels(hdus: fits.HDUList, hdu: Any, path: Path) -> Pixels:  # noqa: ANN401 - no types
    """Return the pixels of an image, read in the way that suits its file."""
    if isinstance(hdu, fits.CompImageHDU):
        # Astropy before 7 does not tell.
        rows, columns = getattr(hdu, "tile_shape", hdu.shape)
        if rows > MOST_ROWS:
            return HeldPixels(np.asarray(hdu.data, np.float32))
        return RollingPixels(hdu) if columns >= hdu.shape[1] else CompressedPixels(hdu)
    if _can_be_mapped(hdus, hdu):
        header = hdu.header
        return MappedPixels(path, hdu.fileinfo()["datLoc"], hdu.shape, header["BITPIX"])
    return HeldPixels(np.asarray(hdu.data, np.float32))


def strips(n_rows: int) -> Iterator[slice]:
    """Yield slices of a few rows: what is done to them stays in the processor's cache."""
    for start in range(0, n_rows, STRIP_ROWS):
        yield slice(start, min(start + STRIP_ROWS, n_rows))


def _can_be_mapped(hdus: fits.HDUList, hdu: Any) -> bool:  # noqa: ANN401 - no types
    """Return whether the bytes of the file are the pixels."""
    header = hdu.header
    is_scaled = header.get("BSCALE", 1) != 1 or header.get("BZERO", 0) != 0
    is_packed = hdus.fileinfo(0)["file"].compression is not None
    return not (is_scaled or is_packed or "BLANK" in header) and 0 not in hdu.shape


def _runs(values: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield first and end of each run of equal values."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    yield from itertools.pairwise(edges)
