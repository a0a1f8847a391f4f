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
from datagen.fields.tables_io import BoolArray, FloatArray

IntArray = NDArray[np.int64]
# component name -> the stream of that component
StreamOf = Callable[[str], np.random.Generator]
# light of sources this far outside still reaches the pixels
MARGIN_PX = 64.0
GALAXY, STAR = 0, 1

SOURCE_COLUMNS = (
    *("RA", "DEC", "X", "Y", "MEM", "FLUX_G", "FLUX_R", "FLUX_I", "FLUX_Z", "HLR", "FRACDEV"),
    *("G1", "G2", "Z", "SOURCE_TYPE", "GI_COLOR", "IZ_COLOR"),
    *("CLUSTER_ID", "SERSIC_N", "MAG_I", "IS_RED", "LABEL_WEIGHT"),
)
CLUSTER_COLUMNS = (
    *("CLUSTER_ID", "RA", "DEC", "X", "Y", "Z", "M200M", "RICHNESS"),
    *("R_LAMBDA_MPC", "R_LAMBDA_PX", "N_MEMBERS", "LABELLED"),
)


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
        is_patch: the rectangle is one patch of a larger sky: clusters are centred inside it, their
            members are kept wherever they fall, all else lies inside it. Otherwise it is a whole
            field: clusters centred outside reach into it, sources far outside are dropped.
    """

    width: int
    height: int
    wcs: WCS
    pixel_scale: float
    zero_point: float
    reference_band: str
    depth_mag: float
    depth_snr: float
    is_patch: bool = False

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
        )

    @property
    def margin_px(self) -> float:
        """How far outside the rectangle sources are kept [px]."""
        return 0.0 if self.is_patch else MARGIN_PX

    def box_arcmin2(self, margin_px: float) -> float:
        """Area of the rectangle, widened by a margin on every side [arcmin^2]."""
        sides = (self.width + 2.0 * margin_px) * (self.height + 2.0 * margin_px)
        return sides * (self.pixel_scale / 60.0) ** 2

    def scatter(self, rng: np.random.Generator, n: int, margin_px: float) -> FloatArray:
        """Draw n uniform positions (x, y) in the widened rectangle, shape (n, 2) [px]."""
        sides = np.array([self.width, self.height]) + 2.0 * margin_px
        return rng.random((n, 2)) * sides - margin_px

    def distance_px(self, xy: FloatArray) -> FloatArray:
        """Distance from the rectangle, 0 inside, shape (N,) [px]."""
        beyond = np.maximum(np.maximum(-xy, xy - [self.width, self.height]), 0.0)
        return np.hypot(beyond[:, 0], beyond[:, 1])

    def is_inside(self, xy: FloatArray, margin_px: float = 0.0) -> BoolArray:
        """Whether positions lie in [0, width) x [0, height), widened by a margin, shape (N,)."""
        inside = (xy >= -margin_px) & (xy < np.array([self.width, self.height]) + margin_px)
        return inside[:, 0] & inside[:, 1]

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


def source_table(prior: PriorConfig, area: SkyArea, sources: Sources, systems: Systems) -> Table:
    """Assemble the source catalogue; `cluster_id` is the row in `systems`."""
    owner = sources.cluster_id
    has_owner = owner >= 0
    is_labelled, is_ignored = np.zeros_like(has_owner), np.zeros_like(has_owner)
    is_labelled[has_owner] = systems.is_labelled[owner[has_owner]]
    too_rich = ~systems.is_labelled & (systems.richness >= prior.ignore_richness_min)
    is_ignored[has_owner] = too_rich[owner[has_owner]]
    flux = 10.0 ** (-0.4 * (sources.mags - area.zero_point))
    ra, dec = area.wcs.wcs_pix2world(sources.xy[:, 0], sources.xy[:, 1], 0)
    hlr, fracdev, sersic_n, g1, g2 = sources.shape.T
    mag_g, _, mag_i, mag_z = sources.mags.T
    values = (
        *(ra, dec, *sources.xy.T, (is_labelled & sources.is_counted).astype(np.int64)),
        *(*flux.T, hlr, fracdev, g1, g2, sources.z, sources.is_star.astype(np.int64)),
        *(mag_g - mag_i, mag_i - mag_z, owner, sersic_n, mag_i, sources.is_red.astype(np.int64)),
        np.where(is_ignored & sources.is_counted, 0.0, 1.0),
    )
    return Table(dict(zip(SOURCE_COLUMNS, values, strict=True)))


def cluster_table(area: SkyArea, sources: Sources, systems: Systems) -> Table:
    """Assemble the cluster truth; N_MEMBERS counts label-making members inside the rectangle."""
    counted = sources.is_counted & (sources.cluster_id >= 0)
    if not area.is_patch:
        counted = counted & area.is_inside(sources.xy)
    n_members = np.bincount(sources.cluster_id[counted], minlength=len(systems))
    ra, dec = area.wcs.wcs_pix2world(systems.xy[:, 0], systems.xy[:, 1], 0)
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
