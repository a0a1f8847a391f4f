"""Maps of clusters under several cross-sections, from the numbers of the clusters alone.

All cross-sections of a cluster share every random number; so do suites of one seed that differ in
engine, feedback or content.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datagen.halos import render
from datagen.halos.cosmology import Array, Numbers
from datagen.halos.grid import Grid
from datagen.halos.group import Group, prepare
from datagen.halos.prior import draw_rotation
from datagen.halos.settings import HaloSettings
from datagen.halos.sky import Sky
from datagen.halos.truth import columns, row
from datagen.halos.version import CHANNELS


@dataclass(frozen=True)
class Made:
    """Maps and their truth.

    Args:
        maps: (n, channels, side, side), cluster by cluster, in it by cross-section and projection.
        truth: Columns of the table HALOS, (n,) each.
    """

    maps: NDArray[np.float32]
    truth: dict[str, Array]


@dataclass(frozen=True)
class Scene:
    """A cluster from one direction, under any cross-section.

    Args:
        seen: Shapes and positions on the sky.
        sky: Background and noise.
        xray: X-rays of the smooth gas, (side, side) [Lsun/kpc^2].
        gas: Its surface density, (side, side) [Msun/kpc^2].
        satellites: Their stars, (side, side) [Msun/kpc^2].
    """

    seen: render.View
    sky: Sky
    xray: Array
    gas: Array
    satellites: Array


@dataclass(frozen=True)
class Simulator:
    """Simulates clusters of a suite.

    Args:
        settings: The suite.
        seed: Of all streams, >= 0.
        n_projections: Directions from which each cluster is seen.
    """

    settings: HaloSettings
    seed: int
    n_projections: int

    def __call__(self, numbers: Numbers) -> Made:
        """Return all maps of clusters by their numbers, (n,)."""
        group = prepare(self.settings, self.seed, numbers)
        found = [pair for k in range(len(numbers)) for pair in self._of_cluster(group, k)]
        maps = np.stack([image for image, _ in found]).astype(np.float32)
        return Made(maps, columns([facts for _, facts in found]))

    def _of_cluster(self, group: Group, k: int) -> Iterator[tuple[Array, dict[str, float]]]:
        """Yield each map of a cluster with its row of the truth."""
        imaging, number = self.settings.imaging, int(group.clusters.number[k])
        grid = Grid(
            imaging.side,
            imaging.pixel_scale,
            imaging.supersampling,
            imaging.centre_supersampling,
            imaging.centre,
        )
        scenes = [self._scene(group, k, p, grid) for p in range(self.n_projections)]
        n_sigma = len(self.settings.cross_sections)
        for s in range(n_sigma):
            for p, scene in enumerate(scenes):
                index = (number * n_sigma + s) * self.n_projections + p
                image = scene.sky.finish(self._cluster_maps(group, scene, s, grid))
                yield image, {"INDEX": index, "PROJECTION": p, **row(group, scene.seen, s)}

    def _scene(self, group: Group, k: int, projection: int, grid: Grid) -> Scene:
        """Return what all cross-sections share of a cluster from one direction."""
        number = int(group.clusters.number[k])
        seen = render.view(group, k, draw_rotation(self.seed, number, projection))
        redshift = float(group.clusters.redshift[k])
        sky = Sky(self.settings, self.seed, number, projection, redshift)
        return Scene(
            seen,
            sky,
            xray=render.xray_map(group, seen, grid),
            gas=render.gas_map(group, seen, grid),
            satellites=render.satellites_map(group, seen, grid),
        )

    def _cluster_maps(self, group: Group, scene: Scene, s: int, grid: Grid) -> dict[str, Array]:
        """Return each channel, and the surface density of gas, without background."""
        if self.settings.content == "empty":
            return dict.fromkeys((*CHANNELS, "gas"), np.zeros_like(scene.xray))
        bcg = render.bcg_map(group, scene.seen, s, grid)
        mass = render.mass_map(group, scene.seen, s, grid) + bcg
        stars = scene.satellites + bcg
        return {"mass": mass, "xray": scene.xray, "stars": stars, "gas": scene.gas}
