"""Settings of file data from survey tiles; the values stand in `conf/data_gen/tiles.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datagen.checks import check_choice, check_interval, check_keys, check_positive, check_range
from datagen.errors import ConfigError, DataNotFoundError
from datagen.fields.version import FORMAT_VERSION
from datagen.files import sha256_file
from datagen.pipeline import JobSettings
from datagen.tiles.survey import SurveySettings

if TYPE_CHECKING:
    from datagen.pipeline import Phase

LABELS = ("members", "circle")


@dataclass(frozen=True)
class TilesConfig(JobSettings):
    """Everything that `data_gen=tiles` needs; `nfiles` is the largest number of survey tiles.

    Args:
        survey: How the survey stores its tiles: the values of `SurveySettings`.
        tiles_dir: Folder of the survey tiles.
        image_size: Side of an image [px].
        tile_size: Side of a cell [px]; divides image_size.
        images_per_file: Images in one file datum; None for all of a survey tile.
        zero_point: Magnitude of one count in the file data.
        reference_band: Band in which members are compared with limits and each other.
        min_flux_for_loss: Faintest member that labels its cell, reference band [counts at zero
            point 30].
        min_flux_for_redshift: Faintest member in the redshift map, reference band [counts at
            zero point 30].
        mask_fraction_max: Cells with a larger fraction of masked pixels get weight 0.
        reference: Members table; with `{tile}` the source catalogs of simulated survey tiles,
            below `tiles_dir`; with `label` circle a cluster table.
        clusters: Cluster table of the members table, or None.
        columns: Our names of columns -> names in these tables, or None; each takes those it has.
        magnitudes: Band -> column of AB magnitudes in the members table; may be empty. Members of
            unknown magnitude give cells without a labelled member weight 0.
        label: What labels a cell: `members`, or the `circle` of radius R_lambda around a cluster.
        min_probability: Smallest membership probability of a member that labels its cell.
        ignore_probability: Members between it and `min_probability` give their cells weight 0.
        richness_min: Poorer clusters give their members' cells weight 0.
        redshift_range: [lower, upper]; clusters outside give their members' cells weight 0.
        require_members: Leave out survey tiles that show no entry of the reference, which may
            not cover them.
    """

    survey: dict[str, Any]
    tiles_dir: str
    image_size: int
    tile_size: int
    images_per_file: int | None
    zero_point: float
    reference_band: str
    min_flux_for_loss: float
    min_flux_for_redshift: float
    mask_fraction_max: float
    reference: str | None
    clusters: str | None
    columns: dict[str, str | None]
    magnitudes: dict[str, str]
    label: str
    min_probability: float
    ignore_probability: float
    richness_min: float
    redshift_range: list[float]
    require_members: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        bands = self.survey_settings.bands
        check_range("data_gen.tile_size", self.tile_size, 1)
        if self.image_size < 1 or self.image_size % self.tile_size:
            raise ConfigError(
                f"expected data_gen.image_size to be a multiple of data_gen.tile_size = "
                f"{self.tile_size}, but got image_size = {self.image_size}",
                value=self.image_size,
                allowed=f"a multiple of {self.tile_size}",
            )
        if self.images_per_file is not None:
            check_range("data_gen.images_per_file", self.images_per_file, 1)
        check_positive("data_gen.zero_point", self.zero_point)
        check_choice("data_gen.reference_band", self.reference_band, bands)
        check_keys("data_gen.magnitudes", self.magnitudes, (), bands)
        check_choice("data_gen.label", self.label, LABELS)
        for name in ("min_flux_for_loss", "min_flux_for_redshift", "richness_min"):
            check_range(f"data_gen.{name}", getattr(self, name), 0.0)
        check_range("data_gen.mask_fraction_max", self.mask_fraction_max, 0.0, 1.0)
        check_range("data_gen.min_probability", self.min_probability, 0.0, 1.0)
        check_range(
            "data_gen.ignore_probability (at most min_probability)",
            self.ignore_probability,
            0.0,
            self.min_probability,
        )
        check_interval("data_gen.redshift_range", self.redshift_range, 0.0, 6.0)
        self._check_reference()

    def _check_reference(self) -> None:
        if self.reference is None:
            raise ConfigError(
                "expected data_gen.reference to name a members table (redMaPPer), or "
                "'{tile}/{tile}_sources.dat' for simulated survey tiles, but got reference = null",
                value=None,
                allowed="a path",
            )
        if self.has_truth and (self.clusters is not None or self.label != "members"):
            raise ConfigError(
                "expected data_gen.clusters = null and data_gen.label = members for the truth of "
                f"simulated survey tiles, but got clusters = {self.clusters}, label = {self.label}",
                value=self.clusters,
                allowed=None,
            )

    @property
    def survey_settings(self) -> SurveySettings:
        """Return how the survey stores its tiles."""
        values = {key: value for key, value in self.survey.items() if key != "_target_"}
        try:
            return SurveySettings(**values)
        except TypeError as error:
            raise ConfigError(f"data_gen.survey: {error}", value=sorted(values)) from error

    @property
    def has_truth(self) -> bool:
        """Tell whether the reference is the truth of simulated survey tiles."""
        return self.reference is not None and "{tile}" in self.reference

    def content(self) -> dict[str, Any]:
        """Return the settings that determine the bytes of the outputs, catalogues by content."""
        content = super().content()
        del content["tiles_dir"], content["require_members"]
        content["survey"] = {k: v for k, v in self.survey.items() if k != "_target_"}
        for key in ("reference", "clusters"):
            if content[key] is not None and "{tile}" not in content[key]:
                content[key] = _sha256(content[key], key)
        return content | {"format_version": FORMAT_VERSION}

    def owned(self) -> list[str]:
        """Return the pattern of the file data."""
        return ["file_data/file_data_*"]

    def build_phases(self) -> list[Phase]:
        """Return one job per survey tile; torch is imported only here."""
        from datagen.tiles.jobs import build_phases

        return build_phases(self)


@cache
def _sha256(path: str, key: str) -> str:
    if not Path(path).is_file():
        raise DataNotFoundError(f"data_gen.{key} = {path} does not exist", value=path)
    return sha256_file(Path(path))
