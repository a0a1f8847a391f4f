"""Settings of simulated survey tiles; the values stand in `conf/data_gen/survey.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datagen.checks import check_choice, check_positive, check_range, check_subset
from datagen.errors import ConfigError
from datagen.fields.config import (
    BANDS,
    RENDERERS,
    ImageConfig,
    PriorConfig,
    check_bands,
    identified,
)
from datagen.pipeline import JobSettings

if TYPE_CHECKING:
    from datagen.pipeline import Phase

FORMATS = ("fz", "plain")
PHASES = ("catalog", "image", "truth")
MAX_TILE_SIZE = 10_000
# Rows of equal declination lose their meaning near the poles.
MAX_DEC_DEG = 80.0

__all__ = ["FORMATS", "PHASES", "SurveyConfig"]


@dataclass(frozen=True)
class SurveyConfig(JobSettings):
    """Everything that `data_gen=survey` needs; `nfiles` counts survey tiles.

    Args:
        image_size: Side of a survey tile [px].
        overlap: Pixels that neighbouring tiles share.
        ra_deg: Right ascension of the middle of the layout [deg].
        dec_deg: Declination of the first row of tiles [deg].
        n_columns: Tiles per row; further rows are added above and below in turn.
        patch_deg: Side of the patches in which the sky is drawn [deg]; with a cluster_fraction
            each patch holds one labelled system with this probability.
        bands: Bands to write.
        reference_band: Band of detection limits.
        phases: Which of catalog, image, truth to run.
        renderer: Name of the renderer.
        format: `fz` (RICE-compressed, image in HDU 1) or `plain` (image in HDU 0).
        quantize_level: Compression steps per standard deviation of the noise.
        compressed_tile: Compressed pieces [rows, columns] in px; 0 columns means whole rows.
        prior: What the sky contains.
        image: Pixels, PSF and noise.
    """

    image_size: int
    overlap: int
    ra_deg: float
    dec_deg: float
    n_columns: int
    patch_deg: float
    bands: list[str]
    reference_band: str
    phases: list[str]
    renderer: str
    format: str
    quantize_level: float
    compressed_tile: list[int]
    prior: PriorConfig
    image: ImageConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("image_size", self.image_size, 64, MAX_TILE_SIZE)
        check_range("overlap (at most half of image_size)", self.overlap, 0, self.image_size // 2)
        check_range("ra_deg", self.ra_deg, 0.0, 360.0)
        check_range("n_columns", self.n_columns, 1)
        check_range("patch_deg", self.patch_deg, 0.01, 5.0)
        check_choice("format", self.format, FORMATS)
        check_positive("quantize_level", self.quantize_level)
        self._check_compressed_tile()
        self._check_layout()
        self._check_bands()

    def _check_compressed_tile(self) -> None:
        shape = self.compressed_tile
        if len(shape) != 2 or not (1 <= shape[0] <= self.image_size and shape[1] >= 0):
            raise ConfigError(
                "expected compressed_tile to be [rows, columns] with 1 <= rows <= image_size and "
                f"columns >= 0, but got compressed_tile = {list(shape)}",
                value=list(shape),
                allowed="[1, 0], [256, 256]",
            )

    def _check_bands(self) -> None:
        check_subset("bands", self.bands, BANDS)
        check_choice("reference_band", self.reference_band, self.bands)
        check_subset("phases", self.phases, PHASES)
        check_choice("renderer", self.renderer, RENDERERS)
        check_bands("image.psf_fwhm_arcsec", self.image.psf_fwhm_arcsec, self.bands)
        check_bands("image.depth_mag", self.image.depth_mag, self.bands)

    def _check_layout(self) -> None:
        """Refuse layouts that reach the poles or go around the sky."""
        step_deg = (self.image_size - self.overlap) * self.image.pixel_scale / 3600.0
        n_rows = -(-self.nfiles // self.n_columns)
        reach = abs(self.dec_deg) + (n_rows // 2 + 1) * step_deg
        if reach > MAX_DEC_DEG:
            raise ConfigError(
                f"expected all tiles within {MAX_DEC_DEG:g} deg of the equator, but got "
                f"dec_deg = {self.dec_deg:g} and {n_rows} rows of {step_deg:.3g} deg",
                value=self.dec_deg,
                allowed=f"|dec| <= {MAX_DEC_DEG:g}",
            )
        # At the largest declination a degree of right ascension is six times shorter.
        largest = int(60.0 / step_deg)
        check_range("n_columns", self.n_columns, 1, max(1, largest))

    def content(self) -> dict[str, Any]:
        """Return the settings that determine the bytes of the outputs, input files by content."""
        return identified(super().content())

    def owned(self) -> list[str]:
        """Return patterns of the files in the tiles' folders, and the truth."""
        return ["DES*/DES*", "truth_clusters.ecsv"]

    def makes_everything(self) -> bool:
        """Tell whether all phases are selected."""
        return set(self.phases) == set(PHASES)

    def build_phases(self) -> list[Phase]:
        """Return the jobs of the selected phases; the simulator is imported only here."""
        from datagen.fields.survey_jobs import build_phases

        return build_phases(self)
