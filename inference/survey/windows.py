"""Where windows lie on a survey tile, and which window each cell is taken from.

All starts and sizes are multiples of the encoder's alignment, so that cells of neighbouring windows
coincide and a window sees exactly what the whole image would show at the same place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datagen.errors import ConfigError


@dataclass(frozen=True)
class WindowShape:
    """Size and step of windows.

    Args:
        window_px: Side [px].
        stride_px: Step from one window to the next [px].
        halo_px: Border whose scores are dropped where another window has them [px].
        cell_px: Side of a cell [px].
        alignment_px: Starts and sizes are multiples of it [px]; a multiple of the cell.
    """

    window_px: int
    stride_px: int
    halo_px: int
    cell_px: int
    alignment_px: int

    def __post_init__(self) -> None:
        unit = self.alignment_px
        for name in ("window_px", "stride_px", "halo_px"):
            value = getattr(self, name)
            if value % unit:
                low = value // unit * unit
                # A window of no pixels is none; a halo may have none.
                low += 0 if low or name == "halo_px" else unit
                allowed = f"a multiple of {unit}, such as {low} or {low + unit}"
                raise ConfigError(
                    f"expected predict.{name} to be {allowed}, because the encoder's cells and "
                    f"strides repeat every {unit} px, but got predict.{name} = {value}",
                    value=value,
                    allowed=allowed,
                )
        widest = self.window_px - 2 * self.halo_px
        if widest <= 0 or self.stride_px > widest:
            raise ConfigError(
                f"expected predict.stride_px to be at most window_px - 2 halo_px = {widest}, so "
                f"that every cell lies inside some halo, but got predict.stride_px = "
                f"{self.stride_px} with window_px = {self.window_px}, halo_px = {self.halo_px}",
                value=self.stride_px,
                allowed=f"<= {widest}",
            )


@dataclass(frozen=True)
class WindowPlan:
    """The windows of one survey tile, row by row.

    Args:
        tile_shape: Shape (H, W) of the survey tile [px].
        shape: Size and step of the windows.
    """

    tile_shape: tuple[int, int]
    shape: WindowShape

    @property
    def padded_shape(self) -> tuple[int, int]:
        """Shape of the survey tile, padded to whole multiples of the alignment [px]."""
        unit = self.shape.alignment_px
        height, width = self.tile_shape
        return -(-height // unit) * unit, -(-width // unit) * unit

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Number of rows and columns of cells that hold at least one pixel of the tile."""
        cell = self.shape.cell_px
        return -(-self.tile_shape[0] // cell), -(-self.tile_shape[1] // cell)

    @property
    def window_shape(self) -> tuple[int, int]:
        """Shape (h, w) of every window [px]; a small survey tile is one window."""
        height, width = self.padded_shape
        return min(self.shape.window_px, height), min(self.shape.window_px, width)

    @property
    def starts(self) -> list[tuple[int, int]]:
        """First (row, column) of each window [px], row by row."""
        rows, columns = (
            axis_starts(length, size, self.shape.stride_px)
            for length, size in zip(self.padded_shape, self.window_shape, strict=True)
        )
        return [(row, column) for row in rows for column in columns]

    def passed(self, number: int) -> tuple[int, int]:
        """Return what no window after this one shows: pixels above a row and left of a column.

        Args:
            number: Of the window, in the order of `starts`.

        Returns:
            (row, column) [px].
        """
        height, width = self.padded_shape
        starts = self.starts
        if number + 1 == len(starts):
            return height, width
        row, column = starts[number + 1]
        if column == starts[0][1]:
            return row, width
        below = [start[0] for start in starts if start[0] > row]
        return min(below, default=height), column

    def owners(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return, for each row and each column of cells, the start of the window that owns it."""
        cell = self.shape.cell_px
        rows, columns = (
            axis_owners(length, size, self.shape.stride_px, cell)
            for length, size in zip(self.padded_shape, self.window_shape, strict=True)
        )
        return rows, columns


def axis_starts(length: int, size: int, stride: int) -> list[int]:
    """Return the starts of windows that cover `length` pixels; the last one ends with it."""
    if size >= length:
        return [0]
    starts = list(range(0, length - size, stride))
    return [*starts, length - size]


def axis_owners(length: int, size: int, stride: int, cell: int) -> NDArray[np.int64]:
    """Return for each cell along one axis the start of the window it is taken from.

    That is the window in which the cell is farthest from an edge, where an edge that is also the
    edge of the image does not count, since there the whole image looks no different. Among equals
    the first counts.

    Args:
        length: Pixels along the axis, a multiple of the cell.
        size: Window size [px].
        stride: Step between windows [px].
        cell: Cell size [px].

    Returns:
        Starts [px], shape (length // cell,).
    """
    starts = np.array(axis_starts(length, size, stride))
    first = np.arange(0, length, cell)[:, None]
    far = 2 * length
    left = np.where(starts == 0, far, first - starts)
    right = np.where(starts + size >= length, far, starts + size - first - cell)
    margin = np.minimum(first - starts, starts + size - first - cell)
    distance = np.where(margin < 0, -1, np.minimum(left, right))
    owners: NDArray[np.int64] = starts[np.argmax(distance, axis=1)]
    return owners
