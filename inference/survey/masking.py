"""Counts the masked pixels of each cell while the windows of a survey tile pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.survey.windows import WindowPlan


class MaskCount:
    """Counts each masked pixel once, in the first window that shows it.

    Args:
        plan: The windows; they come in its order.
    """

    def __init__(self, plan: WindowPlan) -> None:
        self._plan = plan
        self._counts = np.zeros(plan.grid_shape, np.int64)
        starts = plan.starts
        axes = [sorted({start[axis] for start in starts}) for axis in (0, 1)]
        self._fresh = [
            _fresh(axis, size, length)
            for axis, size, length in zip(axes, plan.window_shape, plan.tile_shape, strict=True)
        ]

    def add(self, start: tuple[int, int], first_row: int, masked: NDArray[np.bool_]) -> None:
        """Count the pixels of some rows of a window that no window before has shown.

        Args:
            start: First (row, column) of the window [px].
            first_row: First of the rows, counted from that of the window [px].
            masked: Which pixels on the survey tile are masked in any band, shape (n rows, w).
        """
        cell = self._plan.shape.cell_px
        rows, columns = (fresh[first] for fresh, first in zip(self._fresh, start, strict=True))
        edges = np.arange(columns.start, columns.stop, cell) - columns.start
        origin = start[0] + first_row
        top, end = max(rows.start, origin), min(rows.stop, origin + len(masked))
        while top < end:
            bottom = min((top // cell + 1) * cell, end)
            strip = masked[top - origin : bottom - origin]
            counts = strip[:, columns.start - start[1] : columns.stop - start[1]].sum(axis=0)
            left = columns.start // cell
            self._counts[top // cell, left : left + len(edges)] += np.add.reduceat(counts, edges)
            top = bottom

    def fraction(self) -> NDArray[np.float32]:
        """Return which fraction of each cell's pixels is masked in any band, `plan.grid_shape`."""
        cell = self._plan.shape.cell_px
        height, width = (
            np.minimum(length - np.arange(n) * cell, cell)
            for length, n in zip(self._plan.tile_shape, self._plan.grid_shape, strict=True)
        )
        result: NDArray[np.float32] = (self._counts / np.outer(height, width)).astype(np.float32)
        return result


def _fresh(starts: list[int], size: int, length: int) -> dict[int, slice]:
    """Return for the start of each window along one axis the pixels that those before lack."""
    ends = [min(start + size, length) for start in starts]
    firsts = [0, *ends[:-1]]
    return {
        start: slice(first, end) for start, first, end in zip(starts, firsts, ends, strict=True)
    }
