"""Settings of the cluster-field simulator; the values stand in ``conf/data_gen/fields.yaml``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datagen.checks import (
    check_choice,
    check_interval,
    check_keys,
    check_positive,
    check_range,
    check_subset,
)
from datagen.errors import ConfigError, DataNotFoundError
from datagen.fields.noise import FAINT_FRACTION, Depth, noise_sigma
from datagen.fields.version import FORMAT_VERSION
from datagen.files import sha256_file
from datagen.pipeline import JobSettings

if TYPE_CHECKING:
    from datagen.pipeline import Phase

BANDS = ("g", "r", "i", "z")
PHASES = ("catalog", "image", "datum")
# Modules that fill the sky and that draw it, imported on demand: each brings its heavy library.
PRIORS = {"analytic": "datagen.fields.analytic", "empirical": "datagen.fields.empirical"}
RENDERERS = {
    "fourier": "datagen.fields.render.fourier_renderer",
    "galsim": "datagen.fields.render.galsim_renderer",
}
# the red-sequence table ends at 1.2; below 0.03 a cluster is larger than any field
REDSHIFT_MIN, REDSHIFT_MAX = 0.03, 1.2

# The nested classes are not frozen: OmegaConf makes nested frozen classes read-only before it
# merges values into them.
__all__ = ["BANDS", "PHASES", "EmpiricalConfig", "FieldsConfig", "ImageConfig", "PriorConfig"]


def check_bands(name: str, values: Mapping[str, float], bands: Sequence[str]) -> None:
    """Raise `ConfigError` unless ``values`` has a positive entry for every band."""
    check_keys(name, values, bands, BANDS)
    for band, value in values.items():
        check_positive(f"{name}.{band}", value)


@dataclass
class EmpiricalConfig:
    """Files and column names of the empirical prior.

    Column names may carry an index into an array column, as in ``MAG[3]``.

    Args:
        members_file: redMaPPer members table (FITS, ECSV or CSV); None with the analytic prior.
        columns: table column of each of id, ra, dec [deg], r [h^-1 Mpc], p (membership
            probability) and z (redshift).
        magnitudes: table column of each of g, r, i, z [AB mag].
        positions_file: table with columns RA, DEC, Z of cluster centres; None takes the most
            probable central galaxy of each cluster as its centre.
        field_file: table of field galaxies; None takes the analytic field.
        field_columns: table column of z (redshift; may be missing: then it is drawn).
        field_magnitudes: table column of each of g, r, i, z [AB mag] in ``field_file``.
        field_area_arcmin2: sky area that ``field_file`` covers [arcmin^2].
    """

    members_file: str | None
    columns: dict[str, str]
    magnitudes: dict[str, str]
    positions_file: str | None
    field_file: str | None
    field_columns: dict[str, str]
    field_magnitudes: dict[str, str]
    field_area_arcmin2: float | None

    def __post_init__(self) -> None:
        columns = ("id", "ra", "dec", "r", "p", "z")
        check_keys("prior.empirical.columns", self.columns, columns, columns)
        check_keys("prior.empirical.magnitudes", self.magnitudes, BANDS, BANDS)
        check_keys("prior.empirical.field_columns", self.field_columns, (), ("z",))
        needed = BANDS if self.field_file is not None else ()
        check_keys("prior.empirical.field_magnitudes", self.field_magnitudes, needed, BANDS)
        if self.field_file is not None:
            if self.field_area_arcmin2 is None:
                raise ConfigError(
                    "expected prior.empirical.field_area_arcmin2 > 0 together with field_file, "
                    "but got field_area_arcmin2 = null",
                    value=None,
                    allowed="> 0",
                )
            check_positive("prior.empirical.field_area_arcmin2", self.field_area_arcmin2)


@dataclass
class PriorConfig:
    """What the sky contains.

    A field holds labelled systems (inside richness_range x redshift_range) and all other systems
    richer than group_richness_min at their natural abundance, field galaxies and stars.

    Args:
        kind: analytic or empirical.
        cluster_fraction: probability that a field holds one labelled system; None draws the
            labelled systems at their natural abundance too.
        richness_range: [lower, upper] richness of labelled systems.
        redshift_range: [lower, upper] redshift of labelled systems.
        group_richness_min: smallest richness of the unlabelled systems.
        group_redshift_range: [lower, upper] redshift of the unlabelled systems.
        ignore_richness_min: unlabelled systems at least this rich give weight 0 to their members.
        abundance_deg2: systems with richness > 20 at 0.2 < z < 0.9 per square degree.
        centre_margin_px: how far outside the field the centre of its labelled system may lie.
        mag_limit: faintest galaxy or star, i band [AB mag].
        galaxy_density_arcmin2: field galaxies brighter than mag_limit per arcmin^2; None takes
            the number-count law.
        star_density_arcmin2: stars brighter than mag_limit per arcmin^2.
        min_snr: smallest signal-to-noise ratio in the reference band of a labelled member.
        triaxiality: 1 - minor/major axis of the member distribution, 0 is spherical.
        miscentring_fraction: share of systems whose central galaxy is off the centre.
        miscentring_mpc: scale of that Rayleigh offset [physical Mpc].
        red_sequence_width: Gaussian width of the red sequence in each colour [mag].
        empirical: files and columns of the empirical prior.
    """

    kind: str
    cluster_fraction: float | None
    richness_range: list[float]
    redshift_range: list[float]
    group_richness_min: float
    group_redshift_range: list[float]
    ignore_richness_min: float
    abundance_deg2: float
    centre_margin_px: float
    mag_limit: float
    galaxy_density_arcmin2: float | None
    star_density_arcmin2: float
    min_snr: float
    triaxiality: float
    miscentring_fraction: float
    miscentring_mpc: float
    red_sequence_width: float
    empirical: EmpiricalConfig

    def __post_init__(self) -> None:
        check_choice("prior.kind", self.kind, PRIORS)
        if self.cluster_fraction is not None:
            check_range("prior.cluster_fraction", self.cluster_fraction, 0.0, 1.0)
        check_interval("prior.richness_range", self.richness_range, 2.0, 300.0)
        for name in ("redshift_range", "group_redshift_range"):
            check_interval(f"prior.{name}", getattr(self, name), REDSHIFT_MIN, REDSHIFT_MAX)
        self._check_numbers()
        if self.kind == "empirical" and self.empirical.members_file is None:
            raise ConfigError(
                "expected prior.empirical.members_file to name a members table for "
                "prior.kind = empirical, but got members_file = null",
                value=None,
                allowed="a path",
            )

    def _check_numbers(self) -> None:
        check_range("prior.group_richness_min", self.group_richness_min, 2.0, 300.0)
        check_range("prior.ignore_richness_min", self.ignore_richness_min, self.group_richness_min)
        check_range("prior.abundance_deg2", self.abundance_deg2, 0.0)
        check_range("prior.centre_margin_px", self.centre_margin_px, 0.0)
        check_range("prior.mag_limit", self.mag_limit, 18.0, 28.0)
        if self.galaxy_density_arcmin2 is not None:
            check_range("prior.galaxy_density_arcmin2", self.galaxy_density_arcmin2, 0.0)
        check_range("prior.star_density_arcmin2", self.star_density_arcmin2, 0.0)
        check_range("prior.min_snr", self.min_snr, 0.0)
        check_range("prior.triaxiality", self.triaxiality, 0.0, 0.9)
        check_range("prior.miscentring_fraction", self.miscentring_fraction, 0.0, 1.0)
        check_range("prior.miscentring_mpc", self.miscentring_mpc, 0.0)
        check_range("prior.red_sequence_width", self.red_sequence_width, 0.0, 0.5)


@dataclass
class ImageConfig:
    """Pixels, point-spread function and noise of the images.

    Args:
        pixel_scale: [arcsec/px].
        zero_point: magnitude of one count [AB mag].
        psf_fwhm_arcsec: median full width at half maximum of each band [arcsec].
        psf_scatter: relative scatter of the width from field to field.
        psf_ellipticity: scatter of each shear component of the PSF.
        psf_beta: Moffat exponent.
        depth_mag: magnitude of signal-to-noise ratio ``depth_snr`` in each band [AB mag].
        depth_aperture_arcsec: diameter of the aperture of that depth [arcsec].
        depth_snr: signal-to-noise ratio of that depth.
    """

    pixel_scale: float
    zero_point: float
    psf_fwhm_arcsec: dict[str, float]
    psf_scatter: float
    psf_ellipticity: float
    psf_beta: float
    depth_mag: dict[str, float]
    depth_aperture_arcsec: float
    depth_snr: float

    def __post_init__(self) -> None:
        for name in ("pixel_scale", "zero_point", "depth_aperture_arcsec", "depth_snr"):
            check_positive(f"image.{name}", getattr(self, name))
        check_range("image.psf_scatter", self.psf_scatter, 0.0, 0.5)
        check_range("image.psf_ellipticity", self.psf_ellipticity, 0.0, 0.2)
        check_range("image.psf_beta", self.psf_beta, 1.5, 10.0)

    def sigma(self, band: str) -> float:
        """Give the noise per pixel [counts] of one band."""
        depth = Depth(self.depth_mag[band], self.depth_aperture_arcsec, self.depth_snr)
        return noise_sigma(depth, self.zero_point, self.pixel_scale)

    def faint_limit(self, band: str) -> float:
        """Give the surface brightness [counts/px] below which light may be left out."""
        return FAINT_FRACTION * self.sigma(band)


def identified(content: dict[str, Any]) -> dict[str, Any]:
    """Name input files by their content, and add the version of the format.

    Args:
        content: settings with a prior.

    Raises:
        DataNotFoundError: an input file is missing.
    """
    empirical = dict(content["prior"]["empirical"])
    for key in ("members_file", "positions_file", "field_file"):
        if empirical[key] is not None:
            empirical[key] = _sha256(empirical[key])
    prior = content["prior"] | {"empirical": empirical}
    return content | {"prior": prior, "format_version": FORMAT_VERSION}


@cache
def _sha256(path: str) -> str:
    if not Path(path).is_file():
        raise DataNotFoundError(
            f"{path} does not exist; correct data_gen.prior.empirical", value=path
        )
    return sha256_file(Path(path))


@dataclass(frozen=True)
class FieldsConfig(JobSettings):
    """Everything that `data_gen=fields` needs.

    Args:
        image_size: side of a field [px].
        tile_size: side of a cell [px]; divides image_size.
        n_catalogs_per_file: fields in one file datum.
        bands: bands in the order of the image planes.
        reference_band: band of detection limits and of the brightest source of a cell.
        min_flux_for_loss: faintest member that marks its cell, reference band [counts].
        phases: which of catalog, image, datum to run.
        renderer: name of the renderer.
        prior: what the sky contains.
        image: pixels, PSF and noise.
    """

    image_size: int
    tile_size: int
    n_catalogs_per_file: int
    bands: list[str]
    reference_band: str
    min_flux_for_loss: float
    phases: list[str]
    renderer: str
    prior: PriorConfig
    image: ImageConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("image_size", self.image_size, 16)
        self._check_tile_size()
        check_range("n_catalogs_per_file", self.n_catalogs_per_file, 1)
        check_subset("bands", self.bands, BANDS)
        check_choice("reference_band", self.reference_band, self.bands)
        check_range("min_flux_for_loss", self.min_flux_for_loss, 0.0)
        check_subset("phases", self.phases, PHASES)
        check_choice("renderer", self.renderer, RENDERERS)
        check_bands("image.psf_fwhm_arcsec", self.image.psf_fwhm_arcsec, self.bands)
        check_bands("image.depth_mag", self.image.depth_mag, self.bands)

    def _check_tile_size(self) -> None:
        if self.tile_size < 1 or self.image_size % self.tile_size:
            powers = (2**k for k in range(3, 12))
            fitting = ", ".join(str(p) for p in powers if self.image_size % p == 0)
            raise ConfigError(
                f"expected tile_size to divide image_size = {self.image_size}, "
                f"but got tile_size = {self.tile_size} (for example {fitting or self.image_size})",
                value=self.tile_size,
                allowed=fitting,
            )

    def content(self) -> dict[str, Any]:
        """Give the settings that determine the bytes of the outputs, input files by content."""
        return identified(super().content())

    def owned(self) -> list[str]:
        """Give patterns of the files of the three phases."""
        return ["catalogs/field_*", "images/field_*", "file_data/file_data_*"]

    def expected_bytes(self) -> float:
        """Give the size of the float32 images, stored as FITS and again in file data."""
        copies = len({"image", "datum"} & set(self.phases))
        n_fields = self.nfiles * self.n_catalogs_per_file
        return 4.0 * copies * n_fields * len(self.bands) * self.image_size**2

    def makes_everything(self) -> bool:
        """Tell whether all phases are selected."""
        return set(self.phases) == set(PHASES)

    def build_phases(self) -> list[Phase]:
        """Give the jobs of the selected phases; the simulator is imported only here."""
        from datagen.fields.jobs import build_phases

        return build_phases(self)
