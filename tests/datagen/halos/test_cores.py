"""Halos and cores: check values, conservation of mass, and a slow transcription of each model."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from datagen.halos import baryons, isothermal, jeans, nfw, parametric
from datagen.halos.core import Core, density
from datagen.halos.cosmology import Array, critical_density, lensing_density
from datagen.halos.dpie import Dpie
from datagen.halos.nfw import Nfw
from datagen.halos.scattering import Scattering

# sigma/m [cm^2/g]: r_1 [kpc], radius of half the central density [kpc], rho_0 [Msun/kpc^3].
CHECK = {
    0.1: (21.8, 15.5, 4.13e7),
    0.2: (54.7, 35.9, 1.63e7),
    0.3: (84.0, 51.6, 1.057e7),
    1.0: (218.5, 106.5, 3.99e6),
}
SIGMA = np.array([0.01, 0.1, 0.3, 1.0, 3.0])
AGE = np.full(5, 5.0)


def halos(c: float = 3.8, n: int = 5) -> Nfw:
    return nfw.halo(np.full(n, 5e14), c, 0.2)


def mass_within_r1(halo: Nfw, core: Core) -> Array:
    """Integrate the density as it is, on a fine grid."""
    r = np.geomspace(1e-4, 1.0, 20_001) * core.r_1[:, None]
    shells = 4.0 * math.pi * r**3 * density(halo, core, r * (1.0 - 1e-12))
    return np.trapezoid(shells, np.log(r), axis=-1)


@pytest.fixture(scope="module")
def colossus() -> object:
    """Return the mass functions of another code, in our cosmology."""
    cosmology = pytest.importorskip("colossus.cosmology.cosmology")
    ours = {"flat": True, "H0": 70.0, "Om0": 0.279, "Ob0": 0.046, "sigma8": 0.82, "ns": 0.97}
    return cosmology.setCosmology("ours", params=ours | {"relspecies": False, "persistence": ""})


def test_jeans_cores_have_the_check_values() -> None:
    core = jeans.solve(halos(n=4), np.array(list(CHECK)), AGE[:4])
    found = np.stack([core.r_1, core.r_half, core.rho_0], -1)
    assert found == pytest.approx(np.array(list(CHECK.values())), rel=0.01)


def test_jeans_agrees_with_a_literal_transcription() -> None:
    """The conditions of Kaplinghat et al. one after another, by other solvers."""
    rho_s, r_s = (float(x[0]) for x in (halos(n=1).rho_s, halos(n=1).r_s))
    gravity, sigma = 4.30073e-6, 0.3 * 2.0885e-10

    found = solve_ivp(
        lambda x, u: [u[1], math.exp(-u[0]) - 2.0 * u[1] / x],
        (1e-4, 20.0), [1e-8 / 6.0, 1e-4 / 3.0], rtol=1e-9, atol=1e-12, dense_output=True,
    )  # fmt: skip

    def sphere(x: float) -> tuple[float, float]:
        phi, slope = found.sol(x)
        return math.exp(-phi), x**2 * slope

    r_1 = 80.0
    for _ in range(7):
        x = r_1 / r_s
        rho_1 = rho_s / (x * (1.0 + x) ** 2)
        mass = 4.0 * math.pi * rho_s * r_s**3 * (math.log(1.0 + x) - x / (1.0 + x))
        q = mass / (4.0 * math.pi * r_1**3 * rho_1)
        x_1 = brentq(lambda x, q=q: sphere(x)[1] / (x**3 * sphere(x)[0]) - q, 0.1, 20.0, xtol=1e-5)
        rho_0 = rho_1 / sphere(x_1)[0]
        s = r_1 / x_1 * math.sqrt(4.0 * math.pi * gravity * rho_0)
        rate = sigma * 4.0 / math.sqrt(math.pi) * s * 5.0 / 0.9778
        r_1 = brentq(lambda r, k=rate: rho_s / (r / r_s * (1 + r / r_s) ** 2) * k - 1, 1.0, 900.0)
    core = jeans.solve(halos(n=1), np.array([0.3]), np.array([5.0]))
    assert (r_1, rho_0, s) == pytest.approx(
        (core.r_1[0], core.rho_0[0], core.s_1d[0]), rel=1e-3
    )  # fmt: skip


def test_isothermal_sphere() -> None:
    """Expansion at the centre and the largest ratio, as in Binney & Tremaine."""
    table = isothermal.table()
    x = np.exp(table.ln_x[:600])
    assert np.abs(table.ln_y[:600] + x**2 / 6.0 - x**4 / 120.0).max() < 1e-4 * x.max() ** 2
    assert table.q[0] == pytest.approx(1.0 / 3.0, rel=1e-5)
    assert table.q[-1] == pytest.approx(1.2615, rel=1e-4)
    assert np.all(np.diff(table.q[300:]) > 0.0)
    assert isothermal.half_density_radius() == pytest.approx(2.2746, rel=1e-3)


@pytest.mark.parametrize("c", [2.5, 3.8, 8.0])
@pytest.mark.parametrize("engine", ["jeans", "baryons", "parametric"])
def test_mass_within_r1_is_that_of_the_halo(engine: str, c: float) -> None:
    halo = halos(c)
    core = parametric.solve(halo, SIGMA, AGE) if engine == "parametric" else None
    if core is None:
        core = jeans.solve(halo, SIGMA, AGE)
    if engine == "baryons":
        stars = Dpie(np.full(5, 9e11), np.full(5, 3.0), np.full(5, 40.0))
        core = baryons.solve(halo, core, Scattering(SIGMA, AGE), stars)
    assert mass_within_r1(halo, core) == pytest.approx(halo.mass(core.r_1), rel=1e-3)
    outside = 1.0001 * core.r_1[:, None]
    inside = 0.9999 * core.r_1[:, None]
    jump = density(halo, core, outside) / density(halo, core, inside)
    # The fit to simulations falls by some 10 % where NFW goes on, in a collapsing halo by more.
    tolerance = 0.15 if engine == "parametric" else 1e-3
    assert jump == pytest.approx(np.ones((5, 1)), abs=tolerance)


def test_no_self_interaction_leaves_the_halo() -> None:
    r = np.geomspace(0.1, 900.0, 50)[None]
    for solve in (jeans.solve, parametric.solve):
        core = solve(halos(n=1), np.zeros(1), np.full(1, 5.0))
        assert core.r_1[0] == 0.0
        assert np.array_equal(density(halos(n=1), core, r), halos(n=1).density(r))


def test_stars_contract_cores_and_few_stars_do_not() -> None:
    halo = halos()
    alone = jeans.solve(halo, SIGMA, AGE)

    def with_stars(mass: float) -> Core:
        stars = Dpie(np.full(5, mass), np.full(5, 3.0), np.full(5, 40.0))
        return baryons.solve(halo, alone, Scattering(SIGMA, AGE), stars)

    few, many = with_stars(1e6), with_stars(1.5e12)
    # Heun's rule and the table of the sphere differ by their steps.
    assert few.r_1 == pytest.approx(alone.r_1, rel=2e-3)
    assert few.rho_0 == pytest.approx(alone.rho_0, rel=5e-3)
    assert np.all(many.r_half[1:] < 0.9 * alone.r_half[1:])
    assert np.all(many.r_1 > alone.r_1)


def test_cores_with_stars_are_in_equilibrium() -> None:
    """s^2 d ln rho / dr = -G M / r^2, from the density alone."""
    stars = Dpie(np.full(1, 9e11), np.full(1, 3.0), np.full(1, 40.0))
    halo = halos(n=1)
    alone = jeans.solve(halo, np.array([0.3]), np.array([5.0]))
    core = baryons.solve(halo, alone, Scattering(np.array([0.3]), np.array([5.0])), stars)
    r = np.geomspace(1e-3, 0.999, 4001) * core.r_1[0]
    rho = density(halo, core, r[None])[0]
    mass = np.concatenate(
        [[0.0], np.cumsum(4 * math.pi * np.diff(r) * 0.5 * ((r**2 * rho)[1:] + (r**2 * rho)[:-1]))]
    )
    pull = 4.30073e-6 * (mass + stars.enclosed(r)) / r
    ln_rho = np.interp(np.log(r) + 0.1, np.log(r), np.log(rho)) - np.log(rho)
    middle = slice(1500, 3500)
    mean_pull = np.interp(np.log(r) + 0.05, np.log(r), pull)
    assert (core.s_1d[0] ** 2 * ln_rho / 0.1)[middle] == pytest.approx(-mean_pull[middle], rel=0.02)


def test_velocity_dependence_acts_at_the_speed_of_the_particles() -> None:
    core = jeans.solve(halos(), SIGMA, AGE, velocity=1000.0)
    speed = 4.0 / math.sqrt(math.pi) * core.s_1d
    assert core.cross_section == pytest.approx(SIGMA / (1.0 + speed**2 / 1e6))
    same = jeans.solve(halos(), core.cross_section, AGE)
    assert core.r_1 == pytest.approx(same.r_1, rel=1e-6)


@pytest.mark.parametrize("velocity", [500.0, 2000.0])
def test_velocity_dependence_acts_at_the_dispersion_that_stars_make(velocity: float) -> None:
    """Of particles at r_1 each scatters once, with the cross-section at their own speed."""
    halo, stars = halos(), Dpie(np.full(5, 9e11), np.full(5, 3.0), np.full(5, 40.0))
    alone = jeans.solve(halo, SIGMA, AGE, velocity)
    core = baryons.solve(halo, alone, Scattering(SIGMA, AGE, velocity), stars)
    speed = 4.0 / math.sqrt(math.pi) * core.s_1d
    assert np.all(core.s_1d > 1.01 * alone.s_1d)
    assert core.cross_section == pytest.approx(SIGMA / (1.0 + (speed / velocity) ** 2))
    n_scatterings = halo.density(core.r_1) * core.cross_section * 2.0885e-10 * speed * 5.0 / 0.9778
    assert n_scatterings == pytest.approx(np.ones(5), rel=1e-3)


def test_radius_of_a_density_is_the_inverse_of_the_density() -> None:
    r = np.geomspace(1e-6, 1e4, 30)
    halo = halos(n=1)
    assert halo.radius(halo.density(r)) == pytest.approx(r, rel=1e-9)


def test_parametric_halos_are_rounder_where_particles_scatter() -> None:
    """The joint stays at some 0.2 r_s as the cross-section goes to 0, rounding does not."""
    sigma = np.array([1e-4, 1e-2, 1.0])
    halo, core = halos(n=3), parametric.solve(halos(n=3), sigma, AGE[:3])
    speed = 4.0 / math.sqrt(math.pi) * core.s_1d
    n_scatterings = halo.density(core.r_round) * sigma * 2.0885e-10 * speed * 5.0 / 0.9778
    assert n_scatterings == pytest.approx(np.ones(3))
    assert core.r_round[0] < 1e-3 * core.r_1[0]
    same = jeans.solve(halo, sigma, AGE[:3])
    assert np.array_equal(same.r_round, same.r_1)
    # Far inside, where the Jeans model has slower particles, the engines differ.
    assert core.r_round[2] == pytest.approx(same.r_round[2], rel=0.5)


def test_parametric_model_begins_as_nfw_and_collapses() -> None:
    rho_s, r_s, r_c = parametric.parameters(np.array([1e-12, 0.1, 1.0]))
    assert (rho_s[0], r_s[0], r_c[0]) == pytest.approx((1.0, 1.0, 0.0), abs=1e-5)
    assert rho_s[2] > 2.0 * rho_s[1]
    # t_c of a halo with rho_s = 1e7 Msun/kpc^3, r_s = 100 kpc and 1 cm^2/g, by hand.
    halo = Nfw(np.array(1e7), np.array(100.0), np.array(1000.0))
    rate = 2.0885e-10 * 1e7 * 100.0 * math.sqrt(4 * math.pi * 4.30073e-6 * 1e7)
    assert parametric.collapse_time(halo, np.array(1.0)) == pytest.approx(200.0 / rate * 0.9778)


def test_halos_agree_with_colossus(colossus: object) -> None:
    from colossus.halo import concentration, profile_nfw

    h, r = 0.7, np.geomspace(1.0, 3000.0, 30)
    theirs = profile_nfw.NFWProfile(M=5e14 * h, c=3.8, z=0.2, mdef="200c")
    ours = halos(n=1)
    assert ours.density(r) == pytest.approx(theirs.density(r * h) * h**2, rel=2e-3)
    assert ours.mass(r) == pytest.approx(theirs.enclosedMass(r * h) / h, rel=2e-3)
    found = concentration.concentration(5e14 * h, "200c", 0.2, model="duffy08")
    assert nfw.mean_concentration(5e14, 0.2) == pytest.approx(found, rel=1e-3)
    rho_c = colossus.rho_c(0.2) * h**2  # type: ignore[attr-defined]
    assert critical_density(0.2) == pytest.approx(rho_c, rel=1e-3)
    distances = [colossus.angularDiameterDistance(z) / h for z in (0.2, 1.0)]  # type: ignore[attr-defined]
    between = distances[1] - distances[0] * 1.2 / 2.0
    expected = 299792.458**2 / (4 * math.pi * 4.30073e-6) * distances[1]
    assert lensing_density(0.2, 1.0) == pytest.approx(
        expected / distances[0] / between / 1e3, rel=1e-3
    )


def test_halos_keep_their_mass_and_fall_off_beyond_r200() -> None:
    halo = halos(n=1)
    assert halo.mass(halo.r_200) == pytest.approx(np.full(1, 5e14))
    x = np.array([0.3, 1.0, 1.0 + 1e-6, 2.6, 10.0])
    factor = nfw.truncation(x * halo.r_200, halo.r_200)
    assert factor[:3] == pytest.approx(1.0, abs=1e-5)
    # rho (tau^2 / (tau^2 + x^2))^2 of Baltz et al., relative to its value at r_200
    assert factor[3:] == pytest.approx(((1 + 2.6**2) / (2.6**2 + x[3:] ** 2)) ** 2)
