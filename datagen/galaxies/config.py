"""Settings of `data_gen=galaxies`; the values stand in `conf/data_gen/galaxies.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datagen.checks import check_range
from datagen.galaxies.settings import GalaxySettings
from datagen.galaxies.version import FORMAT_VERSION
from datagen.pipeline import JobSettings

if TYPE_CHECKING:
    from datagen.pipeline import Phase

__all__ = ["GalaxiesConfig"]

# Bytes of a row of labels, and of the headers of an image; each part of a file fills whole blocks.
_ROW, _BLOCK = 200.0, 2880


@dataclass(frozen=True)
class GalaxiesConfig(JobSettings):
    """Everything that `data_gen=galaxies` needs; `nfiles` counts tables of labels.

    Args:
        n_objects_per_file: Objects of one table, with all their stamps.
        n_projections: Directions from which each object is seen.
        galaxy: The suite.
    """

    n_objects_per_file: int
    n_projections: int
    galaxy: GalaxySettings

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("n_objects_per_file", self.n_objects_per_file, 1, 100_000)
        check_range("n_projections", self.n_projections, 1, 1000)

    def n_stamps_per_file(self) -> int:
        """Return the number of stamps that one table of labels describes."""
        return self.n_objects_per_file * len(self.galaxy.snapshots) * self.n_projections

    def content(self) -> dict[str, Any]:
        """Return the settings that determine the bytes of the outputs."""
        return super().content() | {"format_version": FORMAT_VERSION}

    def key_of(self, name: str) -> str:
        """Return the key of an entry of `content`; `galaxy` is a group of its own."""
        return name if name == "galaxy" else super().key_of(name)

    def owned(self) -> list[str]:
        """Return patterns of the images and of their labels."""
        return ["images/snap_*.fits", "labels/labels_*.fits"]

    def expected_bytes(self) -> float:
        """Return about the size of images and labels."""
        imaging = self.galaxy.imaging
        plane = _BLOCK * (1 + -(-4 * imaging.side**2 // _BLOCK))
        stamp = _BLOCK + len(imaging.bands) * plane + _ROW
        return float(self.nfiles * self.n_stamps_per_file() * stamp)

    def build_phases(self) -> list[Phase]:
        """Return one job per table of labels."""
        from datagen.galaxies.jobs import build_phases

        return build_phases(self)
