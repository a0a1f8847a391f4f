"""From redshifts and masses to Einstein radii.

Flat LCDM of `datagen.fields.cosmology` (H0 = 70 km/s/Mpc, Omega_m = 0.3).
"""

from __future__ import annotations

import numpy as np

from datagen.fields.cosmology import (
    ARCSEC_PER_RAD,
    angular_diameter_distance_mpc,
    comoving_distance_mpc,
)
from datagen.fields.tables_io import FloatArray

# 4 G / c^2 [Mpc/Msun]; CODATA 2018 and IAU 2015 nominal solar mass parameter
_FOUR_G_C2 = 4.0 * 1.32712440018e20 / 299792458.0**2 / 3.0856775814913673e22


def distance_between_mpc(z_lens: FloatArray | float, z_source: FloatArray | float) -> FloatArray:
    """Angular diameter distance from lens to source in a flat universe [Mpc]."""
    gap = comoving_distance_mpc(z_source) - comoving_distance_mpc(z_lens)
    return gap / (1.0 + np.asarray(z_source, float))


def einstein_radius_arcsec(
    mass_msun: FloatArray | float, z_lens: FloatArray | float, z_source: FloatArray | float
) -> FloatArray:
    """Einstein radius of a point mass [arcsec], sqrt(4 G M / c^2 D_ls / (D_l D_s)).

    Args:
        mass_msun: Mass [Msun].
        z_lens: Redshift of the lens.
        z_source: Redshift of the source, larger than that of the lens.
    """
    return np.sqrt(np.asarray(mass_msun, float) / mass_of_arcsec2(z_lens, z_source))


def mass_of_arcsec2(z_lens: FloatArray | float, z_source: FloatArray | float) -> FloatArray:
    """Mass of a point whose Einstein radius is 1 arcsec [Msun/arcsec^2]: theta_e^2 -> mass."""
    near = angular_diameter_distance_mpc(z_lens) * angular_diameter_distance_mpc(z_source)
    reduced = near / distance_between_mpc(z_lens, z_source)
    return reduced / _FOUR_G_C2 / ARCSEC_PER_RAD**2


def critical_density_msun_arcsec2(
    z_lens: FloatArray | float, z_source: FloatArray | float
) -> FloatArray:
    """Critical surface density [Msun/arcsec^2]: the mass inside theta_e is pi theta_e^2 of it."""
    return mass_of_arcsec2(z_lens, z_source) / np.pi
