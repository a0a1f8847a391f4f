"""Abundance, masses and profiles of clusters against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from datagen.fields import clusters, cosmology


@pytest.mark.parametrize("concentration", [clusters.CONCENTRATION_RED, clusters.CONCENTRATION_BLUE])
def test_10000_members_follow_the_nfw_profile(concentration: float) -> None:
    rng = np.random.default_rng(1)
    x_max = np.full(10_000, 1.5 * concentration)
    radius = clusters.sample_nfw_radii(rng, x_max)
    in_space = stats.kstest(radius, lambda x: clusters.nfw_mass(x) / clusters.nfw_mass(x_max[0]))
    projected = np.hypot(*(clusters.isotropic(rng, len(radius)) * radius[:, None])[:, :2].T)
    on_sky = stats.kstest(projected, lambda x: clusters.projected_nfw_cdf(x, x_max[0]))
    assert in_space.pvalue > 0.01
    assert on_sky.pvalue > 0.01


def test_ks_test_notices_halved_radii() -> None:
    x_max = np.full(10_000, 8.0)
    radius = clusters.sample_nfw_radii(np.random.default_rng(1), x_max)
    wrong = 0.5 * radius  # as if a uniform number stood for the projection
    assert stats.kstest(wrong, lambda x: clusters.projected_nfw_cdf(x, 8.0)).pvalue < 1e-6


@given(st.floats(0.5, 20.0), st.floats(0.01, 0.99))
def test_projected_fraction_equals_brute_force(x_max: float, part: float) -> None:
    x = part * x_max

    def outside(s: float) -> float:
        return float(s / (1 + s) ** 2 / clusters.nfw_mass(x_max) * np.sqrt(1 - (x / s) ** 2))

    expected = 1.0 - integrate.quad(outside, x, x_max)[0]
    assert clusters.projected_nfw_cdf(np.array([x]), x_max)[0] == pytest.approx(expected, abs=1e-6)


def test_projected_fraction_is_a_cdf() -> None:
    cdf = clusters.projected_nfw_cdf(np.linspace(0.0, 9.0, 200), 8.0)
    assert cdf[0] == pytest.approx(0.0, abs=1e-6)
    assert cdf[-1] == 1.0
    assert np.all(np.diff(cdf) >= 0.0)


@pytest.mark.parametrize(
    ("richness", "relative"), [(10, 4.5), (20, 1.0), (30, 0.34), (40, 0.14), (100, 0.003)]
)
def test_richness_function_holds_the_published_points(richness: float, relative: float) -> None:
    assert clusters.richer_than(richness) == pytest.approx(relative)


def test_drawn_richnesses_follow_the_function() -> None:
    drawn = clusters.sample_richness(np.random.default_rng(2), 10_000, 5.0, 200.0)
    n_low, n_high = clusters.richer_than(5.0), clusters.richer_than(200.0)
    result = stats.kstest(drawn, lambda x: (n_low - clusters.richer_than(x)) / (n_low - n_high))
    assert result.pvalue > 0.01


def test_abundance_of_the_reference_interval_is_the_given_one() -> None:
    got = clusters.abundance_per_deg2(5.2, (20.0, 1e5), (0.2, 0.9))
    assert got == pytest.approx(5.2, rel=1e-3)


def test_redshifts_have_constant_comoving_density() -> None:
    z = cosmology.sample_redshifts(np.random.default_rng(3), 10_000, 0.1, 0.8)
    volume = cosmology.comoving_volume_mpc3(np.array([0.1, 0.8]))
    inside = lambda x: (cosmology.comoving_volume_mpc3(x) - volume[0]) / np.diff(volume)  # noqa: E731
    assert stats.kstest(z, inside).pvalue > 0.01


def test_masses_have_the_published_mean() -> None:
    richness, z = np.full(20_000, 40.0), np.full(20_000, 0.35)
    mass = clusters.sample_mass_msun(np.random.default_rng(4), richness, z)
    assert mass.mean() == pytest.approx(3.081e14, rel=0.02)
    assert np.log(mass).std() == pytest.approx(clusters.MASS_SCATTER, rel=0.03)


def test_r_lambda_is_physical() -> None:
    assert clusters.r_lambda_mpc(np.array([100.0]))[0] == pytest.approx(1.0 / 0.7)


@given(st.floats(1e13, 3e15), st.floats(0.05, 1.1))
def test_mass_conversion_stays_on_one_profile(m200m: float, z: float) -> None:
    m, redshift = np.array([m200m]), np.array([z])
    m200c, r200c = clusters.m200c_msun(m, redshift), clusters.r200c_mpc(m, redshift)
    mean_density = cosmology.omega_m(redshift) * cosmology.critical_density(redshift)
    r200m = clusters.radius_mpc(m, mean_density)
    scale = r200c / clusters.CONCENTRATION_MATTER
    ratio = clusters.nfw_mass(r200m / scale) / clusters.nfw_mass(r200c / scale)
    assert m200c < m
    assert (m / m200c)[0] == pytest.approx(ratio[0], rel=1e-3)


def test_stretching_keeps_the_volume_and_flattens() -> None:
    rng = np.random.default_rng(5)
    points = clusters.isotropic(rng, 20_000) * 3.0
    covariance = np.cov(clusters.stretch(points, rng, 0.5).T)
    axes = np.sqrt(np.linalg.eigvalsh(covariance))
    assert axes[0] / axes[2] == pytest.approx(0.5, rel=0.03)
    assert np.prod(axes) == pytest.approx(np.sqrt(3.0) ** 3, rel=0.03)


@pytest.mark.parametrize(("z", "px"), [(0.1, 2062), (0.3, 854), (0.5, 623), (0.9, 488)])
def test_one_mpc_in_pixels(z: float, px: float) -> None:
    assert cosmology.arcsec_per_mpc(z) / 0.263 == pytest.approx(px, abs=1.0)


def test_distances_agree_with_astropy() -> None:
    from astropy.cosmology import FlatLambdaCDM

    z = np.array([0.05, 0.5, 1.2, 4.0])
    expected = FlatLambdaCDM(H0=70, Om0=0.3, Tcmb0=0).angular_diameter_distance(z).value
    assert cosmology.angular_diameter_distance_mpc(z) == pytest.approx(expected, rel=1e-5)
