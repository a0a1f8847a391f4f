"""Cores by the isothermal Jeans model in the potential of the stars at the centre.

Hydrostatic equilibrium with one dispersion, d ln rho / d ln r = -G (M + M_stars) / (r s^2), is
integrated from the centre; rho_0 and s are those at which density and mass join the NFW profile at
r_1, where a particle of this dispersion scatters once (Kaplinghat, Keeley, Linden & Yu 2014,
arXiv:1311.6524).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from datagen.halos import jeans
from datagen.halos.core import LN_STEP, N_NODES, NODES, Core, half_density_radius
from datagen.halos.cosmology import GRAVITY, Array, Flags
from datagen.halos.dpie import Dpie
from datagen.halos.nfw import Nfw
from datagen.halos.scattering import Scattering

# A fixed number of steps, so that a halo does not depend on those it is solved with.
_N_NEWTON, _LARGEST_STEP, _DIFFERENCE, _TOLERANCE = 7, 0.5, 1e-4, 1e-4


def solve(halo: Nfw, start: Core, scattering: Scattering, stars: Dpie) -> Core:
    """Return the cores of halos with stars at their centres.

    Where no core joins the halo, as when r_1 exceeds about 3.7 r_s and the core is about to
    collapse, that without baryons stays.

    Args:
        halo: NFW halos, (...).
        start: Their cores without baryons, (...).
        scattering: What made the cores; where there is none its cross-section does not matter.
        stars: Stars at the centre, (...).
    """
    is_cored = start.r_1 > 0.0
    sigma = np.where(is_cored, scattering.cross_section, 1.0)
    scattering = dataclasses.replace(scattering, cross_section=sigma)
    speed = np.where(is_cored, start.s_1d, halo.r_s * np.sqrt(GRAVITY * halo.rho_s))
    state = np.stack([start.ln_density[..., 0], np.log(speed)])
    for _ in range(_N_NEWTON):
        state = state - _newton_step(state, (halo, scattering, stars))
    s_1d = np.exp(state[1])
    r_1 = halo.radius(scattering.density(s_1d))
    ln_density, _ = _integrate(state[0], s_1d, r_1, stars)
    rho_0, r_half = np.exp(ln_density[..., 0]), half_density_radius(r_1, ln_density)
    felt = scattering.at_dispersion(s_1d)
    core = Core(r_1, r_1, rho_0, s_1d, r_half, felt, ln_density)
    misses = np.abs(_mismatch(state, (halo, scattering, stars))).max(0)
    return jeans.without_core(_where(misses < _TOLERANCE, core, start), is_cored)


def _where(is_first: Flags, first: Core, second: Core) -> Core:
    """Return for each halo one of two cores."""
    flags = dict.fromkeys(vars(first), is_first) | {"ln_density": is_first[..., None]}
    values = (np.where(flags[name], a, getattr(second, name)) for name, a in vars(first).items())
    return Core(*values)


def _mismatch(state: Array, problem: tuple[Nfw, Scattering, Dpie]) -> Array:
    """Return by how much ln density and ln mass at r_1 exceed those of the halo, (2, ...)."""
    halo, scattering, stars = problem
    s_1d = np.exp(state[1])
    r_1 = halo.radius(scattering.density(s_1d))
    ln_density, mass = _integrate(state[0], s_1d, r_1, stars)
    ln_excess = ln_density[..., -1] - np.log(halo.density(r_1))
    return np.stack([ln_excess, np.log(mass / halo.mass(r_1))])


def _newton_step(state: Array, problem: tuple[Nfw, Scattering, Dpie]) -> Array:
    """Return what to subtract from (ln rho_0, ln s), at most `_LARGEST_STEP`."""
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


def _integrate(ln_rho: Array, s_1d: Array, r_1: Array, stars: Dpie) -> tuple[Array, Array]:
    """Return ln density at the nodes, (..., `N_NODES`), and the mass within r_1 [Msun].

    Heun's rule in ln r for the density; the mass between nodes is Simpson's for a power law, as the
    density is interpolated.
    """
    radii = r_1[..., None] * np.exp(NODES)
    of_stars = stars.enclosed_at(radii)
    shells = 4.0 * math.pi * radii**3
    pull = GRAVITY / s_1d[..., None] ** 2 / radii
    here = shells[..., 0] * np.exp(ln_rho)
    mass = here / 3.0
    rows = [ln_rho]
    for k in range(N_NODES - 1):
        fall = pull[..., k] * (mass + of_stars[..., k])
        guess = shells[..., k + 1] * np.exp(ln_rho - LN_STEP * fall)
        more = mass + 0.5 * LN_STEP * (here + guess)
        fall_next = pull[..., k + 1] * (more + of_stars[..., k + 1])
        ln_rho = ln_rho - 0.5 * LN_STEP * (fall + fall_next)
        there = shells[..., k + 1] * np.exp(ln_rho)
        mass = mass + LN_STEP / 6.0 * (here + 4.0 * np.sqrt(here * there) + there)
        here = there
        rows.append(ln_rho)
    return np.stack(rows, -1), mass
