"""Halos with a core inside a radius and an NFW profile outside, as both engines make them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datagen.halos.cosmology import Array
from datagen.halos.nfw import Nfw, truncation
from datagen.halos.tables import interpolate

# Nodes of a core in ln(r / r_1).
LN_START, N_NODES = -8.0, 161
LN_STEP = -LN_START / (N_NODES - 1)
NODES = LN_START + LN_STEP * np.arange(N_NODES)


@dataclass(frozen=True)
class Core:
    """What self-interaction made of halos, (...); where the cross-section is 0, r_1 is 0.

    Args:
        r_1: Radius inside which the halo differs from NFW; density and mass join there [kpc].
        r_round: Radius inside which the halo is rounder: a particle scatters there once [kpc].
        rho_0: Central density [Msun/kpc^3]; infinite without a core.
        s_1d: Velocity dispersion in one dimension inside r_1 [km/s].
        r_half: Radius of half the central density [kpc].
        cross_section: What counted at the velocity of the particles [cm^2/g].
        ln_density: Natural logarithm of the density at r_1 exp(`NODES`), (..., `N_NODES`).
    """

    r_1: Array
    r_round: Array
    rho_0: Array
    s_1d: Array
    r_half: Array
    cross_section: Array
    ln_density: Array


def density(halo: Nfw, core: Core, r: Array) -> Array:
    """Return the density of halos at radii [Msun/kpc^3].

    Args:
        halo: Halos, (...).
        core: Their cores, (...).
        r: Radii, (..., M) [kpc], > 0.
    """
    outer = halo.expanded()
    found = outer.density(r) * truncation(r, outer.r_200)
    r_1 = core.r_1[..., None]
    is_inside = r < r_1
    ln_ratio = np.log(r / np.where(r_1 > 0.0, r_1, 1.0))
    ln_inner = interpolate(core.ln_density, LN_START, LN_STEP, ln_ratio)
    return np.where(is_inside, np.exp(np.where(is_inside, ln_inner, 0.0)), found)


def half_density_radius(r_1: Array, ln_density: Array) -> Array:
    """Return where the density falls to half its value at the first node [kpc]; at most r_1."""
    is_dense = ln_density > ln_density[..., :1] - np.log(2.0)
    # Number of the last node before the density falls below the half for the first time.
    last = np.clip(np.cumprod(is_dense, -1).sum(-1) - 1, 0, N_NODES - 2)[..., None]
    high, low = (np.take_along_axis(ln_density, k, -1)[..., 0] for k in (last, last + 1))
    goal = ln_density[..., 0] - np.log(2.0)
    part = np.clip((high - goal) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
    radius: Array = r_1 * np.exp(LN_START + LN_STEP * (last[..., 0] + part))
    return radius
