"""Geometry of a simulated survey: the layout of tiles and the sky that they share.

The sky is divided into patches, rectangles in right ascension and declination on a grid that does
not depend on the tiles. Each patch draws its clusters, galaxies and stars from its own streams. A
tile shows the sources of all patches that reach into it, so neighbours agree where they overlap.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from astropy.table import Table, vstack
from astropy.wcs import WCS
from numpy.typing import NDArray

from datagen.fields import clusters as cluster_laws
from datagen.fields.cosmology import arcsec_per_mpc
from datagen.fields.prior import draw_sky
from datagen.fields.sky import FAR_MARGIN_PX, MARGIN_PX, SkyArea, light_of
from datagen.fields.survey_config import SurveyConfig
from datagen.fields.wcs import (
    north_angle,
    sky_to_pixel,
    tan_cards,
    tan_wcs,
    turn_shear,
)
from datagen.files import Card
from datagen.seeds import stream

# Distinguishes the clusters of one patch inside a survey-wide number.
IDS_PER_PATCH = 100_000
# Masses scatter about the mean; this many standard deviations are followed.
MASS_SIGMAS = 3.0


@dataclass(frozen=True)
class Tile:
    """One survey tile.

    Args:
        index: Number in the survey.
        name: `DESHHMM+DDMM` of the centre, with seconds for tiles too small for minutes.
        ra_deg: Centre [deg].
        dec_deg: Centre [deg].
        size_px: Side [px].
        pixel_scale: [arcsec/px].
    """

    index: int
    name: str
    ra_deg: float
    dec_deg: float
    size_px: int
    pixel_scale: float

    @property
    def cards(self) -> dict[str, Card]:
        """Return the header cards of the tile's world coordinates."""
        shape = (self.size_px, self.size_px)
        return tan_cards(self.ra_deg, self.dec_deg, shape, self.pixel_scale)

    @property
    def wcs(self) -> WCS:
        """Return the tile's world coordinates."""
        shape = (self.size_px, self.size_px)
        return tan_wcs(self.ra_deg, self.dec_deg, shape, self.pixel_scale)

    @property
    def radius_deg(self) -> float:
        """Return the distance from the centre to the corners [deg]."""
        return self.size_px * self.pixel_scale / 3600.0 / math.sqrt(2.0)

    def contains(
        self, ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Tell which sky positions lie on the tile's pixels, shape (n,)."""
        is_near = separation_deg(self.ra_deg, self.dec_deg, ra_deg, dec_deg) < 2 * self.radius_deg
        x, y = sky_to_pixel(self.wcs, ra_deg, dec_deg)
        low, high = -0.5, self.size_px - 0.5
        return np.asarray(is_near & (x >= low) & (x < high) & (y >= low) & (y < high))


def survey_tile(config: SurveyConfig, index: int) -> Tile:
    """Return one tile of the layout.

    Tiles fill rows of equal declination from left to right in right ascension; the rows follow at
    0, +1, -1, +2, ... steps from the configured declination. The step in right ascension is that
    in declination divided by cos(dec).
    """
    step_deg = (config.image_size - config.overlap) * config.image.pixel_scale / 3600.0
    number, column = divmod(index, config.n_columns)
    row = (number + 1) // 2 * (1 if number % 2 else -1)
    dec_deg = config.dec_deg + row * step_deg
    ra_step = step_deg / np.cos(np.deg2rad(dec_deg))
    ra_deg = (config.ra_deg + (column - (config.n_columns - 1) / 2) * ra_step) % 360.0
    name = tile_name(ra_deg, dec_deg, has_seconds=ra_step <= 0.25 or step_deg <= 1 / 60)
    return Tile(index, name, ra_deg, dec_deg, config.image_size, config.image.pixel_scale)


def tile_name(ra_deg: float, dec_deg: float, *, has_seconds: bool) -> str:
    """Name a tile by its truncated centre: `DESHHMM[+-]DDMM`, or `DESHHMMSS[+-]DDMMSS`."""
    # A microsecond is added before truncation, so that 12:00:00 is not written as 11:59:59.
    hours, degrees = ra_deg / 15.0 + 1e-9, abs(dec_deg) + 1e-9
    parts = []
    for value in (hours % 24.0, degrees):
        seconds = int(value * 3600.0)
        text = f"{seconds // 3600:02d}{seconds // 60 % 60:02d}"
        parts.append(text + (f"{seconds % 60:02d}" if has_seconds else ""))
    return f"DES{parts[0]}{'-' if dec_deg < 0 else '+'}{parts[1]}"


@dataclass(frozen=True)
class Patch:
    """A rectangle in right ascension and declination that draws its own sky.

    The sky is cut into bands of declination, counted from the south pole, and each band into cells
    of right ascension, counted from 0.

    Args:
        band: Number of the band.
        cell: Number of the cell in the band.
        size_deg: Height of the bands, and about the width of the cells [deg].
    """

    band: int
    cell: int
    size_deg: float

    @property
    def index(self) -> int:
        """Return the patch's number in the whole sky."""
        return self.band * math.ceil(360.0 / self.size_deg) + self.cell

    @property
    def dec_range(self) -> tuple[float, float]:
        """Return the limits in declination [deg]."""
        low = self.band * self.size_deg - 90.0
        return low, min(low + self.size_deg, 90.0)

    @property
    def n_cells(self) -> int:
        """Return the number of cells in the patch's band."""
        middle = math.radians(sum(self.dec_range) / 2.0)
        return max(1, math.ceil(360.0 * math.cos(middle) / self.size_deg))

    @property
    def ra_range(self) -> tuple[float, float]:
        """Return the limits in right ascension [deg]."""
        width = 360.0 / self.n_cells
        return self.cell * width, (self.cell + 1) * width

    def contains(
        self, ra_deg: NDArray[np.float64], dec_deg: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Tell which positions belong to the patch, shape (n,)."""
        # Counting, instead of comparing with the limits, gives every position exactly one patch.
        band = np.floor((dec_deg + 90.0) / self.size_deg)
        cell = np.floor(ra_deg % 360.0 / 360.0 * self.n_cells) % self.n_cells
        return np.asarray((band == self.band) & (cell == self.cell))

    def area(self, config: SurveyConfig) -> SkyArea:
        """Return the smallest pixel rectangle, centred on the patch, that covers it."""
        scale = config.image.pixel_scale
        ra_deg, dec_deg = sum(self.ra_range) / 2, sum(self.dec_range) / 2
        ra = np.linspace(*self.ra_range, 9)
        edges = [(ra, np.full(9, dec)) for dec in self.dec_range]
        middle = tan_wcs(ra_deg, dec_deg, (1, 1), scale)
        x, y = np.abs([sky_to_pixel(middle, *edge) for edge in edges]).max(axis=(0, 2))
        shape = (2 * int(np.ceil(y)) + 2, 2 * int(np.ceil(x)) + 2)
        wcs = tan_wcs(ra_deg, dec_deg, shape, scale)
        area = SkyArea.from_image(config.image, config.reference_band, wcs, shape)
        return dataclasses.replace(area, is_patch=True)


def patches_within(
    ra_deg: float, dec_deg: float, radius_deg: float, patch_deg: float
) -> Iterator[Patch]:
    """Yield the patches of the sky that a circle touches, and perhaps a few more.

    Args:
        ra_deg: Centre [deg].
        dec_deg: Centre [deg].
        radius_deg: Radius [deg].
        patch_deg: Side of the patches [deg].
    """
    last_band = math.ceil(180.0 / patch_deg) - 1
    first = max(0, math.floor((dec_deg - radius_deg + 90.0) / patch_deg))
    last = min(last_band, math.floor((dec_deg + radius_deg + 90.0) / patch_deg))
    half_width = _half_width_deg(dec_deg, radius_deg)
    for band in range(first, last + 1):
        n_cells = Patch(band, 0, patch_deg).n_cells
        start = math.floor((ra_deg - half_width) / 360.0 * n_cells)
        stop = math.floor((ra_deg + half_width) / 360.0 * n_cells)
        for cell in range(start, min(stop, start + n_cells - 1) + 1):
            yield Patch(band, cell % n_cells, patch_deg)


def _half_width_deg(dec_deg: float, radius_deg: float) -> float:
    """Return how far a circle on the sphere reaches in right ascension [deg]."""
    if abs(dec_deg) + radius_deg >= 90.0:
        return 180.0
    ratio = np.sin(np.deg2rad(radius_deg)) / np.cos(np.deg2rad(dec_deg))
    return float(np.rad2deg(np.arcsin(ratio)))


def reach_deg(config: SurveyConfig) -> float:
    """Return the largest angle at which a member can lie from its cluster's centre [deg]."""
    prior = config.prior
    z = np.array([min(prior.redshift_range[0], prior.group_redshift_range[0])])
    richest = np.array([max(prior.richness_range[1], cluster_laws.RICHNESS_MAX)])
    mass = cluster_laws.mean_mass_msun(richest, z)
    mass = mass * np.exp(MASS_SIGMAS * cluster_laws.MASS_SCATTER)
    return float((cluster_laws.r200c_mpc(mass, z) * arcsec_per_mpc(z))[0] / 3600.0)


def tile_sky(config: SurveyConfig, tile: Tile) -> tuple[Table, Table]:
    """Draw what a tile shows.

    Args:
        config: Prior, patches and seed.
        tile: The tile.

    Returns:
        Sources with pixel positions of this tile whose light may reach it, and clusters whose
        centres this tile owns: they lie on it and on no tile of a lower number.
    """
    near = _radius_deg(config, tile, MARGIN_PX)
    # Members reach farther from their cluster's centre than light from its galaxy.
    far = max(_radius_deg(config, tile, FAR_MARGIN_PX), near + reach_deg(config))
    place = (tile.ra_deg, tile.dec_deg)
    full = {patch.index for patch in patches_within(*place, near, config.patch_deg)}
    sources, systems, wcs = [], [], tile.wcs
    shape = (tile.size_px, tile.size_px)
    area = SkyArea.from_image(config.image, config.reference_band, wcs, shape)
    for patch in patches_within(*place, far, config.patch_deg):
        drawn = _draw_patch(config, patch, is_far=patch.index not in full)
        sources.append(_on_tile(drawn, area))
        systems.append(drawn.clusters)
    clusters = vstack(systems, metadata_conflicts="silent")
    clusters["X"], clusters["Y"] = sky_to_pixel(wcs, clusters["RA"], clusters["DEC"])
    return vstack(sources, metadata_conflicts="silent"), clusters[_owned(config, tile, clusters)]


def _radius_deg(config: SurveyConfig, tile: Tile, margin_px: float) -> float:
    """Return the radius of a circle that holds a tile and a margin around it [deg]."""
    return tile.radius_deg + math.sqrt(2.0) * margin_px * config.image.pixel_scale / 3600.0


@dataclass(frozen=True)
class _PatchSky:
    """What one patch holds, with pixel positions and orientations of its own projection."""

    sources: Table
    clusters: Table
    wcs: WCS


def _draw_patch(config: SurveyConfig, patch: Patch, *, is_far: bool) -> _PatchSky:
    """Draw one patch: its clusters with all their members and all else inside it.

    Of a patch far from the tile only clusters and bright galaxies are drawn; these are the same as
    with all the rest.
    """
    area = dataclasses.replace(patch.area(config), is_far=is_far)
    streams = partial(_patch_stream, config.seed, patch.index)
    sources, clusters = draw_sky(config.prior, area, streams)
    clusters = clusters[patch.contains(np.asarray(clusters["RA"]), np.asarray(clusters["DEC"]))]
    is_member = np.asarray(sources["CLUSTER_ID"]) >= 0
    is_kept = np.isin(sources["CLUSTER_ID"], clusters["CLUSTER_ID"])
    is_inside = patch.contains(np.asarray(sources["RA"]), np.asarray(sources["DEC"]))
    sources = sources[np.where(is_member, is_kept, is_inside)]
    for table in (sources, clusters):
        number = np.asarray(table["CLUSTER_ID"])
        table["CLUSTER_ID"] = np.where(number >= 0, number + patch.index * IDS_PER_PATCH, -1)
    return _PatchSky(sources, clusters, area.wcs)


def _patch_stream(seed: int, index: int, component: str) -> np.random.Generator:
    return stream(seed, index, f"patch_{component}")


def _on_tile(patch: _PatchSky, area: SkyArea) -> Table:
    """Give sources the pixel positions and orientations of a tile; drop what it does not see."""
    xy = np.column_stack(sky_to_pixel(area.wcs, patch.sources["RA"], patch.sources["DEC"]))
    # Turning a profile by the small angle between the projections does not change its reach.
    is_seen = area.is_seen(xy, *light_of(patch.sources))
    sources = patch.sources[is_seen]
    if len(sources):
        ra, dec = np.asarray(sources["RA"]), np.asarray(sources["DEC"])
        angle = north_angle(area.wcs, ra, dec) - north_angle(patch.wcs, ra, dec)
        sources["X"], sources["Y"] = xy[is_seen].T
        sources["G1"], sources["G2"] = turn_shear(sources["G1"], sources["G2"], angle)
    return sources


def _owned(config: SurveyConfig, tile: Tile, clusters: Table) -> NDArray[np.bool_]:
    """Tell which clusters lie on this tile and on none of a lower number, shape (n,)."""
    ra, dec = np.asarray(clusters["RA"]), np.asarray(clusters["DEC"])
    is_owned = tile.contains(ra, dec)
    for index in range(tile.index):
        if not is_owned.any():
            break
        other = survey_tile(config, index)
        if (
            separation_deg(tile.ra_deg, tile.dec_deg, other.ra_deg, other.dec_deg)
            < 3 * tile.radius_deg
        ):
            is_owned &= ~other.contains(ra, dec)
    return is_owned


def separation_deg(
    ra_deg: float,
    dec_deg: float,
    other_ra_deg: NDArray[np.float64] | float,
    other_dec_deg: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    """Return angles on the sphere by the haversine formula [deg]."""
    ra, dec = np.deg2rad(ra_deg), np.deg2rad(dec_deg)
    other_ra, other_dec = np.deg2rad(other_ra_deg), np.deg2rad(other_dec_deg)
    half = np.sin((other_dec - dec) / 2) ** 2
    half = half + np.cos(dec) * np.cos(other_dec) * np.sin((other_ra - ra) / 2) ** 2
    return np.asarray(np.rad2deg(2 * np.arcsin(np.sqrt(np.minimum(half, 1.0)))))
