"""Puts the results of all survey tiles together when the ranks are done."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from astropy.table import Table

from datagen import files
from datagen.errors import DataFormatError, DataNotFoundError
from datagen.tiles.listing import Tile
from inference.survey.candidates import read_catalog, to_ecsv
from inference.survey.merge import TileFootprint, merge_catalogs
from inference.survey.records import OutputPaths, is_done, note_failure, read_record
from inference.survey.scores import read_scores

log = logging.getLogger(__name__)


def collect(
    tiles: Sequence[Tile], run: Mapping[str, Any], paths: OutputPaths, merge_radius_arcmin: float
) -> int:
    """Write the merged catalogue, the manifest and the list of failures.

    Args:
        tiles: All survey tiles of the input folder.
        run: The run whose results count, `run.json`.
        paths: Names of the files.
        merge_radius_arcmin: See `merge_catalogs`.

    Returns:
        Number of survey tiles without results.
    """
    run_hash = run["run_hash"]
    results = _results([tile for tile in tiles if is_done(tile, run_hash, paths)], paths)
    finished = {footprint.name for footprint, _ in results}
    failed = [tile for tile in tiles if tile.name not in finished]
    catalog = merge_catalogs(
        [table for _, table in results], [place for place, _ in results], merge_radius_arcmin
    )
    catalog.meta |= {
        "run_hash": run_hash,
        "checkpoint": run["checkpoint"],
        "threshold": run["settings"]["predict.threshold"],
        "merge_radius_arcmin": merge_radius_arcmin,
        "version": run["package_version"],
    }
    files.write_text(paths.catalog, to_ecsv(catalog))
    reasons = [_reason(tile, paths) for tile in failed]
    _write_failures(failed, reasons, paths)
    files.write_json(paths.manifest, _manifest(tiles, finished, run_hash, paths))
    summary = f"{len(finished)} of {len(tiles)} survey tiles predicted, {len(catalog)} candidates"
    if failed:
        first = f"{failed[0].name}: {reasons[0]}"
        log.error("%s; %d failed, see %s (%s)", summary, len(failed), paths.failed, first)
    else:
        log.info("%s in %s", summary, paths.catalog)
    return len(failed)


def _results(done: Sequence[Tile], paths: OutputPaths) -> list[tuple[TileFootprint, Table]]:
    """Return place and catalogue of survey tiles; what is damaged is noted as failed instead."""
    results = []
    for tile in done:
        try:
            scores = read_scores(paths.scores(tile.name))
            table = read_catalog(paths.candidates(tile.name))
        except (DataFormatError, DataNotFoundError) as error:
            note_failure(paths, tile.name, str(error))
            continue
        results.append((TileFootprint.of(scores), table))
    return results


def _reason(tile: Tile, paths: OutputPaths) -> str:
    if tile.problem is not None:
        return tile.problem
    return str(read_record(paths, tile.name).get("reason", "the run ended before this tile"))


def _write_failures(failed: Sequence[Tile], reasons: Sequence[str], paths: OutputPaths) -> None:
    names = [tile.name for tile in failed]
    table = Table([names, list(reasons)], names=["tile", "reason"], dtype=[str, str])
    files.write_text(paths.failed, to_ecsv(table))


def _manifest(
    tiles: Sequence[Tile], finished: set[str], run_hash: str, paths: OutputPaths
) -> dict[str, Any]:
    entries = []
    for tile in tiles:
        record = read_record(paths, tile.name)
        entry = {"tile": tile.name, "files": [str(p) for p in tile.paths]}
        status = "done" if tile.name in finished else "failed"
        entries.append({**record, **entry, "bytes": list(tile.sizes), "status": status})
    return {"format_version": 1, "run_hash": run_hash, "tiles": entries}
