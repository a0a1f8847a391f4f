"""NFW halos: density, mass, concentration (Navarro, Frenk & White 1997)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from datagen.halos.cosmology import LITTLE_H, Array, critical_density

# Beyond r_200 the density falls as in Baltz, Marshall & Oguri 2009 (n = 2), with their truncation
# radius at 2.6 r_200 (Oguri & Hamana 2011, arXiv:1101.0650).
TRUNCATION = 2.6


@dataclass(frozen=True)
class Nfw:
    """NFW halos; all arrays have one shape, or broadcast.

    Args:
        rho_s: Four times the density at r_s [Msun/kpc^3].
        r_s: Scale radius [kpc].
        r_200: Radius of 200 times the critical density [kpc].
    """

    rho_s: Array
    r_s: Array
    r_200: Array

    def density(self, r: Array) -> Array:
        """Return rho_s / (x (1 + x)^2), x = r / r_s [Msun/kpc^3]."""
        x = r / self.r_s
        density: Array = self.rho_s / (x * (1.0 + x) ** 2)
        return density

    def mass(self, r: Array) -> Array:
        """Return the mass within r, 4 pi rho_s r_s^3 (ln(1 + x) - x / (1 + x)) [Msun]."""
        mass: Array = 4.0 * math.pi * self.rho_s * self.r_s**3 * mass_shape(r / self.r_s)
        return mass

    def radius(self, density: Array) -> Array:
        """Return the radius at which the halos have a density [kpc].

        The real root of x (1 + x)^2 = rho_s / density: 4/3 sinh^2(arsinh(sqrt(27/4 rho_s /
        density)) / 3).

        Args:
            density: [Msun/kpc^3].
        """
        third = np.arcsinh(np.sqrt(6.75 * self.rho_s / density)) / 3.0
        radius: Array = 4.0 / 3.0 * np.sinh(third) ** 2 * self.r_s
        return radius

    def expanded(self) -> Nfw:
        """Return the halos with one more axis, along which radii lie."""
        return Nfw(self.rho_s[..., None], self.r_s[..., None], self.r_200[..., None])


def mass_shape(x: ArrayLike) -> Array:
    """Return ln(1 + x) - x / (1 + x)."""
    x = np.asarray(x, float)
    shape: Array = np.log1p(x) - x / (1.0 + x)
    return shape


def halo(mass: ArrayLike, concentration: ArrayLike, z: ArrayLike) -> Nfw:
    """Return halos of given mass.

    Args:
        mass: M_200 against the critical density [Msun].
        concentration: r_200 / r_s.
        z: Redshift.
    """
    mass, c, z = np.broadcast_arrays(*(np.asarray(a, float) for a in (mass, concentration, z)))
    r_200 = (3.0 * mass / (800.0 * math.pi * critical_density(z))) ** (1.0 / 3.0)
    rho_s = mass / (4.0 * math.pi * (r_200 / c) ** 3 * mass_shape(c))
    return Nfw(rho_s, r_200 / c, r_200)


def mean_concentration(mass: ArrayLike, z: ArrayLike) -> Array:
    """Return r_200 / r_s of the mean halo.

    5.71 (M / 2e12 h^-1 Msun)^-0.084 (1 + z)^-0.47 (Duffy et al. 2008, table 1, full sample,
    arXiv:0804.2486).
    """
    pivot = 2e12 / LITTLE_H
    return 5.71 * (np.asarray(mass, float) / pivot) ** -0.084 * (1.0 + np.asarray(z)) ** -0.47


def truncation(r: Array, r_200: Array) -> Array:
    """Return the factor by which the density falls below that of the halo: 1 within r_200."""
    x2 = np.maximum(r / r_200, 1.0) ** 2
    return (1.0 + (x2 - 1.0) / (1.0 + TRUNCATION**2)) ** -2.0
