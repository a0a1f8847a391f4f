"""The analytic prior: clusters, groups, field galaxies and stars from published laws.

A field holds labelled systems (inside the label prior), all other systems at their natural
abundance, field galaxies and stars. Members follow an NFW profile that ends at R200c; those that
are brighter than 0.2 L* and detectable make labels.
"""

from __future__ import annotations

import numpy as np
from astropy.table import Table

from datagen.fields import clusters, cosmology, galaxies, stars
from datagen.fields.config import PriorConfig
from datagen.fields.sky import (
    Galaxies,
    SkyArea,
    Sources,
    StreamOf,
    Systems,
    cluster_table,
    draw_far_and_near,
    dress_galaxies,
    join_sources,
    join_systems,
    px_per_mpc,
    seen,
    source_table,
)
from datagen.fields.tables_io import FloatArray

# A central galaxy stays above the faint limit about this far from its centre [physical Mpc].
HALO_MPC = 0.2


def draw_sky(prior: PriorConfig, area: SkyArea, rng_of: StreamOf) -> tuple[Table, Table]:
    """Fill a piece of sky.

    Args:
        prior: what the sky contains.
        area: pixel rectangle and depth.
        rng_of: gives the stream of a component ("clusters", "members", "field", "stars").

    Returns:
        Source catalogue and cluster truth; CLUSTER_ID is the row of the truth table.
    """
    systems = draw_systems(prior, area, rng_of("clusters"))
    parts = [
        draw_members(prior, area, systems, rng_of("members")),
        draw_field(prior, area, rng_of("field")),
        draw_stars(prior, area, rng_of("stars")),
    ]
    sources = join_sources(parts)
    return source_table(prior, area, sources, systems), cluster_table(area, sources, systems)


def draw_systems(prior: PriorConfig, area: SkyArea, rng: np.random.Generator) -> Systems:
    """Draw the labelled system, if its presence is set by `cluster_fraction`, and all others."""
    natural = draw_natural_systems(prior, area, rng)
    if prior.cluster_fraction is None:
        return natural
    return join_systems([draw_labelled(prior, area, rng), natural.take(~natural.is_labelled)])


def draw_labelled(prior: PriorConfig, area: SkyArea, rng: np.random.Generator) -> Systems:
    """Draw one labelled system with probability `cluster_fraction`, else none."""
    n = int(rng.random() < (prior.cluster_fraction or 0.0))
    margin = 0.0 if area.is_patch else prior.centre_margin_px
    xy = area.scatter(rng, n, margin)
    richness = clusters.sample_richness(rng, n, *prior.richness_range)
    z = cosmology.sample_redshifts(rng, n, *prior.redshift_range)
    return _systems(prior, xy, richness, z, rng)


def draw_natural_systems(prior: PriorConfig, area: SkyArea, rng: np.random.Generator) -> Systems:
    """Draw all systems at their natural abundance that reach the area with a member's light."""
    z_range = (
        min(prior.group_redshift_range[0], prior.redshift_range[0]),
        max(prior.group_redshift_range[1], prior.redshift_range[1]),
    )
    low = min(prior.group_richness_min, prior.richness_range[0])
    richness_range = (low, clusters.RICHNESS_MAX)
    density = clusters.abundance_per_deg2(prior.abundance_deg2, richness_range, z_range)
    margin = 0.0 if area.is_patch else _largest_radius_px(area, z_range[0])
    n = rng.poisson(density * area.box_arcmin2(margin) / 3600.0)
    xy = area.scatter(rng, n, margin)
    richness = clusters.sample_richness(rng, n, *richness_range)
    z = cosmology.sample_redshifts(rng, n, *z_range)
    systems = _systems(prior, xy, richness, z, rng)
    group_z = prior.group_redshift_range
    is_group = (richness >= prior.group_richness_min) & (z >= group_z[0]) & (z <= group_z[1])
    reach = (clusters.r200c_mpc(systems.m200m_msun, z) + HALO_MPC) * px_per_mpc(area, z)
    return systems.take((systems.is_labelled | is_group) & (area.distance_px(xy) <= reach))


def _largest_radius_px(area: SkyArea, z_min: float) -> float:
    richest, z = np.array([clusters.RICHNESS_MAX]), np.array([z_min])
    # three sigma above the mean mass
    mass = clusters.mean_mass_msun(richest, z) * np.exp(3.0 * clusters.MASS_SCATTER)
    return float((clusters.r200c_mpc(mass, z) * px_per_mpc(area, z))[0])


def _systems(
    prior: PriorConfig,
    xy: FloatArray,
    richness: FloatArray,
    z: FloatArray,
    rng: np.random.Generator,
) -> Systems:
    (lo, hi), (z_lo, z_hi) = prior.richness_range, prior.redshift_range
    return Systems(
        xy=xy,
        z=z,
        richness=richness,
        m200m_msun=clusters.sample_mass_msun(rng, richness, z),
        r_lambda_mpc=clusters.r_lambda_mpc(richness),
        is_labelled=(richness >= lo) & (richness <= hi) & (z >= z_lo) & (z <= z_hi),
    )


def draw_members(
    prior: PriorConfig, area: SkyArea, systems: Systems, rng: np.random.Generator
) -> Sources:
    """Draw central, red and blue members of all systems down to the magnitude limit."""
    parts = [
        _central(prior, area, systems, rng),
        _satellites(prior, area, systems, rng, is_red=True),
        _satellites(prior, area, systems, rng, is_red=False),
    ]
    members = Galaxies(
        **{k: np.concatenate([getattr(p, k) for p in parts]) for k in vars(parts[0])}
    )
    sources = dress_galaxies(rng, members, None, prior.red_sequence_width)
    return mark_counted(prior, area, sources, systems)


def mark_counted(prior: PriorConfig, area: SkyArea, sources: Sources, systems: Systems) -> Sources:
    """Mark the members that make labels and drop those whose light does not reach a field.

    Counted: L > 0.2 L* and signal-to-noise ratio >= min_snr in the reference band.
    """
    faintest = galaxies.mstar(systems.z)[sources.cluster_id] + galaxies.COUNTED_MAG
    is_detected = area.signal_to_noise(sources.mags) >= prior.min_snr
    is_counted = (sources.mags[:, 2] < faintest) & is_detected
    return seen(area, Sources(**{**vars(sources), "is_counted": is_counted}))


def _central(
    prior: PriorConfig, area: SkyArea, systems: Systems, rng: np.random.Generator
) -> Galaxies:
    n = len(systems)
    deviate = rng.standard_normal(n)
    mag_i = galaxies.mstar(systems.z) + galaxies.BCG_MAG + galaxies.BCG_SCATTER * deviate
    is_off = rng.random(n) < prior.miscentring_fraction
    offset = prior.miscentring_mpc * px_per_mpc(area, systems.z) * is_off
    xy = systems.xy + rng.standard_normal((n, 2)) * offset[:, None]
    return Galaxies(xy, mag_i, systems.z, np.ones(n, bool), np.arange(n))


def _satellites(
    prior: PriorConfig, area: SkyArea, systems: Systems, rng: np.random.Generator, *, is_red: bool
) -> Galaxies:
    mean, scale, x_max = expected_satellites(prior, systems, is_red=is_red)
    owner = np.repeat(np.arange(len(systems)), rng.poisson(mean))
    radius = clusters.sample_nfw_radii(rng, x_max[owner]) * scale[owner]
    offset = clusters.isotropic(rng, len(owner)) * radius[:, None]
    if prior.triaxiality > 0.0:
        for k in range(len(systems)):
            offset[owner == k] = clusters.stretch(offset[owner == k], rng, prior.triaxiality)
    z = systems.z[owner]
    xy = systems.xy[owner] + offset[:, :2] * px_per_mpc(area, z)[:, None]
    alpha = galaxies.ALPHA_RED if is_red else galaxies.ALPHA_BLUE
    faint = prior.mag_limit - galaxies.mstar(z)
    mag_i = galaxies.mstar(z) + galaxies.sample_schechter(rng, alpha, faint)
    return Galaxies(xy, mag_i, z, np.full(len(owner), is_red), owner)


def expected_satellites(
    prior: PriorConfig, systems: Systems, *, is_red: bool
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Expected satellites of each system, brighter than the limit and inside R200c.

    Inside the projected R_lambda and above 0.2 L* there are `richness` red members with the central
    galaxy, and blue ones by the red fraction.

    Returns:
        Expected number, scale radius [physical Mpc], end of the profile [scale radii]; shape (N,).
    """
    concentration = clusters.CONCENTRATION_RED if is_red else clusters.CONCENTRATION_BLUE
    scale = clusters.r200c_mpc(systems.m200m_msun, systems.z) / concentration
    x_max = np.full(len(systems), concentration)
    inside = clusters.projected_nfw_cdf(systems.r_lambda_mpc / scale, x_max)
    alpha = galaxies.ALPHA_RED if is_red else galaxies.ALPHA_BLUE
    depth = galaxies.schechter_ratio(alpha, prior.mag_limit - galaxies.mstar(systems.z))
    red = galaxies.red_fraction(systems.z)
    counted = systems.richness - 1.0 if is_red else systems.richness * (1.0 - red) / red
    return counted / inside * depth, scale, x_max


def draw_field(prior: PriorConfig, area: SkyArea, rng: np.random.Generator) -> Sources:
    """Draw galaxies that belong to no system."""
    expected = galaxies.field_density(prior.mag_limit)
    excess = 1.0
    if prior.galaxy_density_arcmin2 is not None:
        excess = prior.galaxy_density_arcmin2 / expected

    def draw(brightest: float, faintest: float, margin_px: float) -> Sources:
        limits = [min(limit, prior.mag_limit) for limit in (brightest, faintest)]
        density = galaxies.field_density(limits[1]) - galaxies.field_density(limits[0])
        n = rng.poisson(excess * density * area.box_arcmin2(margin_px))
        xy = area.scatter(rng, n, margin_px)
        mag_i = galaxies.sample_field_magnitudes(rng, n, *limits)
        z = galaxies.sample_field_redshifts(rng, mag_i)
        is_red = rng.random(n) < galaxies.field_red_fraction(mag_i, z)
        field = Galaxies(xy, mag_i, z, is_red, np.full(n, -1))
        return dress_galaxies(rng, field, None, prior.red_sequence_width)

    return draw_far_and_near(area, draw)


def draw_stars(prior: PriorConfig, area: SkyArea, rng: np.random.Generator) -> Sources:
    """Draw stars: point sources, redshift 0."""
    density = 0.0 if area.is_far else prior.star_density_arcmin2
    n = rng.poisson(density * area.box_arcmin2(area.margin_px))
    xy = area.scatter(rng, n, area.margin_px)
    mag_i = stars.sample_magnitudes(rng, n, prior.mag_limit)
    none = np.zeros(n, bool)
    return Sources(
        xy=xy,
        mags=galaxies.magnitudes(mag_i, stars.sample_colours(rng, mag_i)),
        z=np.zeros(n),
        is_red=none,
        shape=np.zeros((n, 5)),
        cluster_id=np.full(n, -1),
        is_counted=none,
        is_star=~none,
    )
