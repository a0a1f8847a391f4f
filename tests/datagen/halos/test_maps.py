"""Parts of maps: projections, gas, subhalos, random fields, and what telescopes see."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import poisson

from datagen.halos import fluctuations, gas, jeans, nfw, observe, projection, subhalos
from datagen.halos.core import density
from datagen.halos.cosmology import CM_PER_KPC, LSUN
from datagen.halos.dpie import Dpie
from datagen.halos.grid import Grid
from datagen.halos.prior import draw_rotation

HALO = nfw.halo(np.full(1, 5e14), 3.8, 0.2)
ROUND = jeans.solve(HALO, np.zeros(1), np.full(1, 5.0))


def test_projection_is_that_of_wright_and_brainerd() -> None:
    """A deep column of an NFW halo, where its cut does not matter, against the closed form."""
    table = projection.tabulate(HALO, ROUND, 1e4, 0.01)[0, 1]
    x = np.array([0.05, 0.2, 0.6])
    closed = (1 - 2 / np.sqrt(1 - x**2) * np.arctanh(np.sqrt((1 - x) / (1 + x)))) / (x**2 - 1)
    expected = 2.0 * HALO.rho_s * HALO.r_s * closed
    found = projection.at_radius(table, (x * HALO.r_s) ** 2)
    assert found[:2] == pytest.approx(expected[:2], rel=0.01)
    # Farther out the halo ends before the closed form does.
    assert 0.9 < found[2] / expected[2] < 1.0


def test_projection_is_the_integral_over_the_column() -> None:
    core = jeans.solve(HALO, np.full(1, 0.3), np.full(1, 5.0))
    inner, outer = projection.tabulate(HALO, core, 1e4, 5.7)[0]
    for radius in (1.0, 30.0, 700.0):
        z = np.geomspace(1e-4, 5e3, 40_001)
        rho = density(HALO, core, np.sqrt(radius**2 + z**2 + 5.7**2)[None])[0]
        expected = 2.0 * np.trapezoid(rho, z)
        r2 = np.array([radius**2])
        found = projection.at_radius(inner, r2) + projection.at_radius(outer, r2)
        assert found == pytest.approx(expected, rel=3e-3)


@pytest.mark.parametrize("number", range(3))
def test_projected_ellipsoids_agree_with_a_sum_over_the_depth(number: int) -> None:
    """A Gaussian ellipsoid, summed over depth, and its mass."""
    axes = projection.flattened(np.array([1.0, 0.8, 0.5]), 1.0)
    rotation = draw_rotation(3, number, 0)
    assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-12)
    seen = projection.project(axes, rotation)
    x, y, z = np.meshgrid(*[np.linspace(-6, 6, 41)] * 3, indexing="ij")
    own = np.stack([x, y, z], -1) @ rotation
    summed = np.exp(-0.5 * (own**2 / axes**2).sum(-1)).sum(-1) * 0.3
    closed = seen.stretch * math.sqrt(2 * math.pi) * np.exp(-0.5 * seen.radius2(x, y)[..., 0])
    assert closed == pytest.approx(summed, abs=1e-4)
    assert closed.sum() * 0.3**2 == pytest.approx((2 * math.pi) ** 1.5, rel=1e-4)
    # The moments of the image give axis ratio and angle.
    place = np.stack([x[..., 0], y[..., 0]])
    moments = np.einsum("ixy,jxy,xy->ij", place, place, closed) / closed.sum()
    values, vectors = np.linalg.eigh(moments)
    assert seen.axis_ratio() == pytest.approx(math.sqrt(values[0] / values[1]), rel=1e-3)
    angle = math.atan2(vectors[1, 1], vectors[0, 1]) % math.pi
    assert math.cos(2 * (seen.angle() - angle)) == pytest.approx(1.0, abs=1e-6)


def test_flattened_axes_keep_their_volume() -> None:
    axes = np.array([1.3, 1.0, 1 / 1.3])
    for share in (0.0, 0.4, 1.0):
        assert np.prod(projection.flattened(axes, share)) == pytest.approx(1.0)
    assert projection.flattened(axes, 0.0) == pytest.approx(1.0)
    assert projection.flattened(axes, 1.0) == pytest.approx(axes)


def test_grid_averages_steep_functions_near_the_centre() -> None:
    grid = Grid(10, 40.0, 1, 8, 80.0)
    assert grid.axis()[[0, -1]].tolist() == [-180.0, 180.0]
    found = grid.average(lambda x, y: 1.0 / np.hypot(x, y))
    # The mean of 1 / R over a square with a corner at the origin is 2 ln(1 + sqrt(2)) / side.
    assert found[5, 5] == pytest.approx(2 * math.log(1 + math.sqrt(2)) / 40.0, rel=0.05)
    assert found == pytest.approx(found.T)
    odd = Grid(9, 40.0, 2, 2, 80.0).average(lambda x, y: x + 10 * y)
    assert odd[4, 5] == pytest.approx(40.0)
    assert odd[5, 4] == pytest.approx(400.0)


def test_dpie_holds_its_mass() -> None:
    part = Dpie(np.array(1e12), np.array(3.0), np.array(40.0))
    r = np.geomspace(1e-3, 1e6, 20_001)
    inside = np.trapezoid(2 * math.pi * r**2 * part.projected(r**2), np.log(r))
    assert inside == pytest.approx(1e12, rel=1e-3)
    assert part.enclosed(np.array(1e7)) == pytest.approx(1e12, rel=1e-4)
    rho = np.gradient(part.enclosed(r), r) / (4 * math.pi * r**2)
    shape = 1 / ((1 + r**2 / 9) * (1 + r**2 / 1600))
    assert (rho / rho[10_000] * shape[10_000])[5_000:15_000] == pytest.approx(
        shape[5_000:15_000], rel=2e-3
    )


def test_gas_emits_what_its_volume_emits() -> None:
    """Sum n_e n_H over the line of sight for a gas of known mass."""
    halo = nfw.Nfw(HALO.rho_s[0], HALO.r_s[0], HALO.r_200[0])
    found = gas.emission(halo, 0.12, 150.0, 0.67, False)
    r_500 = 0.65 * float(halo.r_200)
    volume = quad(lambda r: 4 * math.pi * r**2 * (1 + (r / 150) ** 2) ** -1.005, 0, r_500)[0]
    rho_0 = 0.12 * float(halo.mass(np.array(r_500))) / volume
    electrons = rho_0 * 1.98841e33 / CM_PER_KPC**3 / (1.17 * 1.67262e-24)
    assert 1e-4 < electrons < 1e-1
    per_cm3 = 1.4e-27 * 1.4 * 1.2 * math.sqrt(5 * 1.16045e7) * electrons**2 / 1.2
    for radius in (0.0, 300.0):
        column = 2 * quad(lambda z, r=radius: (1 + (r**2 + z**2) / 150**2) ** -2.01, 0, 2e4)[0]
        expected = per_cm3 * column * CM_PER_KPC**3 / LSUN
        assert found.surface(np.array(radius**2)) == pytest.approx(expected, rel=1e-3)
    # An X-ray luminosity of some 1e45 erg/s, as clusters of this mass have.
    r = np.linspace(0, r_500, 2001)
    total = np.trapezoid(2 * math.pi * r * found.surface(r**2), r) * LSUN
    assert 2e44 < total < 5e45
    cool = gas.emission(halo, 0.12, 150.0, 0.67, True)
    assert cool.surface(np.array(0.0)) == pytest.approx(4.0 * found.surface(np.array(0.0)))


@pytest.mark.parametrize("is_cool", [False, True])
def test_gas_of_a_column_is_its_density_summed_over_the_depth(is_cool: bool) -> None:
    halo = nfw.Nfw(HALO.rho_s[0], HALO.r_s[0], HALO.r_200[0])
    found = gas.emission(halo, 0.12, 150.0, 0.7, is_cool)
    r = np.linspace(0.0, 0.65 * float(halo.r_200), 20_001)
    shells = 4.0 * math.pi * r**2 * found.density * (1.0 + (r / 150.0) ** 2) ** -1.05
    expected = 0.12 * float(halo.mass(np.array(r[-1])))
    assert np.trapezoid(shells, r) == pytest.approx(expected, rel=1e-3)
    for radius in (0.0, 300.0):
        z = np.concatenate([[0.0], np.geomspace(0.1, 1e7, 20_001)])
        rho = found.density * (1.0 + (radius**2 + z**2) / 150.0**2) ** -1.05
        if is_cool:
            # Three times the emission, from a core 0.3 times as large, needs so much density.
            rho += found.density * 10**0.5 * (1.0 + (radius**2 + z**2) / 45.0**2) ** -1.05
        column = 2.0 * np.trapezoid(rho, z)
        assert found.column(np.array(radius**2)) == pytest.approx(column, rel=2e-3)


def test_evaporation_and_tides() -> None:
    halo = nfw.Nfw(HALO.rho_s[0], HALO.r_s[0], HALO.r_200[0])
    r = np.array([100.0, 500.0, 1500.0])
    left = [subhalos.bound_share(halo, r, np.float64(s), 5.0) for s in (0.0, 0.3, 1.0)]
    assert np.array_equal(left[0], np.ones(3))
    assert np.all(np.diff(left[1]) > 0.0)
    # The optical depth is proportional to the cross-section.
    assert np.log(left[2]) == pytest.approx(np.log(left[1]) / 0.3)
    # Inside a radius of tides the subhalo is three times as dense as the host within its orbit.
    mass = np.full(3, 1e12)
    tidal = subhalos.tidal_radius(halo, mass, r)
    assert mass / tidal**3 == pytest.approx(3.0 * halo.mass(r) / r**3)


def test_subhalos_on_pixels_hold_their_mass() -> None:
    objects = Dpie(np.array([1e12, 2e12]), np.array([6.0, 6.0]), np.array([30.0, 60.0]))
    grid = Grid(200, 20.0, 1, 1, 0.0)
    place = np.array([[3.0, 5.0], [-300.0, 210.0]])
    found = subhalos.surface(objects, place, grid.pixels(), grid.smear())
    assert found.sum() * 20.0**2 == pytest.approx(3e12, rel=0.02)


def test_correlated_fields_have_unit_variance_and_their_spectrum() -> None:
    white = np.random.default_rng(0).standard_normal((40, 64, 64))
    fields = np.stack([fluctuations.correlated(w, 2.0) for w in white])
    assert fields.shape == (40, 32, 32)
    assert fields.var() == pytest.approx(1.0, abs=0.1)
    whole = np.stack([fluctuations.correlated(np.tile(w[:32, :32], (2, 2)), 2.0) for w in white])
    power = (np.abs(np.fft.rfft2(whole)) ** 2).mean(0)
    # A field that repeats has only even wave numbers: k = 2 and 8 of 64.
    assert power[0, 1] / power[0, 4] == pytest.approx(16.0, rel=0.5)
    values = fluctuations.lognormal(3.0, 0.25, np.random.default_rng(1).standard_normal(200_000))
    assert values.mean() == pytest.approx(3.0, rel=0.01)
    assert np.log10(values).std() == pytest.approx(0.25, rel=0.01)


def test_particle_noise_has_the_moments_of_a_gamma_distribution() -> None:
    white = np.random.default_rng(0).standard_normal(400_000)
    for n in (10.0, 32.0, 1000.0):
        found = fluctuations.particle_noise(np.full(white.shape, 5.0), np.array(n), white)
        assert found.min() > 0.0
        assert found.mean() == pytest.approx(5.0, rel=2e-3)
        assert found.std() == pytest.approx(5.0 / math.sqrt(n), rel=0.01)
        skewness = (((found - found.mean()) / found.std()) ** 3).mean()
        assert skewness == pytest.approx(2.0 / math.sqrt(n), rel=0.05, abs=0.02)


def test_maps_without_a_halo() -> None:
    rng = np.random.default_rng(0)
    maps = np.exp(rng.standard_normal((2, 17, 17)))
    order = rng.permutation(17**2)
    mixed = fluctuations.shuffled(maps, order)
    assert np.array_equal(np.sort(mixed[1].ravel()), np.sort(maps[1].ravel()))
    assert np.array_equal(mixed[0].ravel(), maps[0].ravel()[order])
    scrambled = fluctuations.random_phases(maps, rng.standard_normal((17, 17)))
    assert scrambled.min() > 0.0
    powers = [np.abs(np.fft.fft2(np.log(m))) for m in (maps, scrambled)]
    assert powers[1] == pytest.approx(powers[0])
    assert np.corrcoef(np.log(maps[0]).ravel(), np.log(scrambled[0]).ravel())[0, 1] < 0.4


def test_shear_and_kaiser_squires_are_inverse() -> None:
    kappa = np.random.default_rng(0).standard_normal((33, 33))
    found = observe.kaiser_squires(observe.shear_of(kappa))
    assert found == pytest.approx(kappa - kappa.mean(), abs=1e-12)
    # A plane wave along x has gamma_1 = kappa; along y gamma_1 = -kappa; gamma_2 = 0.
    wave = np.cos(2 * np.pi * 3 * np.arange(33) / 33)[None].repeat(33, 0)
    assert observe.shear_of(wave) == pytest.approx(wave, abs=1e-12)
    assert observe.shear_of(wave.T) == pytest.approx(-wave.T, abs=1e-12)


def test_noise_of_a_lensing_map_is_that_of_the_shapes() -> None:
    pixel = observe.pixel_arcmin(0.2, 40.0)
    noise = observe.shape_noise(0.37, 100.0, pixel)
    assert noise == pytest.approx(0.37 / math.sqrt(2 * 100.0 * pixel**2))
    white = np.random.default_rng(0).standard_normal((2, 200, 200))
    empty = observe.lensing_map(np.zeros((200, 200)), 3e9, noise, white)
    assert empty.std() / 3e9 == pytest.approx(noise, rel=0.02)
    # A clump that is small in the map stays where it is, but for the mean.
    x = np.arange(200) - 99.5
    clump = 1e9 * np.exp(-0.5 * np.hypot(*np.meshgrid(x, x)) ** 2 / 8.0**2)
    found = observe.lensing_map(clump, 3e9, 0.0, white)
    off = np.abs(found - clump + clump.mean()) / 1e9
    assert off[20:-20, 20:-20].max() < 0.02
    # Borders are known less well, as for every such map.
    assert off.max() < 0.05


def test_photons_are_those_of_the_flux() -> None:
    """1e45 erg/s in one pixel at z = 0.2, with a luminosity distance of 985 Mpc."""
    white = np.random.default_rng(0).standard_normal((8, 8))
    xray = np.full((8, 8), 1e45 / LSUN / 40.0**2)
    flux = 1e45 / (4 * math.pi * (985.0e3 * CM_PER_KPC) ** 2)
    expected = flux / (1.5 * 1.60218e-9) * 400.0 * 5e4
    found = observe.photons(xray, 0.2, 40.0, 400.0 * 5e4 / 1.5, white)
    assert found.mean() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("mean", [1e-3, 3.0, 99.0, 101.0, 2e3])
def test_counts_are_quantiles_of_a_poisson_distribution(mean: float) -> None:
    white = np.linspace(-6.0, 6.0, 401)
    found = observe.counts(np.full(401, mean), white)
    assert np.array_equal(found, poisson.ppf(ndtr(white), mean))


def test_photons_of_a_pixel_do_not_depend_on_the_others() -> None:
    """A brighter centre leaves the photons elsewhere as they were."""
    xray = np.geomspace(1e3, 1e9, 400).reshape(20, 20)
    brighter = xray.copy()
    brighter[3, 4] *= 2.0
    white = np.random.default_rng(0).standard_normal((20, 20))
    first, second = (observe.photons(x, 0.2, 40.0, 1e7, white) for x in (xray, brighter))
    assert np.argwhere(first != second).tolist() == [[3, 4]]
