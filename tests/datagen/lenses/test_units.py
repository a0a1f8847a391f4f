from __future__ import annotations

import numpy as np
import pytest
from astropy.constants import G, M_sun, c
from astropy.cosmology import FlatLambdaCDM

from datagen.lenses.units import (
    critical_density_msun_arcsec2,
    distance_between_mpc,
    einstein_radius_arcsec,
)


@pytest.mark.parametrize(
    ("mass", "radius"), [(1e8, 0.0166), (1e9, 0.0526), (1e10, 0.1665), (1e12, 1.6645)]
)
def test_einstein_radii_of_point_masses(mass: float, radius: float) -> None:
    assert einstein_radius_arcsec(mass, 0.5, 1.0) == pytest.approx(radius, abs=5e-5)


def test_distances_and_masses_agree_with_astropy() -> None:
    cosmology = FlatLambdaCDM(H0=70.0, Om0=0.3)
    z_lens, z_source = np.array([0.2, 0.5, 0.8]), np.array([0.9, 1.0, 2.5])
    between = cosmology.angular_diameter_distance_z1z2(z_lens, z_source)
    np.testing.assert_allclose(
        distance_between_mpc(z_lens, z_source), between.to_value("Mpc"), rtol=1e-6
    )
    near, far = (cosmology.angular_diameter_distance(z) for z in (z_lens, z_source))
    radius = np.sqrt(4.0 * G * 1e9 * M_sun / c**2 * between / (near * far)).to_value("") * 206264.8
    np.testing.assert_allclose(einstein_radius_arcsec(1e9, z_lens, z_source), radius, rtol=1e-4)


def test_critical_density_of_the_usual_pair_of_redshifts() -> None:
    assert critical_density_msun_arcsec2(0.5, 1.0) == pytest.approx(1.149e11, rel=1e-3)
    assert distance_between_mpc(0.5, 1.0) == pytest.approx(707.6, abs=0.05)
