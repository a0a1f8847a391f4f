"""Puts the results of all survey tiles together when the ranks are done."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen import files
from datagen.errors import DataFormatError, DataNotFoundError
from datagen.tiles.listing import Tile
from inference.outputs import read_record, remove
from inference.survey.candidates import read_catalog, to_ecsv, to_regions
from inference.survey.footprint import covered_areas, footprint_regions, footprint_table
from inference.survey.merge import TileFootprint, merge_catalogs
from inference.survey.records import OutputPaths, is_done, note_failure
from inference.survey.scores import read_scores

log = logging.getLogger(__name__)


def collect(
    tiles: Sequence[Tile],
    run: Mapping[str, Any],
    paths: OutputPaths,
    merge_radius_arcmin: float,
    with_regions: bool,
) -> int:
    """Write the merged catalogue, the footprint, the manifest and the list of failures.

    Args:
        tiles: All survey tiles of the input folder.
        run: The run whose results count, `run.json`.
        paths: Names of the files.
        merge_radius_arcmin: See `merge_catalogs`.
        with_regions: Whether to write region files of the catalogues.

    Returns:
        Number of survey tiles without results.
    """
    run_hash = run["run_hash"]
    results = _results([tile for tile in tiles if is_done(tile, run_hash, paths)], paths)
    places = [result.place for result in results]
    finished = {place.name for place in places}
    failed = [tile for tile in tiles if tile.name not in finished]
    catalog = merge_catalogs([result.candidates for result in results], places, merge_radius_arcmin)
    catalog.meta["merge_radius_arcmin"] = merge_radius_arcmin
    _write_catalog(catalog, run, paths)
    if with_regions:
        _write_regions(catalog, results, paths)
    areas = covered_areas(places, [result.seen_fraction for result in results])
    _write_footprint(places, areas, paths)
    reasons = [_reason(tile, paths) for tile in failed]
    _write_failures(failed, reasons, paths)
    area = {place.name: area for place, area in zip(places, areas, strict=True)}
    files.write_json(paths.manifest, _manifest(tiles, area, run_hash, paths))
    summary = (
        f"{len(finished)} of {len(tiles)} survey tiles predicted, {len(catalog)} candidates "
        f"in {sum(areas):.4g} deg2"
    )
    _report(summary, failed, reasons, paths)
    return len(failed)


def _report(
    summary: str, failed: Sequence[Tile], reasons: Sequence[str], paths: OutputPaths
) -> None:
    """Say in one line how it went."""
    if failed:
        log.error(
            "%s; %d failed, see %s (%s: %s); repair their files, or correct survey.*, and run "
            "the command again, which predicts only what is missing",
            summary,
            len(failed),
            paths.failed,
            failed[0].name,
            reasons[0],
        )
    else:
        log.info("%s, see %s", summary, paths.catalog)


@dataclass(frozen=True)
class _Result:
    """What counts of a finished survey tile."""

    place: TileFootprint
    seen_fraction: NDArray[np.float16]
    candidates: Table


def _results(done: Sequence[Tile], paths: OutputPaths) -> list[_Result]:
    """Return the results of survey tiles; what is damaged is noted as failed instead."""
    results = []
    for tile in done:
        try:
            scores = read_scores(paths.scores(tile.name))
            table = read_catalog(paths.candidates(tile.name))
        except (DataFormatError, DataNotFoundError) as error:
            note_failure(paths, tile.name, str(error))
            continue
        # All survey tiles of a survey are held here.
        fraction = scores.seen_fraction.astype(np.float16)
        results.append(_Result(TileFootprint.of(scores), fraction, table))
    return results


def _write_catalog(catalog: Table, run: Mapping[str, Any], paths: OutputPaths) -> None:
    catalog.meta |= {
        "run_hash": run["run_hash"],
        "checkpoint": run["checkpoint"],
        "threshold": run["settings"]["predict.threshold"],
        "version": run["package_version"],
    }
    files.write_text(paths.catalog, to_ecsv(catalog))
    # One of another run would seem to belong to this one.
    remove(paths.catalog_regions)


def _write_regions(catalog: Table, results: Sequence[_Result], paths: OutputPaths) -> None:
    files.write_text(paths.catalog_regions, to_regions(catalog))
    for result in results:
        path = paths.regions(result.place.name)
        # Those of outdated results were removed with them.
        if not path.is_file():
            files.write_text(path, to_regions(result.candidates))


def _write_footprint(
    places: Sequence[TileFootprint], areas: Sequence[float], paths: OutputPaths
) -> None:
    files.write_text(paths.footprint, to_ecsv(footprint_table(places, areas)))
    files.write_text(paths.footprint_regions, footprint_regions(places))


def _reason(tile: Tile, paths: OutputPaths) -> str:
    if tile.problem is not None:
        return tile.problem
    return str(read_record(paths, tile.name).get("reason", "the run ended before this tile"))


def _write_failures(failed: Sequence[Tile], reasons: Sequence[str], paths: OutputPaths) -> None:
    names = [tile.name for tile in failed]
    table = Table([names, list(reasons)], names=["tile", "reason"], dtype=[str, str])
    files.write_text(paths.failed, to_ecsv(table))


def _manifest(
    tiles: Sequence[Tile], areas: Mapping[str, float], run_hash: str, paths: OutputPaths
) -> dict[str, Any]:
    """Return the manifest; `areas` [deg2] holds the finished survey tiles."""
    entries = []
    for tile in tiles:
        record = read_record(paths, tile.name)
        entry: dict[str, Any] = {"tile": tile.name, "files": [str(p) for p in tile.paths]}
        if tile.name in areas:
            entry |= {"status": "done", "area_deg2": areas[tile.name]}
        else:
            entry |= {"status": "failed"}
        entries.append({**record, **entry, "bytes": list(tile.sizes)})
    total = {"format_version": 1, "run_hash": run_hash, "area_deg2": sum(areas.values())}
    return {**total, "tiles": entries}
