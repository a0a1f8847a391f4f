"""Puts the planes of overlapping windows together, in an order that never changes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.survey.windows import WindowPlan


class Mosaic:
    """The score map of one survey tile while its windows arrive.

    All planes (scores, redshift, its error, ...) are treated alike. The mean of errors is the error
    of the mean: overlapping windows see the same pixels around a cell, so that their errors are
    fully correlated, and standard deviations of such add up like values. It is never too small,
    since less correlated errors would partly cancel.

    Args:
        plan: The windows.
        blend: `"crop"` takes each cell from the window in which it is farthest from the edge;
            `"taper"` averages with weights that fall off linearly towards the window's edge.
    """

    def __init__(self, plan: WindowPlan, blend: str) -> None:
        self._plan = plan
        self._blend = blend
        self._planes: dict[int, NDArray[np.float32]] = {}

    def add(self, index: int, planes: NDArray[np.float32]) -> None:
        """Keep the planes of one window, shape (..., h / cell, w / cell)."""
        self._planes[index] = planes

    @property
    def is_complete(self) -> bool:
        """Whether all windows have arrived."""
        return len(self._planes) == len(self._plan.starts)

    def result(self) -> NDArray[np.float32]:
        """Return the planes of the whole survey tile, shape (..., *plan.grid_shape)."""
        full = self._cropped() if self._blend == "crop" else self._tapered()
        rows, columns = self._plan.grid_shape
        return np.ascontiguousarray(full[..., :rows, :columns], dtype=np.float32)

    def _cropped(self) -> NDArray[np.float32]:
        cell = self._plan.shape.cell_px
        result = np.full(self._full_shape, np.nan, np.float32)
        row_owner, column_owner = self._plan.owners()
        for index, (row, column) in enumerate(self._plan.starts):
            rows = np.flatnonzero(row_owner == row)[:, None]
            columns = np.flatnonzero(column_owner == column)
            own = self._planes[index][..., rows - row // cell, columns - column // cell]
            result[..., rows, columns] = own
        return result

    def _tapered(self) -> NDArray[np.float32]:
        cell = self._plan.shape.cell_px
        total = np.zeros(self._full_shape)
        weight = np.zeros(self._full_shape[-2:])
        ramp = _ramp(self._plan, cell)
        # Sums in floating point depend on their order: always by window number.
        for index, (row, column) in enumerate(self._plan.starts):
            planes = self._planes[index]
            top, left = row // cell, column // cell
            here = np.s_[..., top : top + planes.shape[-2], left : left + planes.shape[-1]]
            total[here] += ramp * planes
            weight[here] += ramp
        result: NDArray[np.float32] = (total / weight).astype(np.float32)
        return result

    @property
    def _full_shape(self) -> tuple[int, ...]:
        """Shape of the planes of the padded survey tile."""
        height, width = (length // self._plan.shape.cell_px for length in self._plan.padded_shape)
        return (*self._planes[0].shape[:-2], height, width)


def correct_prevalence(
    scores: NDArray[np.float32], trained: float, target: float
) -> NDArray[np.float32]:
    """Move probabilities from the prevalence of the training to that of the survey.

    logit p' = logit p + ln[target / (1 - target)] - ln[trained / (1 - trained)]
    (Elkan 2001, "The foundations of cost-sensitive learning", theorem 2).

    Args:
        scores: Probabilities, any shape.
        trained: Fraction of positive cells in the training.
        target: Fraction of positive cells in the survey.

    Returns:
        Probabilities of the same shape.
    """
    odds_ratio = target / (1 - target) * (1 - trained) / trained
    p = scores.astype(np.float64)
    corrected: NDArray[np.float32] = (p * odds_ratio / (1 - p + p * odds_ratio)).astype(np.float32)
    return corrected


def _ramp(plan: WindowPlan, cell: int) -> NDArray[np.float64]:
    """Return weights over a window's cells, shape (h / cell, w / cell), > 0 everywhere."""
    halo = max(plan.shape.halo_px // cell, 1)
    axes = []
    for size in plan.window_shape:
        position = np.arange(size // cell)
        edge = np.minimum(position, position[::-1]) + 1.0
        axes.append(np.minimum(edge / (halo + 1.0), 1.0))
    return np.outer(axes[0], axes[1])
