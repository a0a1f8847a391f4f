"""Settings of `data_gen=halos`; the values stand in `conf/data_gen/halos.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datagen.checks import check_range
from datagen.halos.settings import HaloSettings
from datagen.halos.version import FORMAT_VERSION
from datagen.pipeline import JobSettings

if TYPE_CHECKING:
    from datagen.pipeline import Phase

__all__ = ["HalosConfig"]

# Numbers of a row of the truth.
_N_COLUMNS = 27


@dataclass(frozen=True)
class HalosConfig(JobSettings):
    """Everything that `data_gen=halos` needs; `nfiles` counts files of maps.

    Args:
        n_clusters_per_file: Clusters in one file, with all their maps.
        n_projections: Directions from which each cluster is seen.
        halo: The suite.
    """

    n_clusters_per_file: int
    n_projections: int
    halo: HaloSettings

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("n_clusters_per_file", self.n_clusters_per_file, 1, 100_000)
        check_range("n_projections", self.n_projections, 1, 1000)

    def n_maps_per_file(self) -> int:
        """Return the number of maps in one file."""
        return self.n_clusters_per_file * len(self.halo.cross_sections) * self.n_projections

    def content(self) -> dict[str, Any]:
        """Return the settings that determine the bytes of the outputs."""
        return super().content() | {"format_version": FORMAT_VERSION}

    def key_of(self, name: str) -> str:
        """Return the key of an entry of `content`; `halo` is a group of its own."""
        return name if name == "halo" else super().key_of(name)

    def owned(self) -> list[str]:
        """Return patterns of the maps and of their truth."""
        return ["maps/halos_*", "truth/halos_*"]

    def expected_bytes(self) -> float:
        """Return about the size of maps and truth."""
        n_numbers = len(self.halo.imaging.channels) * self.halo.imaging.side**2
        return self.nfiles * self.n_maps_per_file() * (4.0 * n_numbers + 8.0 * _N_COLUMNS)

    def build_phases(self) -> list[Phase]:
        """Return one job per file."""
        from datagen.halos.jobs import build_phases

        return build_phases(self)
