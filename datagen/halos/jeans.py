"""Cores by the isothermal Jeans model (Kaplinghat, Tulin & Yu 2016, arXiv:1508.03339).

Inside r_1, where a particle scatters once in the age of the halo,

    rho_NFW(r_1) (sigma/m) <v_rel> t = 1,    <v_rel> = (4 / sqrt(pi)) s,

the halo is an isothermal sphere that holds the same mass and has the same density at r_1 as the NFW
profile it came from (Robertson et al. 2021, arXiv:2009.07844). With baryons it lies in their
potential as well.
"""

from __future__ import annotations

import math

import numpy as np

from datagen.halos import isothermal
from datagen.halos.core import NODES, Core, half_density_radius
from datagen.halos.cosmology import GRAVITY, Array, Flags
from datagen.halos.nfw import Nfw
from datagen.halos.scattering import Scattering

# The least r_1 that is looked for [r_s].
_X_MIN, _N_HALVINGS = 1e-6, 60


def solve(halo: Nfw, cross_section: Array, age: Array, velocity: float | None = None) -> Core:
    """Return the cores of halos without baryons.

    Where r_1 would exceed about 4 r_s no isothermal sphere joins the halo; r_1 then stays there,
    and its core is the densest possible, at the edge of collapse.

    Args:
        halo: NFW halos, (...).
        cross_section: sigma/m at low velocity, (...) [cm^2/g], >= 0.
        age: Time since the halo formed, (...) [Gyr].
        velocity: w in sigma = sigma_0 / (1 + <v_rel>^2 / w^2) [km/s]; None: no dependence.
    """
    sphere = isothermal.table()
    halo, cross_section, age = broadcast(halo, cross_section, age)
    is_cored = cross_section > 0.0
    scattering = Scattering(np.where(is_cored, cross_section, 1.0), age, velocity)
    low = np.log(_X_MIN) + np.zeros_like(age)
    high = np.log(_x_max(float(sphere.q[-1]))) + np.zeros_like(age)
    for _ in range(_N_HALVINGS):
        middle = 0.5 * (low + high)
        r_1 = halo.r_s * np.exp(middle)
        is_within = halo.density(r_1) > scattering.density(_sphere_at(halo, r_1)[2])
        low, high = np.where(is_within, middle, low), np.where(is_within, high, middle)
    r_1 = halo.r_s * np.exp(0.5 * (low + high))
    ln_x1, rho_0, s_1d = _sphere_at(halo, r_1)
    ln_y = np.interp(ln_x1[..., None] + NODES, sphere.ln_x, sphere.ln_y)
    ln_density = np.log(rho_0)[..., None] + ln_y
    r_half, sigma = half_density_radius(r_1, ln_density), scattering.at_dispersion(s_1d)
    core = Core(r_1, r_1, rho_0, s_1d, r_half, sigma, ln_density)
    return without_core(core, is_cored)


def without_core(core: Core, is_cored: Flags) -> Core:
    """Return cores of which only some are there: the others get r_1 = 0."""
    return Core(
        r_1=np.where(is_cored, core.r_1, 0.0),
        r_round=np.where(is_cored, core.r_round, 0.0),
        rho_0=np.where(is_cored, core.rho_0, np.inf),
        s_1d=np.where(is_cored, core.s_1d, 0.0),
        r_half=np.where(is_cored, core.r_half, 0.0),
        cross_section=np.where(is_cored, core.cross_section, 0.0),
        ln_density=core.ln_density,
    )


def broadcast(halo: Nfw, cross_section: Array, age: Array) -> tuple[Nfw, Array, Array]:
    """Return halos, cross-sections and ages in one shape."""
    parts = np.broadcast_arrays(halo.rho_s, halo.r_s, halo.r_200, cross_section, age)
    return Nfw(*parts[:3]), parts[3], parts[4]


def _x_max(q_max: float) -> float:
    """Return r / r_s at which M / (4 pi r^3 rho) of an NFW halo reaches q_max."""
    x = np.geomspace(0.1, 20.0, 4001)
    q = (1.0 + x) ** 2 / x**2 * (np.log1p(x) - x / (1.0 + x))
    return float(np.interp(q_max, q, x))


def _sphere_at(halo: Nfw, r_1: Array) -> tuple[Array, Array, Array]:
    """Return ln(r_1 / r_0), rho_0 and s of the spheres that join the halos at r_1."""
    sphere = isothermal.table()
    rho_1 = halo.density(r_1)
    q = halo.mass(r_1) / (4.0 * math.pi * r_1**3 * rho_1)
    ln_x1 = np.interp(q, sphere.q, sphere.ln_x)
    rho_0 = rho_1 * np.exp(-np.interp(ln_x1, sphere.ln_x, sphere.ln_y))
    s_1d = r_1 * np.exp(-ln_x1) * np.sqrt(4.0 * math.pi * GRAVITY * rho_0)
    return ln_x1, rho_0, s_1d
