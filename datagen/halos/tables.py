"""Linear interpolation in many tables at once, each on evenly spaced nodes."""

from __future__ import annotations

import numpy as np

from datagen.halos.cosmology import Array


def interpolate(table: Array, start: float, step: float, x: Array) -> Array:
    """Return the values of each table at its own places.

    Args:
        table: Values at start, start + step, ...; (..., K).
        start: First node.
        step: Distance of nodes.
        x: Places, (..., M) with the leading axes of the table; beyond the ends the end counts.

    Returns:
        Values, (..., M).
    """
    at = np.clip((x - start) / step, 0.0, table.shape[-1] - 1.0)
    low = np.minimum(at.astype(np.intp), table.shape[-1] - 2)
    below = np.take_along_axis(table, low, -1)
    above = np.take_along_axis(table, low + 1, -1)
    weight = at - low
    values: Array = below * (1.0 - weight) + above * weight
    return values
