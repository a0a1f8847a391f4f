"""Gives sections of one FITS image without holding all of it, by the way it is stored.

| stored as | read by |
|---|---|
| plain image without scaling | `MappedPixels`: mapped into memory; only what is asked for is read |
| compressed in two-dimensional pieces | `CompressedPixels`: decodes the pieces that are touched |
| compressed in whole rows | `RowPixels`: keeps the rows of one row of windows |
| anything else | `HeldPixels`: the whole image in memory |
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

STRIP_ROWS = 64
# Enough to make what astropy does once for each section small.
DECODED_ROWS = 64
# Narrow enough that the memory of a window that is done can be used for what comes.
BLOCK_COLUMNS = 512
# A piece with more rows than this is no strip: to decode it for a single row would be wasteful.
MOST_ROWS = 512
_ALL_ROWS = 1 << 62

Steps = tuple[int, int]
Pixels32 = NDArray[np.float32]


class Pixels(ABC):
    """The pixels of one image, as they stand in its file, in native floats."""

    @property
    def n_kept(self) -> int:
        """Number of images of which decoded rows are kept, planes among them."""
        return 0

    @property
    def n_held(self) -> int:
        """Number of decoded pixels in memory."""
        return 0

    @property
    def rows_decoded(self) -> int:
        """The rows above this one need no more decoding."""
        return _ALL_ROWS

    @abstractmethod
    def read(self, rows: slice, columns: slice, out: Pixels32) -> None:
        """Write a section, both slices with start and stop, to `out` of its shape (h, w)."""

    @abstractmethod
    def sample(self, steps: Steps) -> Pixels32:
        """Return every n-th row and column, from the first."""

    def forget(self, row: int, column: int) -> None:  # noqa: B027 - most keep nothing
        """Give back the memory of what lies above `row` and left of `column`."""

    def decode_ahead(self, room: int) -> bool:
        """Decode the next rows if they are at most `room` pixels; return whether it did."""
        return False


class HeldPixels(Pixels):
    """An image in memory, or mapped into it.

    Args:
        image: Shape (H, W), any numbers in any byte order.
        n_held: How many of them are in memory.
    """

    def __init__(self, image: Any, n_held: int) -> None:  # noqa: ANN401 - is indexed only
        self._image = image
        self._n_held = n_held

    @property
    def n_held(self) -> int:
        """Number of decoded pixels in memory."""
        return self._n_held

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
        super().__init__(np.memmap(path, dtype, "r", offset, shape), n_held=0)


class CompressedPixels(Pixels):
    """A tile-compressed image; each section decodes the pieces that it touches.

    Args:
        section: Gives decoded pixels when indexed with slices.
        shape: (H, W) of the image.
        piece_rows: Height of a piece.
    """

    def __init__(
        self,
        section: Any,  # noqa: ANN401 - astropy has no types
        shape: tuple[int, int],
        piece_rows: int,
    ) -> None:
        self._section = section
        self._shape = shape
        self._piece_rows = piece_rows

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


class RowPixels(CompressedPixels):
    """An image that is compressed in whole rows, whose sections are asked for from top to bottom.

    Strips of rows are decoded once and kept in blocks until they are forgotten: of the windows
    that are done, the left blocks give their memory to rows that are decoded ahead.
    """

    def __init__(
        self,
        section: Any,  # noqa: ANN401 - astropy has no types
        shape: tuple[int, int],
        piece_rows: int,
    ) -> None:
        super().__init__(section, shape, piece_rows)
        self._strip_rows = -(-DECODED_ROWS // self._piece_rows) * self._piece_rows
        self._blocks: dict[tuple[int, int], Pixels32] = {}
        self._n_held = self._rows_decoded = 0

    @property
    def n_kept(self) -> int:
        """Number of images of which decoded rows are kept."""
        return 1

    @property
    def n_held(self) -> int:
        """Number of decoded pixels in memory."""
        return self._n_held

    @property
    def rows_decoded(self) -> int:
        """The rows above this one need no more decoding."""
        return self._rows_decoded

    def read(self, rows: slice, columns: slice, out: Pixels32) -> None:
        """Write a section, both slices with start and stop, to `out` of its shape (h, w)."""
        for strip, above in _parts(rows, self._strip_rows):
            for number, left in _parts(columns, BLOCK_COLUMNS):
                if (strip, number) not in self._blocks:
                    self._decode_strip(strip)
                part = self._blocks[strip, number][slice(*above), slice(*left)]
                top = strip * self._strip_rows + above[0] - rows.start
                start = number * BLOCK_COLUMNS + left[0] - columns.start
                np.copyto(out[top : top + part.shape[0], start : start + part.shape[1]], part)

    def forget(self, row: int, column: int) -> None:
        """Give back the memory of what lies above `row` and left of `column`."""
        height, width = self._shape
        for strip, number in list(self._blocks):
            bottom = min((strip + 1) * self._strip_rows, height)
            if bottom <= row and min((number + 1) * BLOCK_COLUMNS, width) <= column:
                self._n_held -= self._blocks.pop((strip, number)).size

    def decode_ahead(self, room: int) -> bool:
        """Decode the next rows if they are at most `room` pixels; return whether it did."""
        height, width = self._shape
        n_rows = min(self._strip_rows, height - self.rows_decoded)
        if n_rows == 0 or n_rows * width > room:
            return False
        self._decode_strip(self.rows_decoded // self._strip_rows)
        return True

    def _decode_strip(self, strip: int) -> None:
        """Keep the blocks of a strip of rows."""
        height, width = self._shape
        first = strip * self._strip_rows
        rows = slice(first, min(first + self._strip_rows, height))
        image = self._decode(rows, slice(0, width))
        for number, left in enumerate(range(0, width, BLOCK_COLUMNS)):
            part = image[:, left : left + BLOCK_COLUMNS]
            known = self._blocks.get((strip, number))
            self._n_held += part.size if known is None else 0
            self._blocks[strip, number] = part.astype(np.float32, casting="unsafe")
        self._rows_decoded = max(self._rows_decoded, rows.stop)


def open_pixels(hdus: fits.HDUList, hdu: Any, path: Path) -> Pixels:  # noqa: ANN401 - no types
    """Return the pixels of an image, read in the way that suits its file."""
    if can_be_streamed(hdu):
        return stream_pixels(hdu.section, hdu)
    if can_be_mapped(hdus, hdu):
        header = hdu.header
        return MappedPixels(path, hdu.fileinfo()["datLoc"], hdu.shape, header["BITPIX"])
    return HeldPixels(np.asarray(hdu.data, np.float32), int(np.prod(hdu.shape)))


def can_be_streamed(hdu: Any) -> bool:  # noqa: ANN401 - no types
    """Return whether an image is compressed in pieces of few rows."""
    # Astropy before 7 does not tell.
    pieces = getattr(hdu, "tile_shape", hdu.shape)
    return isinstance(hdu, fits.CompImageHDU) and pieces[0] <= MOST_ROWS


def stream_pixels(section: Any, hdu: Any) -> CompressedPixels:  # noqa: ANN401 - no types
    """Return the pixels of a compressed image, decoded when they are asked for.

    Args:
        section: Gives decoded pixels when indexed: that of the HDU, or something above it.
        hdu: Says how it is compressed; see `can_be_streamed`.
    """
    shape = (int(hdu.shape[0]), int(hdu.shape[1]))
    rows, columns = hdu.tile_shape
    kind = RowPixels if columns >= shape[1] else CompressedPixels
    return kind(section, shape, int(rows))


class Decoder(Protocol):
    """What can decode ahead: the pixels of a file, or the file."""

    @property
    def rows_decoded(self) -> int:
        """The rows above this one need no more decoding."""

    def decode_ahead(self, room: int) -> bool:
        """Decode the next rows if they are at most `room` pixels; return whether it did."""


def decode_first(room: int, images: Iterable[Decoder]) -> bool:
    """Decode the next rows of the image that is behind the others; return whether there are any.

    Args:
        room: Rows of at most so many pixels.
        images: What keeps pace: a section is asked of all of them.
    """
    behind = sorted(images, key=lambda pixels: pixels.rows_decoded)
    return any(pixels.decode_ahead(room) for pixels in behind)


def strips(n_rows: int) -> Iterator[slice]:
    """Yield slices of a few rows: what is done to them stays in the processor's cache."""
    for start in range(0, n_rows, STRIP_ROWS):
        yield slice(start, min(start + STRIP_ROWS, n_rows))


def can_be_mapped(hdus: fits.HDUList, hdu: Any) -> bool:  # noqa: ANN401 - no types
    """Return whether the bytes of the file are the pixels."""
    if isinstance(hdu, fits.CompImageHDU):
        return False
    header = hdu.header
    is_scaled = header.get("BSCALE", 1) != 1 or header.get("BZERO", 0) != 0
    is_packed = hdus.fileinfo(0)["file"].compression is not None
    return not (is_scaled or is_packed or "BLANK" in header) and 0 not in hdu.shape


def _parts(wanted: slice, size: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield the blocks of a size that a slice touches: their number, and what of them."""
    for number in range(wanted.start // size, -(-wanted.stop // size)):
        first = number * size
        yield number, (max(wanted.start - first, 0), min(wanted.stop - first, size))


def _runs(values: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield first and end of each run of equal values."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    yield from itertools.pairwise(edges)
