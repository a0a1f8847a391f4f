"""Clusters with everything that does not depend on the direction of view: cores and projections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datagen.halos import baryons, jeans, nfw, parametric, subhalos
from datagen.halos.core import Core
from datagen.halos.cosmology import Array, Numbers
from datagen.halos.dpie import Dpie
from datagen.halos.nfw import Nfw
from datagen.halos.prior import Clusters, Subhalos, bcg, draw_clusters, draw_subhalos
from datagen.halos.projection import tabulate
from datagen.halos.scattering import Scattering
from datagen.halos.settings import HaloSettings

# Halos that merge with none are solved for all the same, at this mass, and not drawn [Msun].
_PLACEHOLDER = 1e13


@dataclass(frozen=True)
class Halos:
    """Halos under each cross-section.

    Args:
        halo: (n,).
        core: (n, S).
        table: ln of their surface densities, inner and outer part, (n, S, 2, K).
    """

    halo: Nfw
    core: Core
    table: Array

    def part(self, which: slice) -> Halos:
        """Return some of the halos."""
        halo = Nfw(*(values[which] for values in vars(self.halo).values()))
        core = Core(*(values[which] for values in vars(self.core).values()))
        return Halos(halo, core, self.table[which])

    def one(self, k: int) -> Nfw:
        """Return one of the halos, arrays of shape ()."""
        return Nfw(self.halo.rho_s[k], self.halo.r_s[k], self.halo.r_200[k])


@dataclass(frozen=True)
class Group:
    """Clusters, solved.

    Args:
        settings: The suite.
        clusters: What was drawn, (n,).
        host: Their halos.
        companion: Merging halos.
        companion_bcg: Stars at the centres of those.
        subhalos: Subhalos of each cluster.
    """

    settings: HaloSettings
    clusters: Clusters
    host: Halos
    companion: Halos
    companion_bcg: Dpie
    subhalos: list[Subhalos]

    def bound(self, k: int, s: int) -> Array:
        """Return the masses of a cluster's subhalos after evaporation, (N,) [Msun]."""
        subs, halo = self.subhalos[k], self.host.one(k)
        r = np.linalg.norm(subs.position, axis=-1) * halo.r_200
        # Subhalos that do not evaporate feel no cross-section.
        sigma = self.host.core.cross_section[k, s] * self.settings.substructure.is_evaporated
        left = subhalos.bound_share(halo, r, sigma, self.clusters.age[k])
        bound: Array = subs.share * self.clusters.mass[k] * left
        return bound

    def smooth_share(self, k: int, s: int) -> float:
        """Return the share of a cluster's mass that is neither in subhalos nor in a merger."""
        taken = self.bound(k, s).sum() + self.clusters.companion.mass[k]
        return float(1.0 - taken / self.clusters.mass[k])

    def wobble(self, k: int, s: int) -> Array:
        """Return the position of the BCG, (3,) [kpc]; it oscillates in the core."""
        core, clusters = self.host.core, self.clusters
        if core.r_1[k, s] == 0.0:
            return np.zeros(3)
        angle = subhalos.wobble_angle(core.rho_0[k, s], clusters.age[k])
        swing = np.cos(clusters.wobble_phase[k] + angle)
        position: Array = clusters.wobble[k] * core.r_half[k, s] * swing
        return position


def prepare(settings: HaloSettings, seed: int, numbers: Numbers) -> Group:
    """Draw clusters by their numbers, (n,), and solve for their cores."""
    drawn = draw_clusters(settings, seed, numbers)
    n = len(numbers)
    # Hosts and companions are solved in one go.
    masses = np.concatenate([drawn.mass, np.maximum(drawn.companion.mass, _PLACEHOLDER)])
    c = np.concatenate([drawn.concentration, drawn.companion.concentration])
    halo = nfw.halo(masses, c, np.tile(drawn.redshift, 2))
    second = bcg(settings.stars, masses[n:], 10.0 ** (-0.08 * drawn.agn))
    pairs = zip(vars(drawn.bcg).values(), vars(second).values(), strict=True)
    stars = Dpie(*(np.concatenate(pair) for pair in pairs))
    solved = _solved(settings, halo, np.tile(drawn.age, 2), stars)
    return Group(
        settings=settings,
        clusters=drawn,
        host=solved.part(slice(n)),
        companion=solved.part(slice(n, None)),
        companion_bcg=second,
        subhalos=[draw_subhalos(settings.substructure, seed, int(k)) for k in numbers],
    )


def _solved(settings: HaloSettings, halo: Nfw, age: Array, stars: Dpie) -> Halos:
    n_sigma = len(settings.cross_sections)
    many = Nfw(*(np.repeat(part[:, None], n_sigma, 1) for part in vars(halo).values()))
    ages = np.repeat(age[:, None], n_sigma, 1)
    sigma = np.broadcast_to(np.asarray(settings.cross_sections, float), ages.shape)
    engine = jeans.solve if settings.engine == "jeans" else parametric.solve
    core = engine(many, sigma, ages, settings.velocity)
    if settings.stars.is_felt:
        column = Dpie(*(part[:, None] + 0.0 * ages for part in vars(stars).values()))
        core = baryons.solve(many, core, Scattering(sigma, ages, settings.velocity), column)
    imaging = settings.imaging
    return Halos(halo, core, tabulate(many, core, imaging.depth, imaging.softening))
