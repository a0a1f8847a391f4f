"""The piece of sky that a prior fills, and the tables that it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from astropy.wcs import WCS
from numpy.typing import NDArray

from datagen.fields.config import BANDS, ImageConfig, PriorConfig
from datagen.fields.cosmology import arcsec_per_mpc
from datagen.fields.galaxies import magnitudes, sample_colours
from datagen.fields.morphology import sample_morphology
from datagen.fields.render.components import EXPONENTIAL, Components
from datagen.fields.schema import CATALOG_COLUMNS, CLUSTER_COLUMNS
from datagen.fields.tables_io import BoolArray, FloatArray
from datagen.fields.wcs import pixel_to_sky

IntArray = NDArray[np.int64]
# component name -> the stream of that component
StreamOf = Callable[[str], np.random.Generator]
# Light of any source this far outside may reach the pixels: the wings of the PSF, faint galaxies.
MARGIN_PX = 64.0
# Galaxies brighter than this (i) may reach farther and are looked for in a wider margin; what is
# left out beyond both is above 0.05 sigma of the noise in 0.2 % of fields of 2560 px.
FAR_MAG, FAR_MARGIN_PX = 19.0, 1280.0


@dataclass(frozen=True)
class SkyArea:
    """A pixel rectangle on the sky and how deep it is seen.

    Args:
        width: columns [px].
        height: rows [px].
        wcs: celestial coordinates, 0-based pixel centres.
        pixel_scale: [arcsec/px].
        zero_point: magnitude of one count [AB mag].
        reference_band: band of the detection limit.
        depth_mag: magnitude of signal-to-noise ratio `depth_snr` in the reference band [AB mag].
        depth_snr: signal-to-noise ratio of that depth.
        faint_limit: surface brightness in g, r, i, z below which light may be left out [counts/px];
            infinite in a band that is not seen.
        is_patch: the rectangle is one patch of a larger sky: clusters are centred inside it, their
            members are kept wherever they fall, all else lies inside it. Otherwise it is a whole
            field: clusters centred outside reach into it, sources whose light does not are dropped.
        is_far: a patch that only systems and bright galaxies are wanted of.
    """

    width: int
    height: int
    wcs: WCS
    pixel_scale: float
    zero_point: float
    reference_band: str
    depth_mag: float
    depth_snr: float
    faint_limit: tuple[float, ...]
    is_patch: bool = False
    is_far: bool = False

    @classmethod
    def from_image(
        cls, image: ImageConfig, reference_band: str, wcs: WCS, shape: tuple[int, int]
    ) -> SkyArea:
        """Describe a field of shape (H, W) with the depth of `image`."""
        height, width = shape
        return cls(
            width=width,
            height=height,
            wcs=wcs,
            pixel_scale=image.pixel_scale,
            zero_point=image.zero_point,
            reference_band=reference_band,
            depth_mag=image.depth_mag[reference_band],
            depth_snr=image.depth_snr,
            faint_limit=tuple(
                image.faint_limit(band) if band in image.depth_mag else np.inf for band in BANDS
            ),
        )

    @property
    def margin_px(self) -> float:
        """How far outside the rectangle every source is kept [px]."""
        return 0.0 if self.is_patch else MARGIN_PX

    @property
    def far_margin_px(self) -> float:
        """How far outside the rectangle bright galaxies are looked for [px]."""
        return 0.0 if self.is_patch else FAR_MARGIN_PX

    def box_arcmin2(self, margin_px: float) -> float:
        """Area of the rectangle, widened by a margin on every side [arcmin^2]."""
        sides = (self.width + 2.0 * margin_px) * (self.height + 2.0 * margin_px)
        return sides * (self.pixel_scale / 60.0) ** 2

    def scatter(self, rng: np.random.Generator, n: int, margin_px: float) -> FloatArray:
        """Draw n uniform positions (x, y) in the widened rectangle, shape (n, 2) [px]."""
        sides = np.array([self.width, self.height]) + 2.0 * margin_px
        return rng.random((n, 2)) * sides - (margin_px + 0.5)

    def distance_px(self, xy: FloatArray) -> FloatArray:
        """Distance from the rectangle, 0 inside, shape (N,) [px]."""
        last = np.array([self.width, self.height]) - 0.5
        beyond = np.maximum(np.maximum(-0.5 - xy, xy - last), 0.0)
        return np.hypot(beyond[:, 0], beyond[:, 1])

    def is_inside(self, xy: FloatArray) -> BoolArray:
        """Whether positions lie on the pixels, shape (N,); the first centre is 0, its edge -0.5."""
        inside = (xy >= -0.5) & (xy < np.array([self.width, self.height]) - 0.5)
        return inside[:, 0] & inside[:, 1]

    def is_seen(self, xy: FloatArray, flux: FloatArray, shape: FloatArray) -> BoolArray:
        """Whether the light of sources may reach the pixels, shape (N,).

        Args:
            xy: positions, shape (N, 2) [px].
            flux: in g, r, i, z, shape (N, 4) [counts].
            shape: HLR [arcsec], FRACDEV, SERSIC_N, G1, G2, shape (N, 5).
        """
        distance = self.distance_px(xy)
        is_seen: BoolArray = distance <= self.margin_px
        far = np.flatnonzero(~is_seen)
        hlr, _, sersic_n, g1, g2 = shape[far].T
        profiles = Components(
            x=xy[far, 0],
            y=xy[far, 1],
            flux=flux[far],
            half_light=hlr / self.pixel_scale,
            sersic=np.where(hlr > 0, sersic_n, EXPONENTIAL),
            shear=np.column_stack([g1, g2]),
        )
        is_seen[far] = profiles.reach(np.asarray(self.faint_limit)) >= distance[far]
        return is_seen

    def flux(self, mags: FloatArray) -> FloatArray:
        """Flux [counts] of magnitudes [AB], same shape."""
        flux: FloatArray = 10.0 ** (-0.4 * (mags - self.zero_point))
        return flux

    def signal_to_noise(self, mags: FloatArray) -> FloatArray:
        """Point-source signal-to-noise ratio in the reference band; mags (N, 4) in g, r, i, z."""
        reference = mags[:, BANDS.index(self.reference_band)]
        return self.depth_snr * 10.0 ** (-0.4 * (reference - self.depth_mag))


@dataclass(frozen=True)
class Sources:
    """N sources; a galaxy has a redshift and a size, a star neither.

    Args:
        xy: positions, 0-based pixel centres, shape (N, 2).
        mags: g, r, i, z [AB mag], shape (N, 4).
        z: redshift, shape (N,).
        is_red: shape (N,).
        shape: HLR [arcsec], FRACDEV, SERSIC_N, G1, G2, shape (N, 5).
        cluster_id: -1 for none, shape (N,).
        is_counted: belongs to the members that make a label, shape (N,).
        is_star: shape (N,).
    """

    xy: FloatArray
    mags: FloatArray
    z: FloatArray
    is_red: BoolArray
    shape: FloatArray
    cluster_id: IntArray
    is_counted: BoolArray
    is_star: BoolArray

    def take(self, index: BoolArray) -> Sources:
        """Give the selected sources."""
        return Sources(**{name: value[index] for name, value in vars(self).items()})


@dataclass(frozen=True)
class Systems:
    """N clusters and groups.

    Args:
        xy: centres, 0-based pixel centres, shape (N, 2).
        z: redshift, shape (N,).
        richness: shape (N,).
        m200m_msun: shape (N,).
        r_lambda_mpc: physical Mpc, shape (N,).
        is_labelled: inside the label prior, shape (N,).
    """

    xy: FloatArray
    z: FloatArray
    richness: FloatArray
    m200m_msun: FloatArray
    r_lambda_mpc: FloatArray
    is_labelled: BoolArray

    def __len__(self) -> int:
        return len(self.z)

    def take(self, index: BoolArray) -> Systems:
        """Give the selected systems."""
        return Systems(**{name: value[index] for name, value in vars(self).items()})


def join_systems(parts: list[Systems]) -> Systems:
    """Concatenate systems."""
    names = vars(parts[0])
    return Systems(**{k: np.concatenate([getattr(p, k) for p in parts]) for k in names})


def join_sources(parts: list[Sources]) -> Sources:
    """Concatenate sources."""
    names = vars(parts[0])
    return Sources(**{k: np.concatenate([getattr(p, k) for p in parts]) for k in names})


@dataclass(frozen=True)
class Galaxies:
    """What is known of N galaxies before colours, sizes and shapes are drawn.

    Args:
        xy: positions [px], shape (N, 2).
        mag_i: i magnitude [AB], shape (N,).
        z: redshift, shape (N,).
        is_red: shape (N,).
        cluster_id: -1 for none, shape (N,).
    """

    xy: FloatArray
    mag_i: FloatArray
    z: FloatArray
    is_red: BoolArray
    cluster_id: IntArray


def dress_galaxies(
    rng: np.random.Generator, galaxies: Galaxies, mags: FloatArray | None, width: float
) -> Sources:
    """Draw colours (unless `mags` gives them), sizes and shapes, whatever the galaxies belong to.

    Args:
        rng: generator.
        galaxies: positions, magnitudes, redshifts and types.
        mags: measured g, r, i, z [AB mag], shape (N, 4), or None.
        width: width of the red sequence [mag].
    """
    if mags is None:
        colours = sample_colours(rng, galaxies.z, galaxies.is_red, width)
        mags = magnitudes(galaxies.mag_i, colours)
    form = sample_morphology(rng, galaxies.mag_i, galaxies.z, galaxies.is_red)
    shape = np.column_stack([form.hlr_arcsec, form.fracdev, form.sersic_n, form.shear])
    none = np.zeros(len(galaxies.z), bool)
    return Sources(
        xy=galaxies.xy,
        mags=mags,
        z=galaxies.z,
        is_red=galaxies.is_red,
        shape=shape,
        cluster_id=galaxies.cluster_id,
        is_counted=none,
        is_star=none,
    )


def seen(area: SkyArea, sources: Sources) -> Sources:
    """Drop the sources whose light does not reach a field; a patch keeps all of its own."""
    if area.is_patch:
        return sources
    return sources.take(area.is_seen(sources.xy, area.flux(sources.mags), sources.shape))


def draw_far_and_near(area: SkyArea, draw: Callable[[float, float, float], Sources]) -> Sources:
    """Draw field galaxies: bright ones out to where they reach in from, all others near by.

    Args:
        area: pixel rectangle.
        draw: draws galaxies in a magnitude interval [i, AB], from brighter to fainter limit, and
            within a margin [px].
    """
    # Bright ones first: they are the same whether others follow or not.
    parts = [draw(-np.inf, FAR_MAG, area.far_margin_px)]
    if not area.is_far:
        parts.append(draw(FAR_MAG, np.inf, area.margin_px))
    return seen(area, join_sources(parts))


def source_table(prior: PriorConfig, area: SkyArea, sources: Sources, systems: Systems) -> Table:
    """Assemble the source catalogue; `cluster_id` is the row in `systems`."""
    owner = sources.cluster_id
    has_owner = owner >= 0
    is_labelled, is_ignored = np.zeros_like(has_owner), np.zeros_like(has_owner)
    is_labelled[has_owner] = systems.is_labelled[owner[has_owner]]
    too_rich = ~systems.is_labelled & (systems.richness >= prior.ignore_richness_min)
    is_ignored[has_owner] = too_rich[owner[has_owner]]
    flux = area.flux(sources.mags)
    ra, dec = pixel_to_sky(area.wcs, *sources.xy.T)
    hlr, fracdev, sersic_n, g1, g2 = sources.shape.T
    mag_g, _, mag_i, mag_z = sources.mags.T
    values = (
        *(ra, dec, *sources.xy.T, (is_labelled & sources.is_counted).astype(np.int64)),
        *(*flux.T, hlr, fracdev, g1, g2, sources.z, sources.is_star.astype(np.int64)),
        *(mag_g - mag_i, mag_i - mag_z, owner, sersic_n, mag_i, sources.is_red.astype(np.int64)),
        np.where(is_ignored & sources.is_counted, 0.0, 1.0),
    )
    return Table(dict(zip(CATALOG_COLUMNS, values, strict=True)))


def light_of(sources: Table) -> tuple[FloatArray, FloatArray]:
    """Return the fluxes (N, 4) [counts] and shapes (N, 5) of a source catalogue."""
    fluxes, shapes = [f"FLUX_{band.upper()}" for band in BANDS], ["HLR", "FRACDEV", "SERSIC_N"]
    columns = [np.asarray(sources[name], np.float64) for name in [*fluxes, *shapes, "G1", "G2"]]
    return np.column_stack(columns[:4]), np.column_stack(columns[4:])


def cluster_table(area: SkyArea, sources: Sources, systems: Systems) -> Table:
    """Assemble the cluster truth; N_MEMBERS counts label-making members inside the rectangle."""
    counted = sources.is_counted & (sources.cluster_id >= 0)
    if not area.is_patch:
        counted = counted & area.is_inside(sources.xy)
    n_members = np.bincount(sources.cluster_id[counted], minlength=len(systems))
    ra, dec = pixel_to_sky(area.wcs, *systems.xy.T)
    r_px = systems.r_lambda_mpc * px_per_mpc(area, systems.z)
    values = (
        *(np.arange(len(systems)), ra, dec, *systems.xy.T, systems.z, systems.m200m_msun),
        *(systems.richness, systems.r_lambda_mpc, r_px, n_members.astype(np.int64)),
        systems.is_labelled,
    )
    return Table(dict(zip(CLUSTER_COLUMNS, values, strict=True)))


def px_per_mpc(area: SkyArea, z: FloatArray) -> FloatArray:
    """Pixels that one physical Mpc subtends at z."""
    return arcsec_per_mpc(z) / area.pixel_scale
