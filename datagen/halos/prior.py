"""What is drawn for each cluster: from streams that know neither cross-section nor engine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri
from scipy.stats import poisson

from datagen.distributions import Distribution
from datagen.halos import nfw
from datagen.halos.cosmology import Array, Flags, Numbers
from datagen.halos.dpie import Dpie
from datagen.halos.power_laws import power_law
from datagen.halos.settings import HaloSettings, StarsSettings
from datagen.halos.substructure import SubstructureSettings
from datagen.seeds import stream

# Core radius of the distribution of subhalos [r_200].
_SUBHALO_CORE = 0.37
# Scatter of the logarithm of the BCG's amplitude.
_WOBBLE_SCATTER = 0.5


@dataclass(frozen=True)
class Companion:
    """A merging halo, (n,); its mass is 0 in clusters that do not merge.

    Args:
        mass: M_200 [Msun].
        concentration: r_200 / r_s.
        position: From the centre of the cluster, (n, 3) [kpc].
    """

    mass: Array
    concentration: Array
    position: Array


@dataclass(frozen=True)
class Clusters:
    """What defines clusters before self-interaction, (n,) each.

    Args:
        number: Their numbers.
        mass: M_200 [Msun].
        redshift: Redshift.
        concentration: r_200 / r_s.
        age: [Gyr].
        axes: Half axes of the halo, of product 1, along its own axes, (n, 3).
        agn: Strength of feedback.
        beta: Slope of the gas.
        gas_core: Core radius of the gas [kpc].
        is_cool: Whether the core is cool.
        bcg: Stars of the BCG.
        wobble: Position of the BCG in units of the half-density radius, at rest, (n, 3).
        wobble_phase: Phase of its oscillation [rad].
        companion: Merging halo.
    """

    number: Numbers
    mass: Array
    redshift: Array
    concentration: Array
    age: Array
    axes: Array
    agn: Array
    beta: Array
    gas_core: Array
    is_cool: Flags
    bcg: Dpie
    wobble: Array
    wobble_phase: Array
    companion: Companion


@dataclass(frozen=True)
class Subhalos:
    """Subhalos of one cluster, (N,).

    Args:
        share: Their masses at first [M_200].
        position: From the centre of the cluster, (N, 3) [r_200].
    """

    share: Array
    position: Array


def draw_clusters(settings: HaloSettings, seed: int, numbers: Numbers) -> Clusters:
    """Draw clusters by their numbers, (n,)."""
    u = {
        name: np.stack([stream(seed, int(k), name).random(8) for k in numbers]).T
        for name in ("halo", "gas", "stars", "merger")
    }
    population, gas = settings.population, settings.gas
    mass = power_law(u["halo"][0], population.m_min, population.m_max, population.slope + 1.0)
    redshift = quantile(population.distribution("redshift"), u["halo"][1])
    excess = ndtri(u["halo"][2])
    concentration = _concentration(settings, mass, redshift, excess)
    # A normal number that is correlated with the excess of concentration gives the age.
    correlation = population.age_correlation
    older = correlation * excess + math.sqrt(1.0 - correlation**2) * ndtri(u["halo"][3])
    agn = quantile(gas.distribution("agn"), u["gas"][0])
    core = gas.core * 10.0 ** (gas.core_scatter * ndtri(u["gas"][2]) + 0.15 * agn)
    smallest = quantile(population.distribution("axis_ratio"), u["halo"][4])
    stars = bcg(settings.stars, mass, 10.0 ** (settings.stars.scatter * ndtri(u["stars"][0])))
    size = settings.stars.wobble * np.exp(_WOBBLE_SCATTER * ndtri(u["stars"][1]))
    return Clusters(
        number=numbers,
        mass=mass,
        redshift=redshift,
        concentration=concentration,
        age=quantile(population.distribution("age"), _share_below(older)),
        axes=_axes(smallest, u["halo"][5]),
        agn=agn,
        beta=quantile(gas.distribution("beta"), u["gas"][1]),
        gas_core=core * nfw.halo(mass, concentration, redshift).r_200,
        is_cool=u["gas"][3] < gas.cool_share,
        bcg=Dpie(stars.mass * 10.0 ** (-0.08 * agn), stars.core, stars.edge),
        wobble=size[:, None] * directions(u["stars"][2], u["stars"][3]),
        wobble_phase=2.0 * math.pi * u["stars"][4],
        companion=_companion(settings, u["merger"], mass, redshift),
    )


def draw_subhalos(settings: SubstructureSettings, seed: int, number: int) -> Subhalos:
    """Draw the subhalos of a cluster, with a number density ~ 1 / (1 + (r / 0.37 r_200)^2).

    Diemand, Moore & Stadel 2004, MNRAS 352, 535 (arXiv:astro-ph/0402160).
    """
    rng = stream(seed, number, "substructure")
    count = int(poisson.ppf(rng.random(), settings.n_subhalos)) if settings.n_subhalos else 0
    u = rng.random((count, 4)).T
    share = power_law(u[0], settings.share_min, settings.share_max, settings.slope)
    radii = np.linspace(0.0, 1.0, 501)
    below = radii - _SUBHALO_CORE * np.arctan(radii / _SUBHALO_CORE)
    distance = np.interp(u[1], below / below[-1], radii)
    return Subhalos(share, distance[:, None] * directions(u[2], u[3]))


def draw_rotation(seed: int, number: int, projection: int) -> Array:
    """Draw a random rotation from a cluster's own axes to the sky and depth, (3, 3)."""
    w, x, y, z = _unit(stream(seed, number, f"projection_{projection}").standard_normal(4))
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def bcg(settings: StarsSettings, mass: Array, factor: Array) -> Dpie:
    """Return the stars of BCGs in halos of given M_200 [Msun]; their size grows as their mass."""
    relative = (mass / 5e14) ** settings.slope * factor
    size = np.sqrt(relative)
    return Dpie(settings.mass * relative, settings.core * size, settings.edge * size)


def quantile(distribution: Distribution, u: Array) -> Array:
    """Return the values below which a distribution has the shares u."""
    found: Array = distribution.quantile(torch.from_numpy(np.ascontiguousarray(u))).numpy()
    return found


def directions(u: Array, v: Array) -> Array:
    """Return isotropic unit vectors from uniform numbers, (n, 3)."""
    cosine, angle = 2.0 * u - 1.0, 2.0 * math.pi * v
    sine = np.sqrt(1.0 - cosine**2)
    return np.stack([sine * np.cos(angle), sine * np.sin(angle), cosine], -1)


def _concentration(settings: HaloSettings, mass: Array, z: Array, excess: Array) -> Array:
    scatter = settings.population.concentration_scatter
    # More than three standard deviations would be a halo that no simulation has.
    return nfw.mean_concentration(mass, z) * 10.0 ** (scatter * np.clip(excess, -3.0, 3.0))


def _share_below(normal: Array) -> Array:
    return torch.special.ndtr(torch.from_numpy(np.ascontiguousarray(normal))).numpy()  # type: ignore[no-any-return]


def _axes(smallest: Array, u: Array) -> Array:
    # The middle axis lies in the middle half of what is possible.
    middle = smallest + (1.0 - smallest) * (0.25 + 0.5 * u)
    axes = np.stack([np.ones_like(u), middle, smallest], -1)
    normalised: Array = axes / np.prod(axes, -1, keepdims=True) ** (1.0 / 3.0)
    return normalised


def _companion(settings: HaloSettings, u: Array, mass: Array, z: Array) -> Companion:
    sub = settings.substructure
    share = quantile(sub.distribution("merger_mass"), u[1])
    own = mass * np.where(u[0] < sub.merger_share, share, 0.0)
    distance = quantile(sub.distribution("merger_distance"), u[2])
    concentration = _concentration(settings, mass * share, z, ndtri(u[5]))
    return Companion(own, concentration, distance[:, None] * directions(u[3], u[4]))


def _unit(vector: Array) -> Array:
    return vector / np.linalg.norm(vector)
