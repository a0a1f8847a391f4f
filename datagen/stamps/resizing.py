"""Changes the number of pixels of an image and keeps its flux.

The cumulative flux along an axis is interpolated by a cubic spline and differenced at the edges of
the new pixels. The sum over all new pixels so is that over all old ones, whatever their numbers,
and new pixels that hold whole old ones hold their exact sum.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

Values = NDArray[np.float64]


@lru_cache(maxsize=64)
def _weights(n_in: int, n_out: int) -> Values:
    """Return what each old pixel adds to each new one (n_out, n_in); columns sum to 1."""
    if n_in == n_out:
        return np.eye(n_in)
    cumulative = np.vstack([np.zeros(n_in), np.cumsum(np.eye(n_in), axis=0)])
    spline = CubicSpline(np.arange(n_in + 1), cumulative, bc_type="natural")
    weights: Values = np.diff(spline(np.linspace(0, n_in, n_out + 1)), axis=0)
    weights.setflags(write=False)
    return weights


def resize(planes: Values, side: int) -> Values:
    """Return square planes with another number of pixels and the same flux.

    Args:
        planes: (..., n, n), n >= 2, flux per pixel.
        side: New number of pixels along an axis.

    Returns:
        (..., side, side); equal to `planes` where side = n.
    """
    weights = _weights(planes.shape[-1], side)
    resized: Values = weights @ planes @ weights.T
    return resized


def noise_factor(n_in: int, n_out: int) -> float:
    """Return by what `resize` multiplies the standard deviation of noise that is white, on average.

    New pixels of n x n old ones have n times their noise; finer pixels have less than old ones, and
    are correlated.
    """
    return float((_weights(n_in, n_out) ** 2).sum(axis=1).mean())
