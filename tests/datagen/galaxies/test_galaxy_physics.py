"""Light, sizes, shapes, relations and histories against closed forms and other libraries."""

from __future__ import annotations

import math

import galsim
import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM
from scipy.special import ndtri
from scipy.stats import kstest, poisson

from datagen.galaxies import physics
from datagen.galaxies.galaxy import make_galaxies
from datagen.galaxies.group import MASS_PIVOT, draw_halos, nfw_radius
from datagen.galaxies.history import Epoch, History, draw_history
from datagen.galaxies.population import Galaxies, draw_galaxies, light
from datagen.galaxies.settings import GalaxiesSettings
from datagen.galaxies.streams import Array, Streams, quantile, rotation
from tests.datagen.galaxies.suites import suite

N = 20_000


def relations(name: str = "a") -> GalaxiesSettings:
    settings = suite(name).galaxies
    assert settings is not None
    return settings


def population(name: str = "a") -> Galaxies:
    u = np.random.default_rng(0).random((4, N))
    settings = relations(name)
    return draw_galaxies(settings, quantile(settings.distribution("log_mass"), u[0]), u[1:])


def line(x: Array, y: Array) -> tuple[float, float, float]:
    """Return slope, intercept and scatter of a straight line."""
    slope, intercept = np.polyfit(x, y, 1)
    return float(slope), float(intercept), float(np.std(y - slope * x - intercept))


def test_masses_and_quenched_shares_are_recovered() -> None:
    drawn = population()
    assert drawn.log_mass.mean() == pytest.approx(10.4, abs=0.01)
    assert drawn.log_mass.std() == pytest.approx(0.45, abs=0.01)
    for low in (9.6, 10.2, 10.6, 11.0):
        here = (drawn.log_mass > low) & (drawn.log_mass < low + 0.1)
        expected = 1.0 / (1.0 + 10.0 ** (-1.5 * (low + 0.05 - 10.6)))
        assert drawn.is_quenched[here].mean() == pytest.approx(expected, abs=0.05)


def test_star_formation_and_sizes_are_recovered() -> None:
    drawn = population()
    late, early = ~drawn.is_quenched, drawn.is_quenched
    log_size = np.log10(drawn.r_eff)
    x = drawn.log_mass
    assert line(x[late] - 10.5, drawn.log_ssfr[late]) == pytest.approx((-0.3, -9.9, 0.25), abs=0.02)
    assert drawn.log_ssfr[early].mean() == pytest.approx(-11.8, abs=0.02)
    assert line(x[late] - 10.7, log_size[late]) == pytest.approx((0.25, 0.86, 0.16), abs=0.02)
    assert line(x[early] - 10.7, log_size[early]) == pytest.approx((0.75, 0.60, 0.10), abs=0.02)


def test_bulges_follow_mass_and_grow_by_mergers() -> None:
    settings, drawn = relations(), population()
    late = ~drawn.is_quenched
    expected = np.clip(0.15 + 0.15 * (drawn.log_mass[late] - 10.4), 0.0, 0.95)
    np.testing.assert_allclose(drawn.bulge[late], expected)
    assert (drawn.bulge[drawn.is_quenched] == 0.7).all()
    grown = draw_galaxies(settings, np.full(2, 10.4), np.full((3, 2), 0.9), np.array([0.0, 0.3]))
    np.testing.assert_allclose(grown.bulge, [0.15, 0.15 + 0.85 * 0.3])


def test_suites_differ_in_what_they_are_named_for_and_share_the_rest() -> None:
    a, b, c = population(), population("b"), population("c")
    np.testing.assert_allclose(np.log10(b.r_eff / a.r_eff), 0.15)
    np.testing.assert_array_equal(b.log_ssfr, a.log_ssfr)
    np.testing.assert_array_equal(c.log_mass, a.log_mass)
    same = c.is_quenched == a.is_quenched
    assert c.is_quenched[~same].all()
    np.testing.assert_array_equal(c.r_eff[same], a.r_eff[same])
    np.testing.assert_array_equal(c.log_ssfr[same], a.log_ssfr[same])
    np.testing.assert_allclose((c.bulge - a.bulge)[same & (a.bulge > 0.0)], 0.15)
    assert (c.clumps == 0.0).all()
    assert a.clumps.max() > 0.1


def test_fluxes_follow_mass_and_parts_share_them() -> None:
    drawn, z = population(), np.full(N, 0.2)
    parts = light(drawn, z, ["g", "r", "i"])
    in_i = parts.total[:, 2]
    magnitude = physics.magnitude_i(drawn.log_mass, drawn.log_ssfr, z)
    np.testing.assert_allclose(-2.5 * np.log10(in_i) + 22.5, magnitude)
    np.testing.assert_allclose(parts.bulge[:, 2] / in_i, drawn.bulge)
    clumped = parts.clumps[:, 2] / (parts.clumps + parts.disc)[:, 2]
    np.testing.assert_allclose(clumped, drawn.clumps)
    # Light is proportional to mass, and quenched galaxies are redder than star-forming ones.
    heavier = physics.magnitude_i(drawn.log_mass + 1.0, drawn.log_ssfr, z)
    np.testing.assert_allclose(magnitude - heavier, 2.5)
    g_r = -2.5 * np.log10(parts.total[:, 0] / parts.total[:, 1])
    assert np.median(g_r[drawn.is_quenched]) > np.median(g_r[~drawn.is_quenched]) + 0.4


def test_colours_are_those_of_the_sourced_sequences_at_both_ends() -> None:
    z = np.array([0.1, 0.3])
    red, blue = (physics.colours(np.full(2, ssfr), z) for ssfr in (-13.0, -9.0))
    from datagen.fields.galaxies import red_sequence
    from datagen.fields.templates import template_colours

    np.testing.assert_allclose(red, red_sequence(z), atol=1e-4)
    np.testing.assert_allclose(blue, template_colours(np.full(2, 2.0), z), atol=1e-4)


def test_light_within_a_radius_is_that_of_galsim() -> None:
    spergel = galsim.Spergel(nu=physics.BULGE_NU, half_light_radius=1.0)
    radii = np.array([0.1, 0.5, 1.0, 3.0])
    expected = [spergel.calculateIntegratedFlux(float(r)) for r in radii]
    np.testing.assert_allclose(physics.bulge_within(radii), expected, rtol=2e-3)
    x = np.linspace(0.0, 2.0, 200_001)
    profile = 1.67834699**2 * x * np.exp(-1.67834699 * x)
    summed = np.trapezoid(profile, x)
    assert float(physics.exponential_within(2.0)) == pytest.approx(summed, rel=1e-6)
    assert float(physics.exponential_within(1.0)) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("bulge", [0.0, 0.15, 0.5, 0.7, 0.95])
def test_half_of_the_light_lies_within_the_half_light_radius(bulge: float) -> None:
    radius = float(physics.half_light(np.array([bulge]), 0.4)[0])
    both = bulge * physics.bulge_within(radius / 0.4)
    both += (1.0 - bulge) * physics.exponential_within(radius)
    assert float(both) == pytest.approx(0.5, abs=1e-4)


def test_ages_scales_and_radii_are_those_of_astropy() -> None:
    cosmology = FlatLambdaCDM(H0=70.0, Om0=0.3, Tcmb0=0.0)
    z = np.array([0.05, 0.3, 0.9973])
    np.testing.assert_allclose(physics.cosmic_age(z), cosmology.age(z).value, rtol=1e-4)
    expected = cosmology.arcsec_per_kpc_proper(z).value
    np.testing.assert_allclose(physics.arcsec_per_kpc(z), expected, rtol=1e-4)
    density = cosmology.critical_density(z).to("Msun/kpc3").value
    radius = physics.r_delta_kpc(1e14, z, 200.0)
    np.testing.assert_allclose(4 / 3 * np.pi * radius**3 * 200 * density, 1e14, rtol=1e-3)


def test_discs_are_seen_as_ellipses_of_uniform_inclination() -> None:
    rng = np.random.default_rng(0)
    axes = [rotation(rng) for _ in range(4000)]
    ratios = np.array([physics.ellipse(a, 0.2)[0] for a in axes])
    # cos i is uniform: so is (q^2 - q0^2) / (1 - q0^2) to the power 1/2.
    assert kstest(np.sqrt((ratios**2 - 0.04) / 0.96), "uniform").pvalue > 0.01
    # Points of a thin ring lie on the ellipse that is said.
    ratio, angle = physics.ellipse(axes[0], 0.0)
    t = np.linspace(0.0, 2 * np.pi, 400)
    x, y, _ = axes[0] @ np.stack([np.cos(t), np.sin(t), np.zeros_like(t)])
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    np.testing.assert_allclose(along**2 + (across / ratio) ** 2, 1.0, atol=1e-9)


def test_histories_are_a_poisson_process() -> None:
    settings, streams = suite().mergers, Streams(0, 0)
    drawn = [draw_history(settings, streams, k) for k in range(1500)]
    counts = np.bincount([len(h.time) for h in drawn], minlength=5)[:5] / len(drawn)
    mean = settings.rate * settings.window
    np.testing.assert_allclose(counts, poisson.pmf(np.arange(5), mean), atol=0.04)
    times = np.concatenate([h.time for h in drawn]) / settings.window
    assert kstest(times, "uniform").pvalue > 0.01
    ratios = np.log10(np.concatenate([h.ratio for h in drawn])) + 1.0
    assert kstest(ratios, "uniform").pvalue > 0.01
    never = [h for h in drawn if not h.time.size]
    assert {(h.last_time, h.last_ratio) for h in never} == {(settings.window, 0.0)}


def test_what_had_happened_earlier() -> None:
    history = History(np.array([1.0, 5.0]), np.array([0.3, 0.6]), np.zeros((2, 3, 3)), 8.0)
    assert history.before(2.0).columns() == {
        "N_MERGERS": 1, "MERGER_TIME": 3.0, "MERGER_RATIO": 0.6, "WINDOW": 6.0}  # fmt: skip
    assert history.before(6.0).columns() == {
        "N_MERGERS": 0, "MERGER_TIME": 2.0, "MERGER_RATIO": 0.0, "WINDOW": 2.0}  # fmt: skip
    assert history.tidal(2.0) == pytest.approx(0.3 * math.exp(-0.5) + 0.6 * math.exp(-2.5))


def test_tidal_light_and_companions_belong_to_recent_mergers() -> None:
    settings, streams, numbers = suite(), Streams(0, 0), np.arange(400)
    past = [draw_history(settings.mergers, streams, k) for k in numbers.tolist()]
    z = np.full(len(numbers), 0.2)
    made = list(make_galaxies(settings, streams, Epoch(numbers, z, z, past)))
    for galaxy, history in zip(made, past, strict=True):
        n_parts = len(list(galaxy.components(np.eye(3))))
        is_near = history.last_time < settings.mergers.sinking_time and history.time.size > 0
        assert n_parts == 3 + (galaxy.tidal > 0.0) + is_near
        assert (galaxy.tidal > 0.0) == (history.time.size > 0)


def test_groups_follow_their_relations() -> None:
    settings = suite("groups").group
    assert settings is not None
    halos = draw_halos(settings, np.random.default_rng(0).random((4, N)))
    excess = halos.log_mass - MASS_PIVOT
    found = line(excess, halos.log_bcg_mass)
    assert found == pytest.approx((0.4, 11.2, 0.12), abs=0.01)
    for low in (-0.4, 0.0, 0.4):
        here = (excess > low) & (excess < low + 0.05)
        mean = 15.0 * 10.0 ** (0.9 * (low + 0.025))
        assert halos.n_satellites[here].mean() == pytest.approx(mean, rel=0.06)
    # Mass within a radius of an NFW profile.
    r = nfw_radius(np.linspace(0.0005, 0.9995, 1000), 5.0)
    within = np.log1p(5.0 * 0.3) - 1.5 / 2.5
    assert (r < 0.3).mean() == pytest.approx(within / (np.log(6.0) - 5.0 / 6.0), abs=2e-3)


def test_streams_know_object_component_and_set() -> None:
    first = Streams(0, 0)
    again = Streams(0, 0).uniform(np.array([5, 7]), "galaxy", 4)
    np.testing.assert_array_equal(first.uniform(np.array([7]), "galaxy", 4)[:, 0], again[:, 1])
    assert (Streams(0, 1).uniform(np.array([5]), "galaxy", 4)[:, 0] != again[:, 0]).all()
    assert np.isfinite(ndtri(again)).all()
