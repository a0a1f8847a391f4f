"""Subhalos in a host: how large they are, and how much of them self-interaction evaporates."""

from __future__ import annotations

import math

import numpy as np

from datagen.halos.cosmology import CM2_PER_G, GRAVITY, GYR, Array
from datagen.halos.dpie import Dpie
from datagen.halos.nfw import Nfw

# Core radius over edge of a subhalo, and sizes of the stars of a satellite [kpc].
_CORE_SHARE, _STARS_CORE, _STARS_EDGE = 0.05, 2.0, 15.0


def bound_share(halo: Nfw, r: Array, cross_section: Array, age: float) -> Array:
    """Return the share of a subhalo that evaporation leaves, exp(-rho (sigma/m) v t).

    rho is the density of the host at r, v the circular velocity there.

    Args:
        halo: The host.
        r: Distances from its centre, (N,) [kpc].
        cross_section: [cm^2/g].
        age: [Gyr].
    """
    speed = np.sqrt(GRAVITY * halo.mass(r) / r)
    optical_depth = halo.density(r) * cross_section * CM2_PER_G * speed * age / GYR
    return np.exp(-optical_depth)


def tidal_radius(halo: Nfw, mass: Array, r: Array) -> Array:
    """Return r (m / (3 M(r)))^(1/3) [kpc] (Binney & Tremaine 2008, eq. 8.91)."""
    return r * (mass / (3.0 * halo.mass(r))) ** (1.0 / 3.0)


def dark(halo: Nfw, mass: Array, r: Array, softening: float) -> Dpie:
    """Return subhalos of given masses [Msun] that tides truncate, before evaporation."""
    edge = np.maximum(tidal_radius(halo, mass, r), 4.0 * softening)
    return Dpie(mass, np.hypot(_CORE_SHARE * edge, softening), edge)


def stars(mass: Array) -> Dpie:
    """Return the stars of satellites [Msun]; self-interaction does not touch them."""
    return Dpie(mass, np.full_like(mass, _STARS_CORE), np.full_like(mass, _STARS_EDGE))


def surface(objects: Dpie, position: Array, pixels: tuple[Array, Array], smear: float) -> Array:
    """Return the summed surface density of objects on pixels [Msun/kpc^2].

    Args:
        objects: (N,).
        position: x and y, (N, 2) [kpc].
        pixels: x and y of the pixels, (side, side) each [kpc].
        smear: Added to squared radii: what a pixel averages, see `Grid.smear` [kpc^2].
    """
    total = np.zeros_like(pixels[0])
    for k in range(len(objects.mass)):
        r2 = (pixels[0] - position[k, 0]) ** 2 + (pixels[1] - position[k, 1]) ** 2
        total += Dpie(objects.mass[k], objects.core[k], objects.edge[k]).projected(r2 + smear)
    return total


def wobble_angle(rho_0: Array, age: Array) -> Array:
    """Return the angle by which a body swings in a core of density rho_0 within its age [rad].

    omega = sqrt(4 pi G rho_0 / 3), a harmonic oscillator.
    """
    return np.sqrt(4.0 * math.pi / 3.0 * GRAVITY * rho_0) * age / GYR
