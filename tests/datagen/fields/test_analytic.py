"""The analytic prior as a whole."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
from scipy import stats

from datagen.fields import analytic, clusters, galaxies
from datagen.fields.config import PriorConfig
from datagen.fields.psf import PsfModel
from datagen.fields.render import View, get_renderer
from datagen.fields.schema import CATALOG_COLUMNS, CLUSTER_COLUMNS
from datagen.fields.sky import (
    FAR_MAG,
    SkyArea,
    Systems,
    dress_galaxies,
    px_per_mpc,
    source_table,
)
from datagen.seeds import stream


def many_systems(n: int, richness: float, z: float) -> Systems:
    """Return n equal systems at the origin."""
    lam, redshift = np.full(n, richness), np.full(n, z)
    return Systems(
        xy=np.zeros((n, 2)),
        z=redshift,
        richness=lam,
        m200m_msun=clusters.mean_mass_msun(lam, redshift),
        r_lambda_mpc=clusters.r_lambda_mpc(lam),
        is_labelled=np.ones(n, bool),
    )


@pytest.fixture
def patch(area: SkyArea) -> SkyArea:
    return dataclasses.replace(area, is_patch=True)


@pytest.mark.parametrize(("richness", "z"), [(20.0, 0.2), (60.0, 0.35), (120.0, 0.7)])
def test_richness_is_the_mean_number_of_bright_red_members(
    prior_config: PriorConfig, patch: SkyArea, richness: float, z: float
) -> None:
    n = 300
    prior = dataclasses.replace(prior_config, mag_limit=24.0, min_snr=0.0)
    systems = many_systems(n, richness, z)
    members = analytic.draw_members(prior, patch, systems, np.random.default_rng(1))
    separation = np.linalg.norm(members.xy - systems.xy[members.cluster_id], axis=1)
    aperture = (systems.r_lambda_mpc * px_per_mpc(patch, systems.z))[members.cluster_id]
    count = (members.is_counted & members.is_red & (separation <= aperture)).sum() / n
    assert count == pytest.approx(richness, abs=3.5 * np.sqrt(richness / n))


def test_red_fraction_of_counted_members(prior_config: PriorConfig, patch: SkyArea) -> None:
    prior = dataclasses.replace(prior_config, mag_limit=22.0, min_snr=0.0)
    systems = many_systems(200, 80.0, 0.46)
    members = analytic.draw_members(prior, patch, systems, np.random.default_rng(2))
    counted = members.is_red[members.is_counted]
    assert counted.mean() == pytest.approx(0.68, abs=0.02)


@pytest.mark.parametrize("is_red", [True, False])
def test_drawn_members_follow_the_projected_profile(
    prior_config: PriorConfig, patch: SkyArea, is_red: bool
) -> None:
    systems = many_systems(120, 100.0, 0.3)
    members = analytic.draw_members(prior_config, patch, systems, np.random.default_rng(3))
    rows = np.flatnonzero(members.is_red == is_red)
    rows = rows[120:] if is_red else rows  # the first ones are the central galaxies
    rows = np.random.default_rng(0).permutation(rows)[:10_000]
    assert len(rows) == 10_000
    _, scale, x_max = analytic.expected_satellites(prior_config, systems, is_red=is_red)
    radius_mpc = np.hypot(*members.xy[rows].T) * 0.263 / galaxies.cosmology.arcsec_per_mpc(0.3)
    result = stats.kstest(radius_mpc / scale[0], lambda x: clusters.projected_nfw_cdf(x, x_max[0]))
    assert result.pvalue > 0.01


def test_central_galaxy_is_bright_red_and_at_the_centre(
    prior_config: PriorConfig, patch: SkyArea
) -> None:
    systems = many_systems(50, 30.0, 0.4)
    members = analytic.draw_members(prior_config, patch, systems, np.random.default_rng(4))
    assert np.allclose(members.xy[:50], 0.0)
    assert members.is_red[:50].all()
    excess = members.mags[:50, 2] - galaxies.mstar(0.4)
    assert excess.mean() == pytest.approx(-1.5, abs=0.15)


def test_miscentred_galaxies_leave_the_centre(prior_config: PriorConfig, patch: SkyArea) -> None:
    prior = dataclasses.replace(prior_config, miscentring_fraction=1.0, miscentring_mpc=0.2)
    systems = many_systems(400, 5.0, 0.4)
    members = analytic.draw_members(prior, patch, systems, np.random.default_rng(5))
    offset = np.hypot(*members.xy[:400].T) * 0.263 / galaxies.cosmology.arcsec_per_mpc(0.4)
    assert stats.kstest(offset, stats.rayleigh(scale=0.2).cdf).pvalue > 0.01


def test_members_and_field_galaxies_have_the_same_laws() -> None:
    n = 1000
    rng = np.random.default_rng(6)
    known = analytic.Galaxies(
        xy=np.zeros((n, 2)),
        mag_i=rng.uniform(18.0, 23.0, n),
        z=rng.uniform(0.1, 0.8, n),
        is_red=rng.random(n) < 0.5,
        cluster_id=np.full(n, -1),
    )
    members = dataclasses.replace(known, cluster_id=np.zeros(n, np.int64))
    one = dress_galaxies(np.random.default_rng(7), known, None, 0.04)
    two = dress_galaxies(np.random.default_rng(7), members, None, 0.04)
    assert np.array_equal(one.shape, two.shape)
    assert np.array_equal(one.mags, two.mags)


def test_field_density_is_the_configured_one(prior_config: PriorConfig, area: SkyArea) -> None:
    prior = dataclasses.replace(prior_config, galaxy_density_arcmin2=25.0)
    rng = np.random.default_rng(8)
    for expected, given in ((29.97, prior_config), (25.0, prior)):
        counts = [area.is_inside(analytic.draw_field(given, area, rng).xy).sum() for _ in range(10)]
        density = np.mean(counts) / area.box_arcmin2(0.0)
        assert density == pytest.approx(expected, rel=0.05)


def test_star_density_is_the_configured_one(prior_config: PriorConfig, area: SkyArea) -> None:
    rng = np.random.default_rng(9)
    drawn = [analytic.draw_stars(prior_config, area, rng) for _ in range(20)]
    density = np.mean([area.is_inside(s.xy).sum() for s in drawn]) / area.box_arcmin2(0.0)
    assert density == pytest.approx(prior_config.star_density_arcmin2, rel=0.05)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_prevalence_is_configured(
    prior_config: PriorConfig, area: SkyArea, fraction: float
) -> None:
    prior = dataclasses.replace(prior_config, cluster_fraction=fraction)
    systems = [
        analytic.draw_systems(prior, area, stream(0, k, "clusters")).is_labelled.sum()
        for k in range(300)
    ]
    assert max(systems) <= 1
    assert np.mean(systems) == pytest.approx(fraction, abs=0.09)


def test_natural_abundance_of_centres(prior_config: PriorConfig, area: SkyArea) -> None:
    prior = dataclasses.replace(
        prior_config,
        cluster_fraction=None,
        richness_range=[20.0, 300.0],
        redshift_range=[0.2, 0.9],
    )
    wide = dataclasses.replace(area, width=8000, height=8000)
    rng = np.random.default_rng(10)
    inside = 0
    for _ in range(200):
        systems = analytic.draw_systems(prior, wide, rng)
        inside += int((systems.is_labelled & wide.is_inside(systems.xy)).sum())
    expected = 5.2 * wide.box_arcmin2(0.0) / 3600.0 * 200
    assert inside == pytest.approx(expected, abs=4.0 * np.sqrt(expected))


def test_centres_lie_anywhere_also_outside(prior_config: PriorConfig, area: SkyArea) -> None:
    prior = dataclasses.replace(prior_config, cluster_fraction=1.0, centre_margin_px=300.0)
    centres = np.concatenate(
        [analytic.draw_labelled(prior, area, stream(0, k, "clusters")).xy for k in range(1000)]
    )
    for axis in (0, 1):
        law = stats.uniform(-300.0, 1624.0)
        assert stats.kstest(centres[:, axis], law.cdf).pvalue > 0.01


def test_tables_are_complete_and_consistent(prior_config: PriorConfig, area: SkyArea) -> None:
    prior = dataclasses.replace(prior_config, cluster_fraction=1.0, centre_margin_px=0.0)
    sources, truth = analytic.draw_sky(prior, area, partial(stream, 3, 0))
    assert tuple(sources.colnames) == CATALOG_COLUMNS
    assert tuple(truth.colnames) == CLUSTER_COLUMNS
    owner = sources["CLUSTER_ID"]
    is_member = sources["MEM"] == 1
    assert is_member.any()
    assert truth["LABELLED"][owner[is_member]].all()
    inside = area.is_inside(np.column_stack([sources["X"], sources["Y"]]))
    assert truth["N_MEMBERS"][0] == (is_member & inside).sum()
    separation = np.hypot(sources["X"] - truth["X"][owner], sources["Y"] - truth["Y"][owner])
    mass, z = (np.asarray(truth[name], float) for name in ("M200M", "Z"))
    edge = clusters.r200c_mpc(mass, z) * px_per_mpc(area, z)
    assert (separation <= edge[owner])[is_member].all()
    x, y = area.wcs.wcs_world2pix(sources["RA"], sources["DEC"], 0)
    assert np.allclose(x, sources["X"], atol=1e-6)
    assert np.allclose(y, sources["Y"], atol=1e-6)
    mags = 30.0 - 2.5 * np.log10(sources["FLUX_I"])
    assert np.allclose(mags, sources["MAG_I"])
    assert np.allclose(2.5 * np.log10(sources["FLUX_I"] / sources["FLUX_G"]), sources["GI_COLOR"])
    is_star = sources["SOURCE_TYPE"] == 1
    assert (sources["HLR"][is_star] == 0.0).all()
    assert (sources["HLR"][~is_star] > 0.0).all()


def test_the_first_pixel_begins_half_a_pixel_before_its_centre(area: SkyArea) -> None:
    xy = np.array([[-0.5, 9.0], [9.0, 1023.4], [-0.6, 9.0], [9.0, 1023.5]])
    assert area.is_inside(xy).tolist() == [True, True, False, False]
    outside = np.array([[-3.6, 9.0], [9.0, 1027.5], [-3.5, 1027.5]])
    assert area.distance_px(xy[:2]).tolist() == [0.0, 0.0]
    assert area.distance_px(outside) == pytest.approx([3.1, 4.0, 5.0])
    drawn = area.scatter(np.random.default_rng(0), 200_000, 2.0)
    assert drawn.min(axis=0) == pytest.approx([-2.5, -2.5], abs=0.05)
    assert drawn.max(axis=0) == pytest.approx([1025.5, 1025.5], abs=0.05)


def test_sources_outside_are_kept_where_their_light_reaches_the_field(area: SkyArea) -> None:
    # Right of the edge: two stars, a small galaxy near by and far off, two giant ones far off.
    x = 1024.0 + np.array([50.0, 80.0, 60.0, 400.0, 400.0, 2400.0])
    mags = np.repeat([[15.0], [15.0], [22.0], [22.0], [14.0], [14.0]], 4, axis=1)
    hlr = np.array([0.0, 0.0, 1.0, 1.0, 20.0, 30.0])
    shape = np.column_stack([hlr, hlr > 0, 4.0 * (hlr > 0), np.zeros((6, 2))])
    is_seen = area.is_seen(np.column_stack([x, np.full(6, 500.0)]), area.flux(mags), shape)
    assert is_seen.tolist() == [True, False, True, False, True, False]


def test_a_central_galaxy_outside_gives_its_light_inside(
    prior_config: PriorConfig, area: SkyArea
) -> None:
    systems = dataclasses.replace(many_systems(1, 60.0, 0.1), xy=np.array([[-150.0, 512.0]]))
    members = analytic.draw_members(prior_config, area, systems, np.random.default_rng(12))
    assert members.xy[0].tolist() == [-150.0, 512.0]
    assert (area.distance_px(members.xy) > area.margin_px).sum() < 20
    central = source_table(prior_config, area, members, systems)[:1]
    seen = View((1024, 64), PsfModel(0.9, 2.5, 0.0, 0.0), "i", 0.263, area.faint_limit[2])
    image = next(get_renderer("fourier")(central, [seen]))
    assert image[512, 0] > 0.2 * 4.6


def test_as_many_bright_galaxies_reach_into_a_field_as_in_a_wider_one(
    prior_config: PriorConfig, area: SkyArea
) -> None:
    prior = dataclasses.replace(prior_config, galaxy_density_arcmin2=200.0, mag_limit=19.0)
    wide = dataclasses.replace(area, width=1024 + 2400, height=1024 + 2400)
    counts = np.zeros(2)
    for k in range(6):
        own = analytic.draw_field(prior, area, stream(1, k, "field"))
        other = analytic.draw_field(prior, wide, stream(2, k, "field"))
        for number, (field, offset) in enumerate(((own, 0.0), (other, 1200.0))):
            xy = field.xy - offset
            is_seen = area.is_seen(xy, area.flux(field.mags), field.shape)
            counts[number] += (is_seen & (area.distance_px(xy) > area.margin_px)).sum()
    assert counts.min() > 200
    assert abs(counts[0] - counts[1]) < 3.5 * np.sqrt(counts.sum())


def test_a_far_patch_has_the_bright_galaxies_of_the_whole_one(
    prior_config: PriorConfig, patch: SkyArea
) -> None:
    whole, _ = analytic.draw_sky(prior_config, patch, partial(stream, 5, 1))
    far_patch = dataclasses.replace(patch, is_far=True)
    far, _ = analytic.draw_sky(prior_config, far_patch, partial(stream, 5, 1))
    is_member = whole["CLUSTER_ID"] >= 0
    is_bright = (whole["MAG_I"] <= FAR_MAG) & (whole["SOURCE_TYPE"] == 0)
    assert (~is_member & is_bright).any()
    expected = whole[is_member | is_bright]
    assert all(np.array_equal(far[name], expected[name]) for name in far.colnames)


def test_a_patch_keeps_members_wherever_they_fall(
    prior_config: PriorConfig, patch: SkyArea
) -> None:
    prior = dataclasses.replace(prior_config, cluster_fraction=None, abundance_deg2=50.0)
    sources, truth = analytic.draw_sky(prior, patch, partial(stream, 5, 0))
    xy = np.column_stack([sources["X"], sources["Y"]])
    inside = patch.is_inside(xy)
    assert patch.is_inside(np.column_stack([truth["X"], truth["Y"]])).all()
    assert inside[sources["CLUSTER_ID"] < 0].all()
    assert not inside.all()


def test_ignored_systems_get_no_weight_and_small_groups_full_weight(
    prior_config: PriorConfig, area: SkyArea
) -> None:
    prior = dataclasses.replace(prior_config, cluster_fraction=0.0, abundance_deg2=200.0)
    sources, truth = analytic.draw_sky(prior, area, partial(stream, 6, 0))
    ignored = sources[sources["LABEL_WEIGHT"] == 0.0]
    assert len(ignored) > 0
    assert (truth["RICHNESS"][ignored["CLUSTER_ID"]] >= prior.ignore_richness_min).all()
    assert (sources["MEM"] == 0).all()
    assert not truth["LABELLED"].any()
    small = truth["RICHNESS"] < prior.ignore_richness_min
    of_small = (sources["CLUSTER_ID"] >= 0) & small[sources["CLUSTER_ID"]]
    assert of_small.any()
    assert (sources["LABEL_WEIGHT"][of_small] == 1.0).all()


def test_invisible_members_make_no_labels(prior_config: PriorConfig, area: SkyArea) -> None:
    prior = dataclasses.replace(
        prior_config, cluster_fraction=1.0, redshift_range=[0.75, 0.8], centre_margin_px=0.0
    )
    shallow = dataclasses.replace(area, depth_mag=21.0)
    for k in range(3):
        sources, _ = analytic.draw_sky(prior, shallow, partial(stream, 7, k))
        assert (sources["MAG_I"][sources["MEM"] == 1] <= 21.0).all()


def test_draws_depend_on_their_streams_alone(prior_config: PriorConfig, area: SkyArea) -> None:
    np.random.seed(1)  # noqa: NPY002 - to show that the global state is neither read nor changed
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr] # noqa: NPY002
    one, _ = analytic.draw_sky(prior_config, area, partial(stream, 8, 0))
    after = np.random.get_state()[1]  # type: ignore[index] # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    two, _ = analytic.draw_sky(prior_config, area, partial(stream, 8, 0))
    other, _ = analytic.draw_sky(prior_config, area, partial(stream, 8, 1))
    assert np.array_equal(before, after)
    assert all(np.array_equal(one[name], two[name]) for name in one.colnames)
    assert len(other) != len(one) or not np.array_equal(other["X"], one["X"])


def test_triaxial_clusters_keep_their_number_of_members(
    prior_config: PriorConfig, patch: SkyArea
) -> None:
    prior = dataclasses.replace(prior_config, triaxiality=0.5)
    systems = many_systems(5, 40.0, 0.3)
    members = analytic.draw_members(prior, patch, systems, np.random.default_rng(11))
    assert np.isfinite(members.xy).all()
    assert len(members.z) > 200


def test_an_empty_sky_is_possible(prior_config: PriorConfig, area: SkyArea) -> None:
    prior = dataclasses.replace(
        prior_config,
        cluster_fraction=0.0,
        abundance_deg2=0.0,
        galaxy_density_arcmin2=0.0,
        star_density_arcmin2=0.0,
    )
    sources, truth = analytic.draw_sky(prior, area, partial(stream, 9, 0))
    assert len(sources) == len(truth) == 0
    assert tuple(sources.colnames) == CATALOG_COLUMNS
