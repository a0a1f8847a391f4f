"""Cores by the parametric model of gravothermal evolution (Yang et al. 2024, arXiv:2305.16176).

The core-collapse time and the parameters of

    rho = rho_s r_s / (r^4 + r_c^4)^(1/4) / (1 + r / r_s)^2

as functions of t = age / t_c are fits to simulations. They do not conserve mass: far out they add
0.015 to 0.035 dex for any sigma > 0, by which the label could be told from the outskirts alone.
Here the profile therefore ends where it first holds as much mass as the NFW halo, which continues
it: there the density falls by some 10 %. That joint stays at some 0.2 r_s as sigma goes to 0; the
halo is rounder only where particles scatter, as in the Jeans model.
"""

from __future__ import annotations

import math

import numpy as np

from datagen.halos.core import NODES, Core, half_density_radius
from datagen.halos.cosmology import CM2_PER_G, GRAVITY, GYR, Array
from datagen.halos.jeans import broadcast, without_core
from datagen.halos.nfw import Nfw
from datagen.halos.scattering import Scattering

# Coefficient of t_c that reproduces simulations.
_COLLAPSE = 0.75
# Beyond this share of t_c the fits do not hold.
T_MAX = 1.1
_LN_X = np.linspace(math.log(1e-5), math.log(100.0), 4001)


def solve(halo: Nfw, cross_section: Array, age: Array, velocity: float | None = None) -> Core:
    """Return the cores of halos without baryons; arguments as in `jeans.solve`.

    Where the age exceeds `T_MAX` of the collapse time it counts as that.
    """
    halo, sigma, age = broadcast(halo, cross_section, age)
    is_cored = sigma > 0.0
    # v_max = 1.648 r_s sqrt(G rho_s); simulations relate the two by v_max = 1.64 s.
    s_1d = 1.648 / 1.64 * halo.r_s * np.sqrt(GRAVITY * halo.rho_s)
    scattering = Scattering(np.where(is_cored, sigma, 1.0), age, velocity)
    sigma = scattering.at_dispersion(s_1d)
    t = np.minimum(age / collapse_time(halo, sigma), T_MAX)
    shape = parameters(t)
    end = _joint(halo, shape)
    ln_density = np.log(profile(halo, shape, end[..., None] * np.exp(NODES)))
    r_half, rho_0 = half_density_radius(end, ln_density), np.exp(ln_density[..., 0])
    r_round = halo.radius(scattering.density(s_1d))
    core = Core(end, r_round, rho_0, s_1d, r_half, sigma, ln_density)
    return without_core(core, is_cored)


def collapse_time(halo: Nfw, cross_section: Array) -> Array:
    """Return t_c = (150 / C) / ((sigma/m) rho_s r_s sqrt(4 pi G rho_s)) with C = 0.75 [Gyr]."""
    rate = cross_section * CM2_PER_G * halo.rho_s * halo.r_s
    return 150.0 / _COLLAPSE / (rate * np.sqrt(4.0 * math.pi * GRAVITY * halo.rho_s)) * GYR


def parameters(t: Array) -> tuple[Array, Array, Array]:
    """Return rho_s, r_s and r_c in units of the initial rho_s and r_s (their equation 2.3)."""
    ln = np.log(t + 0.001) / math.log(0.001)
    rho_s = 2.033 + 0.7381 * t + 7.264 * t**5 - 12.73 * t**7 + 9.915 * t**9 - 1.033 * ln
    r_s = 0.7178 - 0.1026 * t + 0.2474 * t**2 - 0.4079 * t**3 + 0.2822 * ln
    r_c = 2.555 * np.sqrt(t) - 3.632 * t + 2.131 * t**2 - 1.415 * t**3 + 0.4683 * t**4
    return rho_s, r_s, r_c


def profile(halo: Nfw, shape: tuple[Array, Array, Array], r: Array) -> Array:
    """Return the density of the fit at radii, (..., K) [Msun/kpc^3]."""
    rho_s, r_s, r_c = (part[..., None] for part in shape)
    outer = halo.expanded()
    scale, core = r_s * outer.r_s, r_c * outer.r_s
    density: Array = rho_s * outer.rho_s * scale / (r**4 + core**4) ** 0.25 / (1.0 + r / scale) ** 2
    return density


def _joint(halo: Nfw, shape: tuple[Array, Array, Array]) -> Array:
    """Return the radius at which the fit holds as much mass as the NFW halo [kpc]."""
    r = halo.r_s[..., None] * np.exp(_LN_X)
    shells = 4.0 * math.pi * r**3 * profile(halo, shape, r)
    steps = 0.5 * (shells[..., 1:] + shells[..., :-1]) * (_LN_X[1] - _LN_X[0])
    mass = shells[..., :1] / 3.0 + np.cumsum(steps, -1)
    excess = mass - halo.expanded().mass(r[..., 1:])
    # The first radius with enough mass, and the zero between the one before and it.
    first = np.maximum(np.argmax(excess >= 0.0, -1), 1)[..., None]
    below, above = (np.take_along_axis(excess, k, -1)[..., 0] for k in (first - 1, first))
    part = np.clip(below / (below - above), 0.0, 1.0)
    radius: Array = halo.r_s * np.exp(_LN_X[first[..., 0]] + part * (_LN_X[1] - _LN_X[0]))
    return radius
