"""Cores by the isothermal Jeans model in the potential of the stars at the centre.

Hydrostatic equilibrium with one dispersion, d ln rho / d ln r = -G (M + M_stars) / (r s^2), is
integrated from the centre; rho_0 and r_1 are those at which density and mass join the NFW profile,
and s follows from r_1 as without baryons (Kaplinghat, Keeley, Linden & Yu 2014, arXiv:1311.6524).
"""

from __future__ import annotations

import math

import numpy as np

from datagen.halos import jeans
from datagen.halos.core import LN_STEP, N_NODES, NODES, Core, half_density_radius
from datagen.halos.cosmology import CM2_PER_G, GRAVITY, GYR, Array, Flags
from datagen.halos.dpie import Dpie
from datagen.halos.nfw import Nfw

# The mass of the stars is raised in steps, from what is known without them.
_SHARES = (0.1, 0.3, 0.6, 1.0)
_N_NEWTON, _LARGEST_STEP, _DIFFERENCE, _TOLERANCE = 5, 0.5, 1e-4, 1e-4


def solve(halo: Nfw, start: Core, age: Array, stars: Dpie) -> Core:
    """Return the cores of halos with stars at their centres.

    Where no core joins the halo, as when r_1 exceeds about 3.7 r_s and the core is about to
    collapse, that without baryons stays.

    Args:
        halo: NFW halos, (...).
        start: Their cores without baryons, (...).
        age: Time since the halo formed, (...) [Gyr].
        stars: Stars at the centre, (...).
    """
    is_cored = start.r_1 > 0.0
    sigma = np.where(is_cored, start.cross_section, 1.0)
    state = np.stack([start.ln_density[..., 0], np.log(np.where(is_cored, start.r_1, halo.r_s))])
    for share in _SHARES:
        part = Dpie(share * stars.mass, stars.core, stars.edge)
        for _ in range(_N_NEWTON):
            state = state - _newton_step(state, (halo, sigma * age, part))
    r_1 = np.exp(state[1])
    s_1d = _dispersion(halo, sigma * age, r_1)
    ln_density, _ = _integrate(state, s_1d, stars)
    rho_0, r_half = np.exp(ln_density[..., 0]), half_density_radius(r_1, ln_density)
    core = Core(r_1, rho_0, s_1d, r_half, sigma, ln_density)
    misses = np.abs(_mismatch(state, (halo, sigma * age, stars))).max(0)
    return jeans.without_core(_where(misses < _TOLERANCE, core, start), is_cored)


def _where(is_first: Flags, first: Core, second: Core) -> Core:
    """Return for each halo one of two cores."""
    flags = dict.fromkeys(vars(first), is_first) | {"ln_density": is_first[..., None]}
    values = (np.where(flags[name], a, getattr(second, name)) for name, a in vars(first).items())
    return Core(*values)


def _dispersion(halo: Nfw, sigma_age: Array, r_1: Array) -> Array:
    """Return s from one scattering per particle at r_1 [km/s]."""
    s_1d: Array = GYR / (halo.density(r_1) * sigma_age * CM2_PER_G * jeans.RELATIVE)
    return s_1d


def _mismatch(state: Array, problem: tuple[Nfw, Array, Dpie]) -> Array:
    """Return by how much ln density and ln mass at r_1 exceed those of the halo, (2, ...)."""
    halo, sigma_age, stars = problem
    r_1 = np.exp(state[1])
    ln_density, mass = _integrate(state, _dispersion(halo, sigma_age, r_1), stars)
    ln_excess = ln_density[..., -1] - np.log(halo.density(r_1))
    return np.stack([ln_excess, np.log(mass / halo.mass(r_1))])


def _newton_step(state: Array, problem: tuple[Nfw, Array, Dpie]) -> Array:
    """Return what to subtract from (ln rho_0, ln r_1), at most `_LARGEST_STEP`."""
    here = _mismatch(state, problem)
    columns = []
    for k in range(2):
        moved = state.copy()
        moved[k] += _DIFFERENCE
        columns.append((_mismatch(moved, problem) - here) / _DIFFERENCE)
    (a, c), (b, d) = columns
    step = np.stack([d * here[0] - b * here[1], a * here[1] - c * here[0]]) / (a * d - b * c)
    # Without a solution nearby a step may be anything; it must stay finite.
    finite: Array = np.nan_to_num(np.clip(step, -_LARGEST_STEP, _LARGEST_STEP))
    return finite


def _integrate(state: Array, s_1d: Array, stars: Dpie) -> tuple[Array, Array]:
    """Return ln density at the nodes, (..., `N_NODES`), and the mass within r_1 [Msun].

    Heun's rule in ln r.
    """
    ln_rho, r_1 = state[0], np.exp(state[1])
    radii = r_1[..., None] * np.exp(NODES)
    with_stars = stars.enclosed_at(radii)
    mass = 4.0 * math.pi / 3.0 * radii[..., 0] ** 3 * np.exp(ln_rho)
    rows = [ln_rho]
    weight = GRAVITY / s_1d**2

    def slopes(k: int, ln_rho: Array, mass: Array) -> tuple[Array, Array]:
        r = radii[..., k]
        return -weight * (mass + with_stars[..., k]) / r, 4.0 * math.pi * r**3 * np.exp(ln_rho)

    for k in range(N_NODES - 1):
        fall, gain = slopes(k, ln_rho, mass)
        fall_next, gain_next = slopes(k + 1, ln_rho + LN_STEP * fall, mass + LN_STEP * gain)
        ln_rho = ln_rho + 0.5 * LN_STEP * (fall + fall_next)
        mass = mass + 0.5 * LN_STEP * (gain + gain_next)
        rows.append(ln_rho)
    return np.stack(rows, -1), mass
