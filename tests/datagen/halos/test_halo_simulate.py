"""Simulated clusters: what depends on what, over the whole prior, in all suites."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import halos as benchmark
from datagen.halos import gas, render
from datagen.halos.grid import Grid
from datagen.halos.group import prepare
from datagen.halos.power_laws import moment, power_law
from datagen.halos.prior import draw_clusters, draw_rotation, draw_subhalos
from datagen.halos.projection import project
from datagen.halos.simulate import Made, Simulator
from tests.datagen.halos.suites import suite

NUMBERS = np.arange(3)


@pytest.fixture(scope="module")
def several() -> Made:
    """Return three clusters of the test suite from two directions."""
    return Simulator(suite(), 7, 2)(NUMBERS)


def test_maps_depend_on_the_number_of_their_cluster_alone(several: Made) -> None:
    assert several.maps.shape == (3 * 4 * 2, 3, 20, 20)
    assert several.truth["INDEX"].tolist() == list(range(24))
    assert several.truth["CLUSTER"].tolist() == [k // 8 for k in range(24)]
    assert several.truth["PROJECTION"].tolist() == [k % 2 for k in range(24)]
    assert several.truth["CROSS_SECTION"][8:16].tolist() == [0, 0, 0.1, 0.1, 0.3, 0.3, 1, 1]
    alone = Simulator(suite(), 7, 2)(NUMBERS[1:2])
    assert np.array_equal(alone.maps, several.maps[8:16])
    for name, column in several.truth.items():
        assert np.array_equal(alone.truth[name], column[8:16], equal_nan=True), name
    other = Simulator(suite(cross_sections=[0.0]), 8, 2)(NUMBERS[1:2])
    assert not np.array_equal(other.maps, alone.maps[:2])


def test_cross_sections_share_all_random_numbers() -> None:
    """Other cross-sections beside one do not change its maps, and X-rays know none of them."""
    quiet = {"imaging__particle_mass": 0.0}
    four = Simulator(suite(**quiet), 7, 1)(NUMBERS[:1])
    one = Simulator(suite(cross_sections=[0.3], **quiet), 7, 1)(NUMBERS[:1])
    assert np.array_equal(one.maps[0], four.maps[2])
    mass, xray, stars = four.maps.transpose(1, 0, 2, 3).astype(float)
    assert np.array_equal(xray, xray[:1].repeat(4, 0))
    # Self-interaction moves mass at the centre; far out hardly anything changes.
    change = np.abs(np.log(mass[3] / mass[0]))
    assert change[9:11, 9:11].max() > 0.02
    assert np.concatenate([change[0], change[-1]]).max() < 0.01
    assert np.median(np.abs(np.log(stars[3] / stars[0]))) < 1e-3


@pytest.mark.parametrize("is_on", [False, True])
def test_noise_of_xrays_knows_no_cross_section(is_on: bool) -> None:
    changes = {"observation__is_on": is_on, "stars__is_felt": True}
    xray = Simulator(suite(**changes), 7, 1)(NUMBERS[:1]).maps[:, 1]
    assert np.array_equal(xray, xray[:1].repeat(4, 0))


@pytest.mark.parametrize("engine", ["jeans", "parametric"])
def test_weak_self_interaction_leaves_maps_as_they_were(engine: str) -> None:
    """Nothing but the centre may jump where the cross-section is no longer 0."""
    changes: dict[str, Any] = {"engine": engine, "cross_sections": [0.0, 1e-4]}
    changes |= {"imaging__side": 30, "imaging__pixel_scale": 20.0}
    group = prepare(suite(**changes), 0, np.arange(2))
    grid = Grid(30, 20.0, 2, 2, 0.0)
    for k in range(2):
        seen = render.view(group, k, draw_rotation(0, k, 0))
        none, weak = (render.mass_map(group, seen, s, grid) for s in range(2))
        assert np.abs(weak / none - 1.0).max() < 1e-3


def test_what_evaporates_tells_the_cross_section_far_out() -> None:
    """Without evaporation and mergers nothing changes far from a core of a few 100 kpc."""
    grid = Grid(50, 40.0, 1, 1, 0.0)
    is_far = np.hypot(*grid.pixels()) > 600.0
    shares = {}
    for is_evaporated in (True, False):
        changes: dict[str, Any] = {"substructure__is_evaporated": is_evaporated}
        changes |= {"substructure__merger_share": 0.0, "cross_sections": [0.0, 0.3]}
        group = prepare(suite(**changes), 0, np.arange(4))
        views = [render.view(group, k, draw_rotation(0, k, 0)) for k in range(4)]
        maps = [[render.mass_map(group, seen, s, grid) for s in range(2)] for seen in views]
        shares[is_evaporated] = [np.abs(one / none - 1.0)[is_far].max() for none, one in maps]
        assert (group.bound(0, 1).sum() < group.bound(0, 0).sum()) == is_evaporated
    assert min(shares[True]) > 0.002
    assert max(shares[False]) < 1e-4


def test_gas_of_merging_halos_is_that_of_the_suite() -> None:
    """Feedback and the size of the gas core reach both halos of a merger."""
    chosen = suite(substructure__merger_share=1.0, gas__agn="1.5", gas__core=0.2)
    group = prepare(chosen, 0, np.arange(1))
    grid, clusters = Grid(50, 80.0, 1, 1, 0.0), group.clusters
    seen = render.view(group, 0, draw_rotation(0, 0, 0))
    fraction, beta = 0.12 * 10**-0.15, float(clusters.beta[0])
    core, second = float(clusters.gas_core[0]), group.companion.one(0)
    main = gas.emission(group.host.one(0), fraction, core, beta, bool(clusters.is_cool[0]))
    other = gas.emission(second, fraction, 0.2 * 10**0.225 * float(second.r_200), beta, False)
    x, y = grid.pixels()
    x_0, y_0 = seen.place(clusters.companion.position[0])
    r2 = (x - x_0) ** 2 + (y - y_0) ** 2
    expected = main.surface(seen.gas.radius2(x, y)) + other.surface(r2)
    assert render.xray_map(group, seen, grid) == pytest.approx(expected)


@pytest.mark.parametrize("engine", ["jeans", "parametric"])
def test_the_mass_of_a_map_does_not_tell_the_cross_section(engine: str) -> None:
    changes: dict[str, Any] = {"engine": engine, "imaging__particle_mass": 0.0}
    changes |= {"imaging__centre_supersampling": 20, "imaging__depth": 4e3}
    made = Simulator(suite(**changes), 1, 1)(np.arange(4))
    total = made.maps[:, 0].astype(float).sum((1, 2)).reshape(4, 4)
    assert total / total[:, :1] == pytest.approx(np.ones((4, 4)), abs=0.004)


def test_suites_of_one_seed_share_their_clusters(several: Made) -> None:
    a = {name: column[:16:2] for name, column in several.truth.items()}
    plus = Simulator(suite(gas__agn="1.5"), 7, 1)(NUMBERS[:2])
    for name in ("M200", "REDSHIFT", "C200", "Q", "ANGLE", "MERGER", "N_SUB"):
        assert np.array_equal(a[name], plus.truth[name]), name
    assert plus.truth["R_GAS"] == pytest.approx(a["R_GAS"] * 10**0.225)
    assert plus.truth["M_BCG"] == pytest.approx(a["M_BCG"] * 10**-0.12)
    other = Simulator(suite(engine="parametric"), 7, 1)(NUMBERS[:2])
    assert np.array_equal(other.truth["M200"], a["M200"])
    assert np.array_equal(other.maps[::4, 2], several.maps[:16:8, 2])


@pytest.mark.parametrize("content", ["shuffled", "phases", "empty"])
def test_maps_without_a_halo_have_no_cross_section(content: str, several: Made) -> None:
    made = Simulator(suite(content=content, cross_sections=[0.0]), 7, 1)(NUMBERS)
    assert np.isnan(made.truth["CROSS_SECTION"]).all()
    assert made.maps.min() > 0.0
    mass = made.maps[:, 0]
    centre, rim = mass[:, 8:12, 8:12].mean((1, 2)), mass[:, 0].mean(1)
    halos = several.maps[::8, 0]
    contrast = halos[:, 8:12, 8:12].mean((1, 2)) / halos[:, 0].mean(1)
    assert np.all(centre / rim < 0.5 * contrast)


def test_observed_maps_are_counts_and_convergence() -> None:
    made = Simulator(suite(observation__is_on=True, cross_sections=[0.3]), 7, 1)(NUMBERS[:1])
    assert np.array_equal(made.maps[:, 1], made.maps[:, 1].round())
    assert np.abs(made.maps[:, 0].mean((1, 2))).max() < 1e-3 * made.maps[:, 0].max()
    assert made.maps[:, 0].min() < 0.0


def test_channels_are_in_the_order_of_the_settings(several: Made) -> None:
    chosen = Simulator(suite(imaging__channels=["stars", "mass"]), 7, 1)(NUMBERS[:1]).maps
    assert np.array_equal(chosen, several.maps[:8:2, [2, 0]])


LIMITS = {
    "population__concentration_scatter": (0.0, 0.4),
    "population__roundness": (0.0, 1.0),
    "stars__scatter": (0.0, 0.5),
    "stars__wobble": (0.0, 1.0),
    "gas__core": (0.005, 0.5),
    "background__scatter": (0.0, 1.0),
    "substructure__merger_share": (0.0, 1.0),
    "imaging__softening": (0.1, 100.0),
}


@given(
    values=st.fixed_dictionaries({name: st.floats(*limits) for name, limits in LIMITS.items()}),
    mass=st.floats(13.0, 15.9),
    sigma=st.floats(1e-4, 10.0),
    seed=st.integers(0, 10**6),
    is_jeans=st.booleans(),
)
@settings(max_examples=8, deadline=None)
def test_maps_are_positive_and_finite_over_the_whole_prior(
    values: dict[str, float], mass: float, sigma: float, seed: int, is_jeans: bool
) -> None:
    more: dict[str, Any] = {"population__m_min": 10**mass, "population__m_max": 1e16}
    more |= {"population__axis_ratio": "uniform(0.3, 1)", "population__age": "uniform(0.5, 13)"}
    more |= {"population__redshift": "uniform(0.02, 1.5)", "gas__agn": "uniform(-5, 5)"}
    more |= {"engine": "jeans" if is_jeans else "parametric", "stars__is_felt": is_jeans}
    more |= {"cross_sections": [0.0, sigma], "imaging__side": 8, "imaging__pixel_scale": 250.0}
    made = Simulator(suite(**values, **more), seed, 1)(np.arange(2))
    assert np.isfinite(made.maps).all()
    assert made.maps.min() > 0.0
    for name, column in made.truth.items():
        assert np.isfinite(column[made.truth["CROSS_SECTION"] > 0.0]).all(), name


def test_shapes_and_masses_of_the_population() -> None:
    """What is drawn has the distributions that the settings name."""
    chosen = suite()
    drawn = draw_clusters(chosen, 5, np.arange(400))
    views = [(k, p) for k in range(400) for p in range(3)]
    q = [project(drawn.axes[k], draw_rotation(5, k, p)).axis_ratio() for k, p in views]
    assert np.mean(q) == pytest.approx(0.70, abs=0.01)
    assert np.std(q) == pytest.approx(0.11, abs=0.008)
    # n(> M) ~ M^-2.2
    shares = [(drawn.mass > 2e14 * factor).mean() for factor in (2.0, 4.0)]
    assert shares == pytest.approx([2.0**-2.2, 4.0**-2.2], abs=0.05)
    assert (drawn.companion.mass > 0.0).mean() == pytest.approx(0.25, abs=0.06)
    assert drawn.is_cool.mean() == pytest.approx(0.4, abs=0.08)
    counts = [len(draw_subhalos(chosen.substructure, 5, k).share) for k in range(200)]
    assert np.mean(counts) == pytest.approx(14.0, abs=0.8)
    assert np.var(counts) == pytest.approx(14.0, rel=0.3)
    u = np.linspace(0.0, 1.0, 5)
    assert power_law(u, 1.0, 100.0, 1.0) == pytest.approx(100.0**u)
    # The mean of dN/dm ~ m^-2 between 1 and 2 is 2 ln 2.
    assert moment(1.0, 1.0, 2.0, 2.0) == pytest.approx(2.0 * np.log(2.0), rel=1e-5)
    assert moment(2.0, 3.0, 3.0, 1.9) == pytest.approx(9.0)
    old = dataclasses.replace(chosen.population, age="normal(5, 1.5)")
    drawn = draw_clusters(dataclasses.replace(chosen, population=old), 5, np.arange(400))
    excess = np.log(drawn.concentration * drawn.mass**0.084 * (1.0 + drawn.redshift) ** 0.47)
    assert np.corrcoef(excess, drawn.age)[0, 1] == pytest.approx(0.5, abs=0.1)


def test_mass_of_substructure_is_taken_from_the_host() -> None:
    group = prepare(suite(), 3, np.arange(4))
    for k in range(4):
        shares = [group.smooth_share(k, s) for s in range(4)]
        at_first = group.subhalos[k].share.sum() + (
            group.clusters.companion.mass[k] / group.clusters.mass[k]
        )
        assert shares[0] == pytest.approx(1.0 - at_first)
        # What evaporates goes to the host.
        assert np.all(np.diff(shares) >= 0.0)


def test_profiles_and_lda_of_the_benchmark() -> None:
    """Two classes that a ring tells apart, and two that nothing does."""
    rng = np.random.default_rng(0)
    maps = np.exp(0.1 * rng.standard_normal((400, 1, 16, 16))).astype(np.float32)
    labels, groups = np.arange(400) % 2, np.arange(400) // 4
    blind = benchmark.lda_accuracy(benchmark.profiles(maps, 8), labels, groups, 0)
    maps[labels == 1, :, 7:9, 7:9] *= 1.5
    features = benchmark.profiles(maps, 8)
    assert features[labels == 1, 0].mean() - features[labels == 0, 0].mean() == pytest.approx(
        np.log10(1.5), abs=0.02
    )
    assert benchmark.lda_accuracy(features, labels, groups, 0) > 0.95
    assert 0.3 < blind < 0.7
    parts = benchmark.split(groups, 0)
    assert sum(parts).tolist() == [1] * 400
    assert not set(groups[parts[0]]) & set(groups[parts[2]])


@pytest.mark.slow
def test_lda_agrees_with_scikit_learn() -> None:
    discriminant = pytest.importorskip("sklearn.discriminant_analysis")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    features = rng.standard_normal((600, 5)) @ rng.standard_normal((5, 5)) + labels[:, None]
    theirs = discriminant.LinearDiscriminantAnalysis(priors=[1 / 3] * 3).fit(features, labels)
    ours = benchmark.lda(features, labels, features, 0.0)
    assert (ours == theirs.predict(features)).mean() > 0.995


@pytest.mark.slow
def test_radial_profiles_find_as_many_classes_as_is_realistic() -> None:
    """Four classes at 50 px, 0.50 when measured: neither trivial nor hopeless."""
    made = benchmark.simulate(benchmark.suite("a", 50), 200)
    labels = np.searchsorted([0.0, 0.1, 0.3, 1.0], made.truth["CROSS_SECTION"])
    features = benchmark.profiles(made.maps[:, :1])
    found = [benchmark.lda_accuracy(features, labels, made.truth["CLUSTER"], s) for s in range(10)]
    assert 0.47 < np.mean(found) < 0.65
