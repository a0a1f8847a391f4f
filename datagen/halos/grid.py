"""The pixels of a map, and the finer points at which steep functions are averaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from datagen.halos.cosmology import Array

Surface = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Grid:
    """Pixels around the origin; x runs along columns, y along rows.

    Args:
        side: Side of the map [px].
        scale: Pixel scale [kpc/px].
        fine: Points per pixel and axis.
        finest: The same near the centre.
        centre: Half side of the square that counts as near the centre [kpc].
    """

    side: int
    scale: float
    fine: int
    finest: int
    centre: float

    def axis(self, n_points: int = 1, first: int = 0, last: int | None = None) -> Array:
        """Return coordinates of n points in each of the pixels first to last - 1 [kpc]."""
        last = self.side if last is None else last
        edges = np.arange(first * n_points, last * n_points) + 0.5
        return (edges / n_points - 0.5 * self.side) * self.scale

    def pixels(self) -> tuple[Array, Array]:
        """Return x and y of all pixels, (side, side) each [kpc]."""
        x, y = np.meshgrid(self.axis(), self.axis())
        return x, y

    def average(self, surface: Surface) -> Array:
        """Return the mean of a function of (x, y) in each pixel, (side, side)."""
        whole = self._mean(surface, self.fine, 0, self.side)
        n_centre = min(int(np.ceil(self.centre / self.scale)), self.side // 2)
        if n_centre and self.finest > self.fine:
            first, last = self.side // 2 - n_centre, (self.side + 1) // 2 + n_centre
            whole[first:last, first:last] = self._mean(surface, self.finest, first, last)
        return whole

    def _mean(self, surface: Surface, n_points: int, first: int, last: int) -> Array:
        axis = self.axis(n_points, first, last)
        x, y = np.meshgrid(axis, axis)
        values = surface(x.ravel(), y.ravel())
        n = last - first
        mean: Array = values.reshape(n, n_points, n, n_points).mean((1, 3))
        return mean

    def smear(self) -> float:
        """Return the mean squared distance from the centre inside a pixel [kpc^2].

        What is added to squared radii averages a smooth function over a pixel.
        """
        return self.scale**2 / 6.0
