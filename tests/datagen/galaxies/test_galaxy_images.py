"""Images of galaxies, groups and clusters: fluxes, sizes, PSF, noise, what a survey adds."""

from __future__ import annotations

import dataclasses

import galsim
import numpy as np
import pytest
from numpy.typing import NDArray

from datagen.errors import ConfigError
from datagen.galaxies import physics
from datagen.galaxies.cluster import Body, Cluster, beta_model
from datagen.galaxies.galaxy import Galaxy, disc_profile, spheroid
from datagen.galaxies.group import Group
from datagen.galaxies.history import History
from datagen.galaxies.observe import Conditions, draw_conditions, neighbours, observe
from datagen.galaxies.render import Component, draw, moffat
from datagen.galaxies.simulate import Simulator, Stamp
from tests.datagen.galaxies.suites import suite

Array = NDArray[np.float64]
QUIET = {"mergers__rate": 0.0, "galaxies__clump_share": 0.0}


def stamps(name: str = "a", n: int = 2, **changes: object) -> list[Stamp]:
    return list(Simulator(suite(name, **changes), 0, 2)(np.arange(n)))


def growth_radius(image: Array, share: float, scale: float) -> float:
    """Return the radius that holds a share of the light [arcsec], by summing pixels."""
    axis = (np.arange(len(image)) - 0.5 * (len(image) - 1)) * scale
    radius = np.hypot(axis, axis[:, None]).ravel()
    order = np.argsort(radius)
    return float(np.interp(share, np.cumsum(image.ravel()[order]) / image.sum(), radius[order]))


def fwhm_of(image: Array, scale: float) -> float:
    """Return the full width at half maximum along the middle row [arcsec]."""
    row = image[len(image) // 2]
    axis = np.arange(len(row)) * scale
    above = np.flatnonzero(row >= 0.5 * row.max())
    rising, falling = slice(above[0] - 1, above[0] + 1), slice(above[-1], above[-1] + 2)
    left = np.interp(0.5 * row.max(), row[rising], axis[rising])
    right = np.interp(-0.5 * row.max(), -row[falling], axis[falling])
    return float(right - left)


def test_light_is_combined_over_bands_as_if_each_were_drawn() -> None:
    thing = next(Simulator(suite(), 0, 1).objects(np.array([3]), 84))
    assert isinstance(thing, Galaxy)
    axes, psf = np.eye(3), moffat(0.7, 3.5)
    parts = list(thing.components(axes))
    made = draw(parts, psf, 64, 0.3, 3)
    for band in range(3):
        whole = galsim.Sum(
            [part.profile.shift(*part.place) * float(part.fluxes[band]) for part in parts]
        )
        slow = galsim.Convolve([whole, psf]).drawImage(nx=64, ny=64, scale=0.3, dtype=float)
        assert np.abs(made[band] - slow.array).max() < 2e-3 * slow.array.max()


@pytest.mark.parametrize("number", range(4))
def test_fluxes_and_half_light_radii_are_those_of_the_labels(number: int) -> None:
    settings = suite(imaging__side=256, snapshots={84: "0.2"}, **QUIET)
    thing = next(Simulator(settings, 0, 1).objects(np.array([number]), 84))
    assert isinstance(thing, Galaxy)
    # Face-on under a narrow PSF: the growth curve of the i band gives R_EFF.
    narrow = moffat(0.1, 3.5)
    image = draw(thing.components(np.eye(3)), narrow, 256, 0.15, 3)[2]
    labels = thing.labels(np.eye(3))
    total = float(physics.flux(labels["MAG_I"]))
    assert image.sum() == pytest.approx(total, rel=0.02)
    radius = float(labels["R_EFF"] * physics.arcsec_per_kpc(0.2))
    share = 0.5 * total / image.sum()
    # A pixel and the PSF widen the smallest ones.
    assert growth_radius(image, share, 0.15) == pytest.approx(radius, rel=0.03, abs=0.03)


def test_the_psf_has_its_width() -> None:
    point = Component(galsim.Gaussian(sigma=1e-3), np.ones(1))
    image = draw([point], moffat(0.7, 3.5), 257, 0.05, 1)[0]
    assert fwhm_of(image, 0.05) == pytest.approx(0.7, rel=0.01)
    wide = draw([point], moffat(1.4, 3.5, g1=0.1), 257, 0.05, 1)[0]
    assert fwhm_of(wide, 0.05) == pytest.approx(1.4 * np.sqrt(1.1 / 0.9), rel=0.01)


def test_small_and_far_components_keep_their_place_and_light() -> None:
    near = Component(disc_profile(1.0, 0.6, 0.3), np.array([2.0]), (6.0, -9.0), is_whole=False)
    psf = moffat(0.7, 3.5)
    stamp = draw([near], psf, 128, 0.3, 1)[0]
    whole = draw([dataclasses.replace(near, is_whole=True)], psf, 128, 0.3, 1)[0]
    assert stamp.sum() == pytest.approx(2.0, rel=5e-3)
    assert np.abs(stamp - whole).max() < 1e-3 * whole.max()
    y, x = np.indices(stamp.shape) - 63.5
    assert (stamp * x).sum() / stamp.sum() * 0.3 == pytest.approx(6.0, abs=0.02)
    assert (stamp * y).sum() / stamp.sum() * 0.3 == pytest.approx(-9.0, abs=0.02)
    beyond = dataclasses.replace(near, place=(500.0, 0.0))
    assert not draw([beyond], psf, 128, 0.3, 1).any()


def test_half_light_radii_lie_along_the_major_axis() -> None:
    axis = (np.arange(256) - 127.5) * 0.05
    radius = np.hypot(axis, axis[:, None] / 0.5)
    for profile in (disc_profile(1.0, 0.5, 0.0), spheroid(1.0, 0.5, 0.0)):
        # A cusp needs a PSF: without one its transform does not end.
        seen = draw([Component(profile, np.ones(1))], moffat(0.15, 3.5), 256, 0.05, 1)[0]
        assert seen[radius < 1.0].sum() == pytest.approx(0.5, abs=0.015)


def test_a_psf_that_would_take_all_memory_is_refused() -> None:
    wide = Component(spheroid(30.0, 0.5, 0.0), np.ones(1))
    with pytest.raises(ConfigError, match=r"at most 8192 points .* larger galaxy.imaging.fwhm"):
        draw([wide], moffat(0.1, 3.5), 128, 0.3, 1)


def test_noise_is_that_of_sky_and_photons() -> None:
    rng = np.random.default_rng(0)
    sky, ones = np.array([0.01]), np.ones(1)
    seen = Conditions(moffat(0.7, 3.5), 0.7, sky, ones, np.zeros((3, 1)))
    flat = np.full((1, 400, 400), 5.0)
    expected = np.sqrt(0.01**2 + 5.0 / 4e4)
    assert observe(flat, 4e4, seen, rng).std() == pytest.approx(expected, rel=0.01)
    assert observe(0.0 * flat, 4e4, seen, rng).std() == pytest.approx(0.01, rel=0.01)


def test_a_survey_varies_what_it_says_and_suites_without_one_nothing() -> None:
    imaging, off = suite().imaging, suite().systematics
    rng = np.random.default_rng(0)
    plain = draw_conditions(imaging, off, rng)
    assert (plain.fwhm, plain.factor.tolist()) == (0.7, [1.0] * 3)
    on = suite("obs").systematics
    many = [draw_conditions(imaging, on, rng) for _ in range(800)]
    assert np.std([np.log(one.fwhm) for one in many]) == pytest.approx(0.12, rel=0.1)
    depth = [np.log(one.sky[0] / imaging.sky["g"]) for one in many]
    assert np.std(depth) == pytest.approx(0.15, rel=0.1)
    dimming = -2.5 * np.log10([one.factor for one in many])
    excess = dimming[:, 0] - dimming[:, 2]  # g - i reddens by (3.214 - 1.592) E(B-V)
    assert excess.mean() == pytest.approx(1.622 * 0.05, rel=0.12)
    left = np.array([one.background[:, 0] / one.sky[0] for one in many])
    assert left.std() == pytest.approx(0.3, rel=0.1)
    drawn = [len(list(neighbours(23.0, ["g", "r", "i"], 38.4, rng))) for _ in range(60)]
    # 46 x 10^(0.31 (i - 25)) per square arcmin, less what is brighter than 18.
    assert np.mean(drawn) == pytest.approx(11.0 * 0.41, rel=0.25)


def test_suites_share_objects_directions_and_noise() -> None:
    a, c, a2 = (stamps(name, imaging__side=32, **QUIET) for name in ("a", "c", "a2"))
    assert [s.number for s in a] == [0, 0, 1, 1]
    for one, other in zip(a, c, strict=True):
        for name in ("Z", "LOG_MASS", "INCLINATION"):
            assert one.labels[name] == other.labels[name]
    same = suite("b", galaxies__log_size_shift=0.0, imaging__side=32)
    first = next(iter(Simulator(same, 0, 1)(np.array([5]))))
    again = next(iter(Simulator(suite(imaging__side=32), 0, 1)(np.array([5]))))
    np.testing.assert_array_equal(first.image, again.image)
    assert all(s.labels["Z"] != t.labels["Z"] for s, t in zip(a, a2, strict=True))


def test_projections_differ_in_inclination_alone() -> None:
    first, second = stamps(n=1, imaging__side=32)
    differing = {name for name, value in first.labels.items() if value != second.labels[name]}
    assert differing == {"INCLINATION"}
    assert not np.array_equal(first.image, second.image)


def test_obs_shows_the_galaxies_of_a() -> None:
    a, obs = (stamps(name, n=1, imaging__side=32)[0] for name in ("a", "obs"))
    assert a.labels == obs.labels
    assert a.cards[0]["FWHM"] != obs.cards[0]["FWHM"]
    assert obs.cards[0]["SKYSIGMA"] != a.cards[0]["SKYSIGMA"]


def test_beta_models_have_unit_light_within_the_radius() -> None:
    body = Body(1.0, 100.0, 0.67, np.zeros(3))
    axis = np.arange(-1000.0, 1000.0, 5.0) + 2.5
    image = beta_model((axis, axis[:, None]), body, (1.0, 0.0), 800.0)
    within = np.hypot(axis, axis[:, None]) < 800.0
    assert image[within].sum() * 25.0 == pytest.approx(1.0, rel=2e-3)
    assert image.max() / image[200, 219] == pytest.approx((1.0 + 0.95**2) ** 1.51, rel=0.05)
    flat = beta_model((axis, axis[:, None]), body, (0.5, 0.0), 800.0)
    second = [(flat * along**2).sum() for along in (axis[None, :], axis[:, None])]
    assert second[0] > 1.5 * second[1]


def clusters(**changes: object) -> list[Cluster]:
    simulator = Simulator(suite("clusters", **changes), 0, 1)
    made = [next(iter(simulator.objects(np.array([2]), snapshot))) for snapshot in (50, 72, 91, 99)]
    assert all(isinstance(one, Cluster) for one in made)
    return made  # type: ignore[return-value]


def test_clusters_grow_and_merge_in_time() -> None:
    made = clusters(mergers__rate=0.5)
    masses = np.array([one.log_mass for one in made])
    growth, z = made[0].gas.growth[0], np.array([one.z for one in made])
    np.testing.assert_allclose(
        np.log(10.0 ** masses[:-1] / 10.0 ** masses[-1]), -growth * (z - 0.05)[:-1]
    )
    counts = [len(one.history.time) for one in made]
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]
    ages = physics.cosmic_age(z)
    assert made[0].history.window == pytest.approx(12.0 - (ages[-1] - ages[0]))
    # The same merger is as much younger as the universe was.
    shared = made[0].history.time[0]
    np.testing.assert_allclose(
        made[-1].history.time[counts[-1] - counts[0]] - shared, ages[-1] - ages[0]
    )


def test_mergers_destroy_cool_cores_which_come_back() -> None:
    calm = clusters(mergers__rate=0.0, cluster__cool_share=1.0)[-1]
    assert calm.cool == 1.0
    for time, expected in ((0.0, 0.0), (3.0, 1.0 - np.exp(-1.0))):
        past = History(np.array([time]), np.array([0.5]), np.zeros((1, 3, 3)), 12.0)
        assert dataclasses.replace(calm, history=past).cool == pytest.approx(expected)


def test_expected_counts_are_those_of_the_label() -> None:
    settings = suite("clusters", mergers__rate=0.0, cluster__n_clumps=0.0)
    thing = next(Simulator(settings, 0, 1).objects(np.array([1]), 78))
    assert isinstance(thing, Cluster)
    round_one = dataclasses.replace(
        thing, gas=dataclasses.replace(thing.gas, axis_ratio=np.ones(1))
    )
    scale = 20.0 * float(physics.arcsec_per_kpc(thing.z))
    seen = round_one.expected(np.eye(3), settings.imaging, scale) - settings.imaging.sky["xray"]
    axis = (np.arange(128) - 63.5) * 20.0
    within = np.hypot(axis, axis[:, None]) < thing.r500
    assert seen[within].sum() == pytest.approx(thing.counts, rel=0.02)
    made = next(iter(Simulator(settings, 0, 1)(np.array([1]))))
    assert (made.image >= 0.0).all()
    assert (made.image == np.round(made.image)).all()


def test_groups_hold_their_members() -> None:
    simulator = Simulator(suite("groups", imaging__side=64), 0, 1)
    for thing in simulator.objects(np.arange(8), 84):
        assert isinstance(thing, Group)
        labels, parts = thing.labels(np.eye(3)), list(thing.components(np.eye(3)))
        # The brightest galaxy, the light around it, and the satellites, which are all fainter.
        assert len(parts) == 2 + labels["N_SATELLITES"]
        assert labels["GAP"] > 0.0
        brightest, around, *others = (float(part.fluxes[2]) for part in parts)
        assert around == pytest.approx(labels["HALO_SHARE"] * brightest)
        assert 2.5 * np.log10(brightest / max(others)) == pytest.approx(labels["GAP"])
        assert np.linalg.norm(thing.positions(), axis=-1).max() < 2.0 * labels["R200C"]
    assert next(iter(simulator(np.array([5])))).image.shape == (3, 64, 64)


def test_the_last_merger_brings_a_second_group() -> None:
    simulator = Simulator(suite("groups", mergers__rate=0.0), 0, 1)
    alone = next(iter(simulator.objects(np.array([1]), 84)))
    assert isinstance(alone, Group)
    past = History(np.array([1.5]), np.array([0.5]), np.eye(3)[None], 8.0)
    merging = dataclasses.replace(alone, history=past)
    moved = (merging.positions() != alone.positions()).any(-1)
    assert moved.mean() == pytest.approx(1.0 / 3.0, abs=0.25)
    # Half of the sinking time has gone: half of the way is left, along the third axis.
    heaviest = np.argmax(np.where(moved, alone.members.satellites.log_mass, -np.inf))
    expected = np.array([0.0, 0.0, 0.5 * alone.r200])
    np.testing.assert_allclose(merging.positions()[heaviest], expected)
    sunk = History(np.array([5.0]), np.array([0.5]), np.eye(3)[None], 8.0)
    later = dataclasses.replace(alone, history=sunk)
    np.testing.assert_array_equal(later.positions(), alone.positions())
    assert later.halo_share == pytest.approx(1.5 * alone.halo_share)
