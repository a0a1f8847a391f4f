"""Puts the results of all survey tiles together when the ranks are done."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from astropy.table import Table

from datagen import files
from inference.survey.candidates import to_ecsv
from inference.survey.merge import TileFootprint, merge_catalogs
from inference.survey.records import OutputPaths, is_done, read_record
from inference.survey.scores import read_scores
from inference.survey.tiles import Tile

log = logging.getLogger(__name__)


def collect(
    tiles: Sequence[Tile], run_hash: str, paths: OutputPaths, merge_radius_arcmin: float
) -> int:
    """Write the merged catalogue, the manifest and the list of failures.

    Args:
        tiles: All survey tiles of the input folder.
        run_hash: The run whose results count.
        paths: Names of the files.
        merge_radius_arcmin: See `merge_catalogs`.

    Returns:
        Number of survey tiles without results.
    """
    done = [tile for tile in tiles if is_done(tile, run_hash, paths)]
    finished = {tile.name for tile in done}
    failed = [tile for tile in tiles if tile.name not in finished]
    catalog = _merged(done, paths, merge_radius_arcmin)
    catalog.meta["run_hash"] = run_hash
    files.write_text(paths.catalog, to_ecsv(catalog))
    reasons = [_reason(tile, paths) for tile in failed]
    _write_failures(failed, reasons, paths)
    files.write_json(paths.manifest, _manifest(tiles, finished, run_hash, paths))
    summary = f"{len(done)} of {len(tiles)} survey tiles predicted, {len(catalog)} candidates"
    if failed:
        first = f"{failed[0].name}: {reasons[0]}"
        log.error("%s; %d failed, see %s (%s)", summary, len(failed), paths.failed, first)
    else:
        log.info("%s in %s", summary, paths.catalog)
    return len(failed)


def _merged(done: Sequence[Tile], paths: OutputPaths, radius_arcmin: float) -> Table:
    tables, footprints = [], []
    for tile in done:
        scores = read_scores(paths.scores(tile.name))
        place = (tile.name, scores.tile_wcs, scores.tile_shape)
        footprints.append(TileFootprint(*place, cell_px=scores.cell_px, seen=scores.seen))
        tables.append(Table.read(paths.candidates(tile.name), format="ascii.ecsv"))
    return merge_catalogs(tables, footprints, radius_arcmin)


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
