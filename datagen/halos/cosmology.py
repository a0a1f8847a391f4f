"""The cosmology of cluster maps, near WMAP9: flat, H0 = 70 km/s/Mpc, Omega_m = 0.279.

Units of all physics in this package: kpc, Msun, km/s, Gyr.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import quad

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]

LITTLE_H = 0.70
OMEGA_M = 0.279
# Constant of gravity [kpc (km/s)^2 / Msun].
GRAVITY = 4.30073e-6
# 1 cm^2/g [kpc^2/Msun] and 1 kpc/(km/s) [Gyr].
CM2_PER_G = 2.0885e-10
GYR = 0.9778
C_KMS = 299792.458
CM_PER_KPC = 3.0857e21
# Luminosity of the sun [erg/s].
LSUN = 3.828e33


def critical_density(z: ArrayLike) -> Array:
    """Return 3 H(z)^2 / (8 pi G) [Msun/kpc^3]."""
    hubble = 0.1 * LITTLE_H  # km/s/kpc
    efunc2 = OMEGA_M * (1.0 + np.asarray(z, float)) ** 3 + 1.0 - OMEGA_M
    return 3.0 * hubble**2 * efunc2 / (8.0 * math.pi * GRAVITY)


def matter_density(z: ArrayLike) -> Array:
    """Return the mean density of matter, proper [Msun/kpc^3]."""
    return critical_density(0.0) * OMEGA_M * (1.0 + np.asarray(z, float)) ** 3


def angular_distance(z_from: float, z_to: float) -> float:
    """Return the angular diameter distance of an object at z_to, seen from z_from [kpc]."""

    def slowness(z: float) -> float:
        return float((OMEGA_M * (1.0 + z) ** 3 + 1.0 - OMEGA_M) ** -0.5)

    return C_KMS / (0.1 * LITTLE_H) * quad(slowness, z_from, z_to)[0] / (1.0 + z_to)


def lensing_density(z_lens: float, z_source: float) -> float:
    """Return the critical surface density c^2 D_s / (4 pi G D_l D_ls) [Msun/kpc^2]."""
    ratio = angular_distance(0.0, z_source) / angular_distance(0.0, z_lens)
    return C_KMS**2 * ratio / (4.0 * math.pi * GRAVITY * angular_distance(z_lens, z_source))
