"""Luminosities, colours, counts, sizes and shapes of galaxies against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from datagen.fields import galaxies, morphology


@pytest.mark.parametrize("alpha", [galaxies.ALPHA_RED, galaxies.ALPHA_BLUE])
@pytest.mark.parametrize("faint", [1.5, 6.0])
def test_10000_members_follow_the_truncated_schechter_function(alpha: float, faint: float) -> None:
    drawn = galaxies.sample_schechter(np.random.default_rng(1), alpha, np.full(10_000, faint))
    low, high = 10 ** (-0.4 * faint), 10 ** (-0.4 * galaxies.BRIGHTEST_MAG)
    x = np.geomspace(low, high, 4000)
    brighter = -integrate.cumulative_trapezoid((x**alpha * np.exp(-x))[::-1], x[::-1], initial=0.0)
    cdf = np.interp(10 ** (-0.4 * drawn), x, brighter[::-1]) / brighter[-1]
    assert stats.kstest(cdf, "uniform").pvalue > 0.01


def test_schechter_ratio_is_one_at_a_fifth_of_l_star() -> None:
    assert galaxies.schechter_ratio(-0.8, galaxies.COUNTED_MAG) == pytest.approx(1.0, rel=1e-3)
    assert galaxies.schechter_ratio(-0.8, 4.0) > 1.5


@pytest.mark.parametrize("z", [0.15, 0.45, 0.75])
def test_10000_red_galaxies_lie_on_the_red_sequence(z: float) -> None:
    rng, n, width = np.random.default_rng(2), 10_000, 0.04
    colours = galaxies.sample_colours(rng, np.full(n, z), np.ones(n, bool), width)
    for k, mean in enumerate(galaxies.red_sequence(z)):
        assert stats.kstest((colours[:, k] - mean) / width, "norm").pvalue > 0.01


@pytest.mark.parametrize(
    ("z", "mag", "colours"),
    [
        (0.1, 16.15, (1.02, 0.43, 0.30)),
        (0.5, 20.06, (1.77, 0.79, 0.41)),
        (0.9, 21.91, (2.37, 1.13, 0.81)),
    ],
)
def test_tables_hold_the_published_values(
    z: float, mag: float, colours: tuple[float, float, float]
) -> None:
    assert galaxies.mstar(z) == pytest.approx(mag, abs=0.006)
    assert galaxies.red_sequence(z) == pytest.approx(colours, abs=0.006)


def test_mstar_goes_on_beyond_its_table() -> None:
    mags = galaxies.mstar(np.array([1.19, 1.2, 1.21, 2.0, 4.0]))
    assert np.all(np.diff(mags) > 0.0)
    assert mags[2] - mags[1] < 0.1


def test_blue_galaxies_are_bluer_than_the_red_sequence() -> None:
    rng, n = np.random.default_rng(3), 500
    for z in (0.1, 0.3, 0.5, 0.8):
        colours = galaxies.sample_colours(rng, np.full(n, z), np.zeros(n, bool), 0.04)
        assert np.median(colours[:, 0]) < galaxies.red_sequence(z)[0] - 0.25


def test_red_fraction_falls_with_redshift() -> None:
    assert galaxies.red_fraction(0.46) == pytest.approx(0.68)
    assert np.all(np.diff(galaxies.red_fraction(np.linspace(0.1, 1.0, 10))) < 0.0)


def test_field_counts_follow_the_law() -> None:
    assert galaxies.field_density(25.0) == pytest.approx(46.0)
    assert galaxies.field_density(24.4) == pytest.approx(30.2, rel=0.01)
    mags = galaxies.sample_field_magnitudes(np.random.default_rng(4), 10_000, -np.inf, 24.4)
    limits = np.linspace(14.0, 24.4, 300)
    density = [galaxies.field_density(m) / galaxies.field_density(24.4) for m in limits]
    assert mags.max() <= 24.4
    assert stats.kstest(mags, lambda m: np.interp(m, limits, density)).pvalue > 0.01
    between = galaxies.sample_field_magnitudes(np.random.default_rng(4), 10_000, 19.0, 24.4)
    assert between.min() >= 19.0
    assert np.median(between) == pytest.approx(np.median(mags[mags > 19.0]), abs=0.03)


@pytest.mark.parametrize("mag", [15.0, 21.0, 24.0])
def test_field_redshifts_follow_the_gamma_law(mag: float) -> None:
    z = galaxies.sample_field_redshifts(np.random.default_rng(5), np.full(10_000, mag))
    scale = max(0.0417 * mag - 0.686, 0.03)
    bulk = z[(z > 0.01) & (z < 4.0)]
    law = stats.gamma(3.0, scale=scale)
    low, high = law.cdf(0.01), law.cdf(4.0)
    assert stats.kstest(bulk, lambda x: (law.cdf(x) - low) / (high - low)).pvalue > 0.01


@given(st.floats(14.0, 26.0), st.floats(0.01, 4.0))
def test_field_red_fraction_is_a_probability(mag: float, z: float) -> None:
    assert 0.0 <= galaxies.field_red_fraction(np.array([mag]), np.array([z]))[0] <= 1.0


@pytest.mark.parametrize(
    ("log_mass", "z", "is_red", "kpc"),
    [
        (np.log10(5e10), 0.25, True, 10**0.60),
        (np.log10(5e10), 0.25, False, 10**0.86),
        (np.log10(2e10), 0.25, True, 2.00),
        (np.log10(2e11), 0.25, True, 10**0.60 * 4**0.75),
        (np.log10(5e10), 1.5, True, 10**0.60 * 2**-1.48),
        (np.log10(5e9), 1.5, False, 10**0.86 * 0.1**0.22 * 2**-0.75),
    ],
)
def test_median_sizes(log_mass: float, z: float, is_red: bool, kpc: float) -> None:
    got = morphology.mean_log_size(np.array([log_mass]), np.array([z]), np.array([is_red]))
    assert 10 ** got[0] == pytest.approx(kpc, rel=0.01)


def test_small_early_types_do_not_shrink_further() -> None:
    log_mass, z = np.array([9.0, 9.5, 10.0]), np.full(3, 0.25)
    size = 10 ** morphology.mean_log_size(log_mass, z, np.ones(3, bool))
    steep = 10**0.60 * (10**log_mass / 5e10) ** 0.75
    assert np.all(size > 1.3)
    assert np.all(size > 1.4 * steep)


def test_half_light_radius_is_circularised() -> None:
    rng, n = np.random.default_rng(6), 20_000
    form = morphology.sample_morphology(rng, np.full(n, 20.0), np.full(n, 0.4), np.ones(n, bool))
    size = np.hypot(*form.shear.T)
    ratio = (1 - size) / (1 + size)
    mass = morphology.log_stellar_mass(np.array([20.0]), np.array([0.4]), np.array([True]))
    median = morphology.mean_log_size(mass, np.array([0.4]), np.array([True]))[0]
    scatter = np.log10(form.hlr_arcsec / np.sqrt(ratio))
    assert scatter.std() == pytest.approx(morphology.SCATTER_RED, rel=0.03)
    expected = median - 3.0 + np.log10(galaxies.cosmology.arcsec_per_mpc(0.4))
    assert np.median(scatter) == pytest.approx(expected, abs=0.01)


def test_shears_are_isotropic_and_bounded() -> None:
    shear = morphology.sample_shear(np.random.default_rng(7), np.full(20_000, 0.33))
    assert np.hypot(*shear.T).max() < morphology.SHEAR_MAX
    assert np.abs(shear.mean(axis=0)).max() < 0.01
    assert (shear < -0.3).any()
    assert (shear > 0.3).any()
    angle = np.arctan2(shear[:, 1], shear[:, 0]) / (2 * np.pi) + 0.5
    assert stats.kstest(angle, "uniform").pvalue > 0.01


def test_profiles_follow_the_type() -> None:
    is_red = np.array([True, False])
    form = morphology.sample_morphology(
        np.random.default_rng(8), np.full(2, 21.0), np.full(2, 0.3), is_red
    )
    assert form.sersic_n.tolist() == [4.0, 1.0]
    assert form.fracdev.tolist() == [1.0, 0.0]
