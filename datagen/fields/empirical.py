"""The empirical prior: labelled systems are resampled from real clusters with their real members.

Each candidate enters a realisation with its membership probability; the cluster is turned by a
random angle and mirrored, moved to its new centre at its own redshift, never rescaled. Unlabelled
systems and stars are those of the analytic prior, and so is the field unless a catalogue of it is
given. Sizes and shapes follow the laws of all galaxies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen.errors import ConfigError
from datagen.fields import analytic, clusters, galaxies
from datagen.fields.catalogs import check_finite, check_probability, column, read_table
from datagen.fields.config import BANDS, EmpiricalConfig, PriorConfig
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
    source_table,
)
from datagen.fields.tables_io import BoolArray, FloatArray

# a galaxy this close to the red sequence, in the colour that straddles 4000 A, counts as red [mag]
RED_BAND_WIDTH = 0.15
ARCSEC_PER_DEG = 3600.0


@dataclass(frozen=True)
class RealCluster:
    """N candidate members of one observed cluster.

    Args:
        z: redshift of the cluster.
        offset_arcsec: positions about the centre (west, north), shape (N, 2).
        probability: membership probability, shape (N,).
        mags: g, r, i, z [AB mag], shape (N, 4).
    """

    z: float
    offset_arcsec: FloatArray
    probability: FloatArray
    mags: FloatArray

    @property
    def richness(self) -> float:
        """Sum of the membership probabilities."""
        return float(self.probability.sum())


def draw_sky(prior: PriorConfig, area: SkyArea, rng_of: StreamOf) -> tuple[Table, Table]:
    """Fill a piece of sky; arguments and results as in `analytic.draw_sky`."""
    library = load_clusters(prior.empirical)
    usable = [c for c in library if _fits(prior, c)]
    if not usable:
        raise ConfigError(_no_cluster_message(prior, library), value=len(library))
    rng = rng_of("clusters")
    natural = analytic.draw_natural_systems(prior, area, rng)
    labelled, rows = _place(prior, area, usable, natural, rng)
    others = natural.take(~natural.is_labelled)
    systems = join_systems([labelled, others])
    rng = rng_of("members")
    field = draw_field if prior.empirical.field_file else analytic.draw_field
    parts = [
        resample_members(prior, area, [usable[k] for k in rows], systems, rng),
        _shift_owner(analytic.draw_members(prior, area, others, rng), len(labelled)),
        field(prior, area, rng_of("field")),
        analytic.draw_stars(prior, area, rng_of("stars")),
    ]
    sources = join_sources(parts)
    return source_table(prior, area, sources, systems), cluster_table(area, sources, systems)


def _fits(prior: PriorConfig, cluster: RealCluster) -> bool:
    (lo, hi), (z_lo, z_hi) = prior.richness_range, prior.redshift_range
    return lo <= cluster.richness <= hi and z_lo <= cluster.z <= z_hi


def _no_cluster_message(prior: PriorConfig, library: tuple[RealCluster, ...]) -> str:
    first = library[0]
    return (
        f"expected {prior.empirical.members_file} to hold a cluster with richness in "
        f"{list(prior.richness_range)} and redshift in {list(prior.redshift_range)}, but got "
        f"{len(library)} outside, the first with richness = {first.richness:.1f}, z = {first.z:.3f}"
    )


def _place(
    prior: PriorConfig,
    area: SkyArea,
    usable: list[RealCluster],
    natural: Systems,
    rng: np.random.Generator,
) -> tuple[Systems, NDArray[np.int64]]:
    """Give positions to real clusters: as many, and where, as the analytic prior has systems."""
    if prior.cluster_fraction is None:
        xy = natural.xy[natural.is_labelled]
    else:
        xy = analytic.draw_labelled(prior, area, rng).xy
    rows = rng.integers(len(usable), size=len(xy))
    richness = np.array([usable[k].richness for k in rows])
    z = np.array([usable[k].z for k in rows])
    systems = Systems(
        xy=xy,
        z=z,
        richness=richness,
        m200m_msun=clusters.sample_mass_msun(rng, richness, z),
        r_lambda_mpc=clusters.r_lambda_mpc(richness),
        is_labelled=np.ones(len(xy), bool),
    )
    return systems, rows


def _shift_owner(sources: Sources, n: int) -> Sources:
    return Sources(**{**vars(sources), "cluster_id": sources.cluster_id + n})


def realise(cluster: RealCluster, rng: np.random.Generator) -> tuple[BoolArray, FloatArray]:
    """Draw one realisation of a cluster.

    Returns:
        Which candidates are members, shape (N,); and all offsets after a random rotation and, in
        half of the cases, a mirroring, shape (N, 2) [arcsec].
    """
    is_member = rng.random(len(cluster.probability)) < cluster.probability
    angle = 2.0 * np.pi * rng.random()
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mirror = np.array([1.0 if rng.random() < 0.5 else -1.0, 1.0])
    return is_member, (cluster.offset_arcsec * mirror) @ rotation.T


def resample_members(
    prior: PriorConfig,
    area: SkyArea,
    picked: list[RealCluster],
    systems: Systems,
    rng: np.random.Generator,
) -> Sources:
    """Draw the members of the first ``len(picked)`` systems from their real clusters."""
    xy, mags, z = [np.empty((0, 2))], [np.empty((0, 4))], [np.empty(0)]
    owner = [np.empty(0, np.int64)]
    for k, cluster in enumerate(picked):
        is_member, offset = realise(cluster, rng)
        n = int(is_member.sum())
        xy.append(systems.xy[k] + offset[is_member] / area.pixel_scale)
        mags.append(cluster.mags[is_member])
        z.append(np.full(n, cluster.z))
        owner.append(np.full(n, k))
    sources = _dress_measured(
        prior, rng, np.concatenate(xy), np.concatenate(mags), np.concatenate(z)
    )
    sources = Sources(**{**vars(sources), "cluster_id": np.concatenate(owner)})
    return analytic.mark_counted(prior, area, sources, systems)


def _dress_measured(
    prior: PriorConfig, rng: np.random.Generator, xy: FloatArray, mags: FloatArray, z: FloatArray
) -> Sources:
    is_red = on_red_sequence(mags, z)
    known = Galaxies(xy, mags[:, 2], z, is_red, np.full(len(z), -1))
    return dress_galaxies(rng, known, mags, prior.red_sequence_width)


def on_red_sequence(mags: FloatArray, z: FloatArray) -> BoolArray:
    """Whether galaxies lie on the red sequence: g-r below z = 0.35, r-i to 0.7, i-z beyond."""
    use = np.digitize(z, [0.35, 0.7])
    rows = np.arange(len(z))
    colours = mags[:, :-1] - mags[:, 1:]
    difference = (colours - galaxies.red_sequence(z))[rows, use]
    is_red: BoolArray = np.abs(difference) < RED_BAND_WIDTH
    return is_red


def draw_field(prior: PriorConfig, area: SkyArea, rng: np.random.Generator) -> Sources:
    """Draw field galaxies as rows of the configured catalogue, at the catalogue's density."""
    mags, z = load_field(prior.empirical)
    usable = np.flatnonzero(mags[:, 2] <= prior.mag_limit)
    area_arcmin2 = float(prior.empirical.field_area_arcmin2 or 1.0)
    if prior.galaxy_density_arcmin2:
        area_arcmin2 = len(usable) / prior.galaxy_density_arcmin2

    def draw(brightest: float, faintest: float, margin_px: float) -> Sources:
        own = usable[(mags[usable, 2] > brightest) & (mags[usable, 2] <= faintest)]
        n = rng.poisson(len(own) / area_arcmin2 * area.box_arcmin2(margin_px)) if len(own) else 0
        rows = own[rng.integers(max(len(own), 1), size=n)]
        drawn = galaxies.sample_field_redshifts(rng, mags[rows, 2])
        redshift = np.where(np.isnan(z[rows]), drawn, z[rows])
        xy = area.scatter(rng, n, margin_px)
        return _dress_measured(prior, rng, xy, mags[rows], redshift)

    return draw_far_and_near(area, draw)


def load_clusters(config: EmpiricalConfig) -> tuple[RealCluster, ...]:
    """Read the members table, one cluster for each value of its id column, sorted by it."""
    return _load_clusters(
        str(config.members_file),
        tuple(sorted(config.columns.items())),
        tuple(sorted(config.magnitudes.items())),
        config.positions_file,
    )


@lru_cache(maxsize=4)
def _load_clusters(
    path: str,
    columns: tuple[tuple[str, str], ...],
    magnitudes: tuple[tuple[str, str], ...],
    positions_file: str | None,
) -> tuple[RealCluster, ...]:
    table = read_table(path)
    get = {name: column(table, spec, path) for name, spec in columns}
    mags = np.column_stack([column(table, dict(magnitudes)[b], path) for b in BANDS])
    for name, values in get.items():
        check_finite(values, dict(columns)[name], path)
    check_finite(mags, "magnitudes", path)
    check_probability(get["p"], dict(columns)["p"], path)
    positions = None if positions_file is None else _load_positions(positions_file)
    clusters_found = []
    for key in np.unique(get["id"]):
        own = get["id"] == key
        rows = {name: values[own] for name, values in get.items()}
        clusters_found.append(_real_cluster(rows, mags[own], positions))
    return tuple(clusters_found)


def _load_positions(path: str) -> FloatArray:
    table = read_table(path)
    return np.column_stack([column(table, name, path) for name in ("RA", "DEC", "Z")])


def _real_cluster(
    rows: dict[str, FloatArray], mags: FloatArray, positions: FloatArray | None
) -> RealCluster:
    ra, dec, z = _centre(rows, positions)
    offset = np.column_stack(tangent_offsets(rows["ra"], rows["dec"], ra, dec))
    return RealCluster(
        z=z,
        offset_arcsec=offset,
        probability=rows["p"],
        mags=mags,
    )


def _centre(
    rows: dict[str, FloatArray], positions: FloatArray | None
) -> tuple[float, float, float]:
    """Give RA, Dec [deg] and redshift of the central galaxy, or of the position nearest to it."""
    # the candidate at R = 0 is the central galaxy; weights break the tie if several lie there
    k = int(np.argmax(rows["p"] * np.exp(-rows["r"] / 0.02)))
    ra, dec, z = float(rows["ra"][k]), float(rows["dec"][k]), float(np.median(rows["z"]))
    if positions is None:
        return ra, dec, z
    west, north = tangent_offsets(positions[:, 0], positions[:, 1], ra, dec)
    nearest = positions[int(np.argmin(np.hypot(west, north)))]
    return float(nearest[0]), float(nearest[1]), float(nearest[2])


def tangent_offsets(
    ra: FloatArray, dec: FloatArray, ra_0: float, dec_0: float
) -> tuple[FloatArray, FloatArray]:
    """Project sky positions on the tangent plane (gnomonic; Calabretta & Greisen 2002).

    Args:
        ra: right ascension [deg], shape (N,).
        dec: declination [deg], shape (N,).
        ra_0: of the tangent point [deg].
        dec_0: of the tangent point [deg].

    Returns:
        Offsets to the west and to the north [arcsec], each shape (N,).
    """
    a, d, d0 = np.radians(ra - ra_0), np.radians(dec), np.radians(dec_0)
    cosine = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(a)
    east = np.cos(d) * np.sin(a) / cosine
    north = (np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(a)) / cosine
    return -np.degrees(east) * ARCSEC_PER_DEG, np.degrees(north) * ARCSEC_PER_DEG


def load_field(config: EmpiricalConfig) -> tuple[FloatArray, FloatArray]:
    """Read the field catalogue: g, r, i, z (N, 4) [AB mag] and redshift (N,), NaN where unknown."""
    return _load_field(
        str(config.field_file),
        tuple(sorted(config.field_magnitudes.items())),
        config.field_columns.get("z"),
    )


@lru_cache(maxsize=4)
def _load_field(
    path: str, magnitudes: tuple[tuple[str, str], ...], z_column: str | None
) -> tuple[FloatArray, FloatArray]:
    table = read_table(path)
    mags = np.column_stack([column(table, dict(magnitudes)[b], path) for b in BANDS])
    check_finite(mags, "magnitudes", path)
    z = np.full(len(mags), np.nan) if z_column is None else column(table, z_column, path)
    return mags, np.where(z > 0.0, z, np.nan)
