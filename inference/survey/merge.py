"""One catalogue from the catalogues of overlapping survey tiles, anywhere on the sky."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Table, vstack
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from datagen.tiles.geometry import (
    chord,
    pixel_scale_arcsec,
    pixel_to_sky,
    separation_rad,
    sky_to_pixel,
    unit_vectors,
)
from inference.survey.candidates import describe, empty_catalog
from inference.survey.scores import ScoreMap

MIN_RADIUS_CELLS = 1.5
_HAIR = 1e-9
_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True)
class TileFootprint:
    """Where a survey tile lies.

    Args:
        name: Its name.
        wcs: Its WCS.
        shape: Shape (H, W) [px].
        cell_px: Side of a cell [px].
        seen: Cells that were seen, shape (ny, nx); None for all.
    """

    name: str
    wcs: WCS
    shape: tuple[int, int]
    cell_px: int = 1
    seen: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, scores: ScoreMap) -> TileFootprint:
        """Return where the survey tile of a score map lies, and what was seen of it."""
        place = (scores.tile, scores.tile_wcs, scores.tile_shape)
        return cls(*place, cell_px=scores.cell_px, seen=scores.seen)

    @property
    def cell_arcmin(self) -> float:
        """Side of a cell [arcmin]."""
        return pixel_scale_arcsec(self.wcs, self.shape) * self.cell_px / 60

    @property
    def centre(self) -> NDArray[np.float64]:
        """Unit vector to the middle, shape (3,)."""
        vector: NDArray[np.float64] = unit_vectors(*self._sky([0.5], [0.5]))[0]
        return vector

    @property
    def radius_chord(self) -> float:
        """Distance from the middle to the farthest corner on the unit sphere."""
        corners = unit_vectors(*self._sky([0, 0, 1, 1], [0, 1, 0, 1]))
        return float(np.linalg.norm(corners - self.centre, axis=1).max())

    @property
    def corners(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sky positions (ra, dec) [deg] of the corners in turn, shape (4,) each."""
        ra, dec = self._sky([0, 1, 1, 0], [0, 0, 1, 1])
        return ra % 360.0, dec

    def contains(self, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which sky positions [deg] fall on the tile's pixels, shape (n,)."""
        x, y = self.pixels(ra, dec)
        height, width = self.shape
        inside: NDArray[np.bool_] = (
            (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
        )
        return inside

    def shows(self, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which sky positions [deg] lie in cells that were seen, shape (n,)."""
        if self.seen is None:
            return self.contains(ra, dec)
        x, y = self.pixels(ra, dec)
        row, column = ((axis + 0.5) // self.cell_px for axis in (y, x))
        ny, nx = self.seen.shape
        # NaN, the far side of the sky, compares false.
        result: NDArray[np.bool_] = (row >= 0) & (row < ny) & (column >= 0) & (column < nx)
        result[result] = self.seen[row[result].astype(int), column[result].astype(int)]
        return result

    def pixels(
        self, ra: NDArray[np.float64], dec: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the 0-based pixel positions (x, y) of sky positions [deg]."""
        return sky_to_pixel(self.wcs, ra, dec)

    def _sky(
        self, across: Sequence[float], up: Sequence[float]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the sky position of fractions of the width and the height."""
        height, width = self.shape
        return pixel_to_sky(self.wcs, np.array(across) * width - 0.5, np.array(up) * height - 0.5)


def merge_catalogs(
    tables: Sequence[Table], footprints: Sequence[TileFootprint], radius_arcmin: float
) -> Table:
    """Merge catalogues so that an object in the overlap of survey tiles appears once.

    Ownership: a candidate counts if, of all survey tiles that saw its cell and those around it, its
    own has the nearest centre, or if none did. Two measurements of one object can fall on either
    side of such a border: if both count, the one with the higher score stays; if neither does,
    likewise.

    Borders and masks cut objects, and each survey tile measures the part that it sees: candidates
    of two survey tiles are the same object also if their circles come within 1.5 cells of each
    other (the grids of cells differ, so that single cells are a diagonal off). The circle of a
    candidate has the area of its cells, or reaches the farthest one if that is larger. So that
    neighbours stay apart, each must be the nearest to the other in its survey tile, or one of them,
    such as a part beyond a mask, the nearest and within the circle of the other's area.

    Parts of an object with unseen sky between them, or that a mask separates in one survey tile,
    look like neighbours and stay two; a neighbour that only another survey tile sees can look like
    a part. In 3000 simulated skies, half of them with a mask of 15 by 15 cells in each survey tile,
    15 of 33,000 clusters appear more than once and one is lost, all with masks.

    Args:
        tables: One catalogue per survey tile.
        footprints: Where the survey tiles lie.
        radius_arcmin: Candidates of different survey tiles within it are the same object.

    Returns:
        The merged catalogue, sorted by tile and number.
    """
    filled = [table for table in tables if len(table)]
    if not filled:
        return describe(empty_catalog(0))
    merged = vstack(filled, metadata_conflicts="silent")
    merged.meta.clear()
    owner = owner_names(merged, [_inner(footprint) for footprint in footprints])
    owned = (owner == np.asarray(merged["tile"])) | (owner == "")
    gap_arcmin = MIN_RADIUS_CELLS * max(footprint.cell_arcmin for footprint in footprints)
    keep = _choose(merged, owned, _views(merged, radius_arcmin, gap_arcmin))
    merged = merged[keep]
    merged.sort(["tile", "id"])
    return describe(merged)


def owner_names(table: Table, footprints: Sequence[TileFootprint]) -> NDArray[np.str_]:
    """Return for each candidate the survey tile that owns its position, shape (n,).

    That is the tile with the nearest centre among those that saw the position; ties go to the
    first name, and what no tile saw well has none ("").
    """
    ra, dec = np.asarray(table["ra"], float), np.asarray(table["dec"], float)
    return _owners(ra, dec, footprints)


def owned_cells(footprints: Sequence[TileFootprint]) -> list[NDArray[np.bool_]]:
    """Return which of its cells each survey tile owns, shape (ny, nx) each.

    Overlapping survey tiles show the same sky twice. By the rule for candidates (see `owner_names`)
    each piece of it belongs to one of them; cells that were not seen to none.

    Args:
        footprints: Where the survey tiles lie and what was seen of them.
    """
    centres = np.array([footprint.centre for footprint in footprints]).reshape(-1, 3)
    radii = np.array([footprint.radius_chord for footprint in footprints]) * 1.01
    result = []
    for number, footprint in enumerate(footprints):
        assert footprint.seen is not None
        owned = footprint.seen.copy()
        apart = np.linalg.norm(centres - centres[number], axis=1)
        is_near = apart < radii + radii[number]
        is_near[number] = False
        near = np.flatnonzero(is_near).tolist()
        if near:
            rows, columns = np.nonzero(owned)
            middle = (footprint.cell_px - 1) / 2
            x, y = (axis * footprint.cell_px + middle for axis in (columns, rows))
            ra, dec = pixel_to_sky(footprint.wcs, x, y)
            # Cells to which no other centre is as near need no closer look: most of them.
            towards = unit_vectors(ra, dec) @ (centres[near] - centres[number]).T
            asked = towards.max(axis=1) > -_HAIR
            rivals = [footprint, *(footprints[k] for k in near)]
            owner = _owners(ra[asked], dec[asked], rivals)
            owned[rows[asked], columns[asked]] = owner == footprint.name
        result.append(owned)
    return result


def _owners(
    ra: NDArray[np.float64], dec: NDArray[np.float64], footprints: Sequence[TileFootprint]
) -> NDArray[np.str_]:
    """Return the name of the survey tile that owns each position [deg], shape (n,)."""
    ordered = sorted(footprints, key=lambda footprint: footprint.name)
    positions = unit_vectors(ra, dec)
    best = np.full(len(positions), np.inf)
    owner = np.full(len(positions), -1)
    tree = KDTree(positions)
    for number, footprint in enumerate(ordered):
        near = np.array(tree.query_ball_point(footprint.centre, footprint.radius_chord * 1.01), int)
        # Rounding: a copy that is nearer by 1e-12 is not nearer.
        distance = np.linalg.norm(positions[near] - footprint.centre, axis=1).round(12)
        better = distance < best[near]
        # Few positions are left for the costly question of what was seen.
        better[better] = footprint.shows(ra[near[better]], dec[near[better]])
        best[near[better]] = distance[better]
        owner[near[better]] = number
    names = np.array([footprint.name for footprint in ordered] + [""])
    result: NDArray[np.str_] = names[owner]
    return result


def _inner(footprint: TileFootprint) -> TileFootprint:
    """Return a footprint without the outermost cells, in which half an object can be seen."""
    if footprint.seen is None:
        return footprint
    return dataclasses.replace(footprint, seen=ndimage.binary_erosion(footprint.seen, _EIGHT))


def _views(table: Table, radius_arcmin: float, gap_arcmin: float) -> list[set[int]]:
    """Return for each row the rows that show the same object, of other survey tiles.

    Args:
        table: Candidates of all survey tiles.
        radius_arcmin: Positions within it are the same.
        gap_arcmin: Candidates whose circles come as near are the same.
    """
    tile, positions = np.asarray(table["tile"]), unit_vectors(table["ra"], table["dec"])
    # A strip along a border or a mask is longer than the circle of its area.
    area, extent = (np.asarray(table[name]) for name in ("area_arcmin2", "extent_arcmin"))
    disc = np.sqrt(area / np.pi)
    size = np.maximum(disc, extent)
    reach = np.maximum(radius_arcmin, size + size.max() + gap_arcmin)
    near = KDTree(positions).query_ball_point(positions, chord(np.radians(reach / 60)))
    nearest: dict[tuple[int, int], float] = {}
    for i, rows in enumerate(near):
        others = np.array([j for j in rows if tile[j] != tile[i]], int)
        apart = np.degrees(separation_rad(positions[others], positions[i])) * 60
        allowed = np.maximum(radius_arcmin, size[i] + size[others] + gap_arcmin)
        taken: set[str] = set()
        for k in np.argsort(apart, kind="stable"):
            j = int(others[k])
            if apart[k] <= allowed[k] and tile[j] not in taken:
                taken.add(tile[j])
                nearest[i, j] = float(apart[k])
    views: list[set[int]] = [set() for _ in near]
    for (i, j), distance in nearest.items():
        is_part = distance <= max(radius_arcmin, max(disc[i], disc[j]) + gap_arcmin)
        if (j, i) in nearest or is_part:
            views[i].add(j)
            views[j].add(i)
    return views


def _choose(table: Table, owned: NDArray[np.bool_], views: Sequence[set[int]]) -> NDArray[np.int64]:
    """Return the rows to keep: of the views of an object the first one that counts."""
    tile = np.asarray(table["tile"])
    order = sorted(range(len(table)), key=lambda i: (not owned[i], -table["score"][i], tile[i], i))
    kept: set[int] = set()
    for i in order:
        if views[i].isdisjoint(kept) and (owned[i] or views[i]):
            kept.add(i)
    return np.array(sorted(kept), np.int64)
