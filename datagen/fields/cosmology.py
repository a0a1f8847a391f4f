"""Distances and volumes of the flat LCDM model with H0 = 70 km/s/Mpc and Omega_m = 0.3.

Hogg 1999, arXiv:astro-ph/9905116; radiation is neglected.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from datagen.fields.tables_io import FloatArray, interp

H0 = 70.0  # km/s/Mpc
LITTLE_H = H0 / 100.0
OMEGA_M = 0.3
C_KMS = 299792.458
# 3 H0^2 / (8 pi G) for H0 = 70 km/s/Mpc [Msun/Mpc^3]
RHO_CRIT_0 = 2.77536627e11 * LITTLE_H**2
ARCSEC_PER_RAD = 180.0 * 3600.0 / np.pi
_Z_MAX, _N_GRID = 6.0, 6001


def efunc(z: FloatArray | float) -> FloatArray:
    """Expansion rate E(z) = H(z) / H0 (dimensionless)."""
    return np.sqrt(OMEGA_M * (1.0 + np.asarray(z, float)) ** 3 + 1.0 - OMEGA_M)


@cache
def _distance_grid() -> tuple[FloatArray, FloatArray]:
    z = np.linspace(0.0, _Z_MAX, _N_GRID)
    inverse = 1.0 / efunc(z)
    mid = 1.0 / efunc(0.5 * (z[1:] + z[:-1]))
    # Simpson's rule: smooth integrand, error far below the interpolation's
    steps = (inverse[1:] + 4.0 * mid + inverse[:-1]) * (z[1] - z[0]) / 6.0
    return z, np.concatenate([[0.0], np.cumsum(steps)]) * C_KMS / H0


def comoving_distance_mpc(z: FloatArray | float) -> FloatArray:
    """Line-of-sight comoving distance [Mpc] for 0 <= z <= 6."""
    return interp(z, *_distance_grid())


def angular_diameter_distance_mpc(z: FloatArray | float) -> FloatArray:
    """Angular diameter distance [Mpc] for 0 <= z <= 6."""
    return comoving_distance_mpc(z) / (1.0 + np.asarray(z, float))


def arcsec_per_mpc(z: FloatArray | float) -> FloatArray:
    """Angle that one physical Mpc subtends [arcsec]."""
    return ARCSEC_PER_RAD / angular_diameter_distance_mpc(z)


def comoving_volume_mpc3(z: FloatArray | float) -> FloatArray:
    """Comoving volume of the whole sky out to z [Mpc^3]."""
    return 4.0 / 3.0 * np.pi * comoving_distance_mpc(z) ** 3


def omega_m(z: FloatArray | float) -> FloatArray:
    """Matter density in units of the critical density at z."""
    return OMEGA_M * (1.0 + np.asarray(z, float)) ** 3 / efunc(z) ** 2


def critical_density(z: FloatArray | float) -> FloatArray:
    """Critical density at z [Msun / physical Mpc^3]."""
    return RHO_CRIT_0 * efunc(z) ** 2


def sample_redshifts(rng: np.random.Generator, n: int, z_lo: float, z_hi: float) -> FloatArray:
    """Draw n redshifts with constant comoving density in [z_lo, z_hi]."""
    z, distance = _distance_grid()
    d3_lo, d3_hi = np.interp([z_lo, z_hi], z, distance) ** 3
    d = np.cbrt(d3_lo + rng.random(n) * (d3_hi - d3_lo))
    return interp(d, distance, z)
