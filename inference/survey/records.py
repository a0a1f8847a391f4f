"""What a prediction notes about each survey tile, so that nothing is lost when a run dies.

Every rank and worker writes small files of its own; the first rank puts them together at the end.
"""

from __future__ import annotations

from pathlib import Path

from astropy.io import fits

from datagen import files
from datagen.tiles.listing import Tile
from inference.outputs import OutputFolder, read_record, write_record


class OutputPaths(OutputFolder):
    """Names of everything below the output folder."""

    @property
    def catalog(self) -> Path:
        """The merged catalogue."""
        return self.root / "catalog.ecsv"

    @property
    def catalog_regions(self) -> Path:
        """The merged catalogue as a region file."""
        return self.root / "catalog.reg"

    @property
    def footprint(self) -> Path:
        """Corners of the survey tiles and the area that each adds."""
        return self.root / "footprint.ecsv"

    @property
    def footprint_regions(self) -> Path:
        """Outlines of the survey tiles as a region file."""
        return self.root / "footprint.reg"

    def scores(self, tile: str) -> Path:
        """Score map of a survey tile."""
        return self.root / "scores" / f"{tile}.fits"

    def candidates(self, tile: str) -> Path:
        """Catalogue of a survey tile."""
        return self.root / "catalogs" / f"{tile}.ecsv"

    def regions(self, tile: str) -> Path:
        """DS9 regions of a survey tile."""
        return self.root / "regions" / f"{tile}.reg"

    def of_tile(self, tile: str) -> tuple[Path, ...]:
        """Everything that belongs to a survey tile, the score map first."""
        return self.scores(tile), self.candidates(tile), self.regions(tile), self.record(tile)

    def tiles(self) -> set[str]:
        """Names of the survey tiles of which there is a result or a record."""
        kinds = {"scores": ".fits", "catalogs": ".ecsv", "regions": ".reg", "records": ".json"}
        return {
            path.name.removesuffix(suffix)
            for folder, suffix in kinds.items()
            for path in (self.root / folder).glob(f"*{suffix}")
        }


def tile_hash(tile: Tile, run_hash: str) -> str:
    """Return what identifies a tile's result: checkpoint, settings and sizes of the input."""
    return files.content_hash({"run": run_hash, "tile": tile.name, "sizes": list(tile.sizes)})


def is_done(tile: Tile, run_hash: str, paths: OutputPaths) -> bool:
    """Return whether both results of a tile are whole and belong to this run and this input.

    The input is the same if names, sizes and times of the files are. Results are whole if they are
    as long as they were written: to read all of them takes minutes, and `collect` does it anyway.
    """
    if tile.problem is not None:
        return False
    results = (paths.scores(tile.name), paths.candidates(tile.name))
    try:
        sizes = [path.stat().st_size for path in results]
        record = read_record(paths, tile.name)
        stored = fits.getval(results[0], "TILEHASH")
    except Exception:  # a damaged header makes astropy raise many unrelated classes
        return False
    # Times are no part of the results, whose bytes a copy of the input must reproduce.
    is_same_input = record.get("mtimes_ns") == list(tile.mtimes_ns)
    is_whole = record.get("result_bytes", sizes) == sizes
    return is_same_input and is_whole and bool(stored == tile_hash(tile, run_hash))


def note_failure(paths: OutputPaths, tile: str, reason: str) -> None:
    """Note that a survey tile has no result, and why; the next run tries it again."""
    write_record(paths, tile, {"tile": tile, "status": "failed", "reason": reason})
