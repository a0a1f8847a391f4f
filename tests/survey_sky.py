"""Score maps of overlapping survey tiles, drawn from clusters whose places are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from datagen.tiles.geometry import (
    celestial_wcs,
    chord,
    pixel_to_sky,
    separation_rad,
    unit_vectors,
    wcs_cards,
)
from inference.survey.candidates import CandidateRule, find_candidates
from inference.survey.merge import TileFootprint, merge_catalogs
from inference.survey.scores import ScoreMap
from tests.survey_tiles import SCALE, tile_header

CELL, SIDE = 64, 25 * 64 - 40
CELL_ARCMIN = CELL * SCALE / 60
SIDE_ARCMIN = SIDE * SCALE / 60
MERGE_ARCMIN = 1.0
RULE = CandidateRule(0.5, 3, 1)


@dataclass(frozen=True)
class Clusters:
    """Discs on the sky: places [deg] and radii [arcmin], shape (n,) each."""

    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    radius: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ra)

    def select(self, rows: NDArray[np.bool_]) -> Clusters:
        return Clusters(self.ra[rows], self.dec[rows], self.radius[rows])


def plane(ra: float, dec: float, east: Sequence[float], north: Sequence[float]) -> NDArray:
    """Return sky positions (ra, dec) [deg] of offsets [arcmin] on the tangent plane of a place."""
    cards = wcs_cards(tile_header((1, 1), ra=ra, dec=dec))
    step = SCALE / 60
    x, y = -np.asarray(east, float) / step, np.asarray(north, float) / step
    return np.array(pixel_to_sky(celestial_wcs(cards, "plane"), x, y))


def blank(name: str, ra: float, dec: float) -> ScoreMap:
    """Return the score map of a survey tile without clusters, north up at its centre."""
    n = -(-SIDE // CELL)
    edge = np.minimum(SIDE - np.arange(n) * CELL, CELL) / CELL
    meta = {"TILE": name, "CELL_PX": CELL, "NPIX_X": SIDE, "NPIX_Y": SIDE}
    planes = (np.full((n, n), 0.1, np.float32), np.outer(edge, edge).astype(np.float32))
    cards = wcs_cards(tile_header((SIDE, SIDE), ra=ra % 360, dec=dec))
    return ScoreMap(*planes, np.zeros((n, n), np.float32), cards, meta)


def mask(scores: ScoreMap, rows: slice, columns: slice) -> None:
    """Mask a rectangle of cells."""
    scores.mask_fraction[rows, columns] = 1


def draw(scores: ScoreMap, clusters: Clusters, rng: np.random.Generator) -> None:
    """Draw clusters on all cells whose centres they cover, and on the cells of their own centres.

    The scores fall from 0.95 in the middle to 0.55 at the rim; cells differ from that by noise that
    is far less than the fall from one cell to the next.
    """
    ny, nx = scores.score.shape
    rows, columns = np.mgrid[:ny, :nx].reshape(2, -1)
    middle = (CELL - 1) / 2
    sky = pixel_to_sky(scores.tile_wcs, columns * CELL + middle, rows * CELL + middle)
    cells = unit_vectors(*sky)
    place = TileFootprint.of(scores)
    x, y = place.pixels(clusters.ra, clusters.dec)
    for k, centre in enumerate(unit_vectors(clusters.ra, clusters.dec)):
        r = np.degrees(separation_rad(cells, centre)) * 60 / clusters.radius[k]
        value = 0.95 - 0.4 * np.minimum(r, 1)
        home = (rows == (y[k] + 0.5) // CELL) & (columns == (x[k] + 0.5) // CELL)
        drawn = ((r <= 1) | home).reshape(ny, nx)
        np.maximum(scores.score, value.reshape(ny, nx), out=scores.score, where=drawn)
    scores.score[:] += rng.normal(0, 0.003, scores.score.shape).clip(-0.01, 0.01)
    scores.score[scores.mask_fraction == 1] = np.nan


def shown(maps: Sequence[ScoreMap], clusters: Clusters) -> NDArray[np.bool_]:
    """Return which clusters have their centre in a cell that any survey tile saw."""
    places = [TileFootprint.of(scores) for scores in maps]
    return np.any(
        [
            p.contains(clusters.ra, clusters.dec) & p.shows(clusters.ra, clusters.dec)
            for p in places
        ],
        axis=0,
    )


def in_one_piece(maps: Sequence[ScoreMap], clusters: Clusters) -> NDArray[np.bool_]:
    """Return which clusters are seen in one piece, shape (n,).

    The cells that all survey tiles together show of it hang together, a diagonal apart at most, and
    no survey tile finds two candidates in it, as around the corner of a mask.
    """
    tables = [find_candidates(scores, RULE) for scores in maps]
    result = np.all([counts(table, clusters) <= 1 for table in tables], axis=0)
    middle, sky = (CELL - 1) / 2, []
    for scores in maps:
        rows, columns = np.nonzero(scores.score > RULE.threshold)
        sky.append(pixel_to_sky(scores.tile_wcs, columns * CELL + middle, rows * CELL + middle))
    cells = unit_vectors(*np.concatenate(sky, axis=1))
    centres = unit_vectors(clusters.ra, clusters.dec)
    apart = np.degrees(separation_rad(cells[:, None], centres[None])) * 60 - clusters.radius
    reach = chord(np.radians(1.5 * CELL_ARCMIN / 60))
    for k in range(len(clusters)):
        tree = KDTree(cells[apart.argmin(axis=1) == k])
        n_pieces, _ = connected_components(tree.sparse_distance_matrix(tree, reach))
        result[k] &= n_pieces == 1
    return result


def merged(maps: Sequence[ScoreMap], radius_arcmin: float = MERGE_ARCMIN) -> Table:
    """Return the merged catalogue, as at the end of a prediction."""
    tables = [find_candidates(scores, RULE) for scores in maps]
    return merge_catalogs(tables, [TileFootprint.of(scores) for scores in maps], radius_arcmin)


def counts(table: Table, clusters: Clusters) -> NDArray[np.int64]:
    """Return how many candidates belong to each cluster, shape (n,); each to the nearest one.

    Distances are in radii of the cluster, of at least a cell; farther than one it is none's.
    """
    found = unit_vectors(table["ra"], table["dec"])
    centres = unit_vectors(clusters.ra, clusters.dec)
    apart = np.degrees(separation_rad(found[:, None], centres[None])) * 60
    apart /= np.maximum(clusters.radius, CELL_ARCMIN)
    assert (apart.min(axis=1, initial=np.inf) < 1).all()
    return (
        np.bincount(apart.argmin(axis=1), minlength=len(clusters))
        if len(table)
        else np.zeros(len(clusters), int)
    )
