"""What a simulation without noise shows of a cluster from one direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from datagen.halos import gas, subhalos
from datagen.halos.cosmology import Array
from datagen.halos.dpie import Dpie
from datagen.halos.grid import Grid
from datagen.halos.group import Group
from datagen.halos.projection import Ellipse, at_radius, flattened, project

# A potential is about half as flattened as the mass that makes it; gas follows it.
_GAS_FLATTENING = 0.5


@dataclass(frozen=True)
class View:
    """A cluster from one direction.

    Args:
        k: Place of the cluster in its group.
        rotation: From the cluster's own axes to (x, y, depth), (3, 3).
        outer: The outer part of its halo.
        inner: The part inside about r_round, which self-interaction makes rounder.
        gas: Its gas.
    """

    k: int
    rotation: Array
    outer: Ellipse
    inner: Ellipse
    gas: Ellipse

    def place(self, position: Array) -> Array:
        """Return x and y of positions in the cluster, (..., 3) to (..., 2)."""
        placed: Array = (position @ self.rotation.T)[..., :2]
        return placed


def view(group: Group, k: int, rotation: Array) -> View:
    """Look at a cluster of a group from a direction."""
    axes = group.clusters.axes[k]
    rounder = flattened(axes, 1.0 - group.settings.population.roundness)
    return View(
        k,
        rotation,
        outer=project(axes, rotation),
        inner=project(rounder, rotation),
        gas=project(flattened(axes, _GAS_FLATTENING), rotation),
    )


def mass_map(group: Group, seen: View, s: int, grid: Grid) -> Array:
    """Return the surface density of a cluster but for its BCG, (side, side) [Msun/kpc^2]."""
    k = seen.k
    (inner, outer), has_core = group.host.table[k, s], group.host.core.r_1[k, s] > 0.0
    share = group.smooth_share(k, s)

    def host(x: Array, y: Array) -> Array:
        beyond = at_radius(outer, seen.outer.radius2(x, y)) * seen.outer.stretch
        if not has_core:
            return share * beyond
        return share * (beyond + at_radius(inner, seen.inner.radius2(x, y)) * seen.inner.stretch)

    total = grid.average(host)
    halo = group.host.one(k)
    position = group.subhalos[k].position * halo.r_200
    radius = np.linalg.norm(position, axis=-1)
    first = group.subhalos[k].share * group.clusters.mass[k]
    softening = group.settings.imaging.softening
    dark = subhalos.dark(halo, first, radius, softening)
    bound = Dpie(group.bound(k, s), dark.core, dark.edge)
    total += subhalos.surface(bound, seen.place(position), grid.pixels(), grid.smear())
    if group.clusters.companion.mass[k] > 0.0:
        x_0, y_0 = seen.place(group.clusters.companion.position[k])
        second = np.logaddexp(*group.companion.table[k, s])
        total += grid.average(lambda x, y: at_radius(second, (x - x_0) ** 2 + (y - y_0) ** 2))
    return total


def satellites_map(group: Group, seen: View, grid: Grid) -> Array:
    """Return the surface density of the stars of satellites, (side, side) [Msun/kpc^2]."""
    k, subs = seen.k, group.subhalos[seen.k]
    masses = group.settings.stars.satellite_share * subs.share * group.clusters.mass[k]
    place = seen.place(subs.position * group.host.halo.r_200[k])
    return subhalos.surface(subhalos.stars(masses), place, grid.pixels(), grid.smear())


def xray_map(group: Group, seen: View, grid: Grid) -> Array:
    """Return the X-rays of the smooth gas, (side, side) [Lsun/kpc^2]."""
    return _gas_map(group, seen, grid, gas.Gas.surface)


def gas_map(group: Group, seen: View, grid: Grid) -> Array:
    """Return the surface density of the smooth gas, (side, side) [Msun/kpc^2]."""
    return _gas_map(group, seen, grid, gas.Gas.column)


def _gas_map(
    group: Group, seen: View, grid: Grid, show: Callable[[gas.Gas, Array], Array]
) -> Array:
    """Return what the gas of a cluster, and of a merging halo, shows at squared radii."""
    k, clusters, settings = seen.k, group.clusters, group.settings.gas
    fraction = settings.fraction * 10.0 ** (-0.1 * clusters.agn[k])
    beta = float(clusters.beta[k])
    main = gas.emission(
        group.host.one(k), fraction, float(clusters.gas_core[k]), beta, bool(clusters.is_cool[k])
    )
    total = grid.average(lambda x, y: show(main, seen.gas.radius2(x, y)))
    if clusters.companion.mass[k] > 0.0:
        halo = group.companion.one(k)
        core = settings.core * 10.0 ** (0.15 * clusters.agn[k]) * float(halo.r_200)
        second = gas.emission(halo, fraction, core, beta, False)
        x_0, y_0 = seen.place(clusters.companion.position[k])
        total += grid.average(lambda x, y: show(second, (x - x_0) ** 2 + (y - y_0) ** 2))
    return total


def bcg_map(group: Group, seen: View, s: int, grid: Grid) -> Array:
    """Return the stars of the BCG, and of that of a merging halo, (side, side) [Msun/kpc^2]."""
    k = seen.k
    found = _stars_at(group.clusters.bcg, k, seen.place(group.wobble(k, s)), grid)
    if group.clusters.companion.mass[k] > 0.0:
        place = seen.place(group.clusters.companion.position[k])
        found += _stars_at(group.companion_bcg, k, place, grid)
    return found


def _stars_at(bcgs: Dpie, k: int, place: Array, grid: Grid) -> Array:
    stars = Dpie(bcgs.mass[k], bcgs.core[k], bcgs.edge[k])
    return grid.average(lambda x, y: stars.projected((x - place[0]) ** 2 + (y - place[1]) ** 2))
