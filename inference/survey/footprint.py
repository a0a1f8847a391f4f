"""Which part of the sky a prediction covers, in forms that others read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen.tiles.geometry import unit_vectors
from inference.survey.merge import TileFootprint, owned_cells
from inference.survey.regions import polygon, region_file

_SQUARE_DEGREES = (180 / np.pi) ** 2


def covered_areas(
    footprints: Sequence[TileFootprint],
    fractions: Sequence[NDArray[np.floating]],
    owned: Sequence[NDArray[np.bool_]] | None = None,
) -> list[float]:
    """Return how much sky each survey tile adds [deg2]; their sum is the area covered.

    Each cell that was seen counts once, for the survey tile that owns it (see `owned_cells`), and
    with its pixels that are not masked.

    Args:
        footprints: Where the survey tiles lie.
        fractions: Share of each cell that is on the survey tile and not masked, (ny, nx) each.
        owned: What `owned_cells` gave, or None.
    """
    if owned is None:
        owned = owned_cells(footprints)
    return [
        float(fraction[mine].sum(dtype=np.float64)) * cell_area(place)
        for place, fraction, mine in zip(footprints, fractions, owned, strict=True)
    ]


def cell_area(footprint: TileFootprint) -> float:
    """Return the mean solid angle of a whole cell [deg2], exact for gnomonic (TAN) tiles."""
    a, b, c, d = unit_vectors(*footprint.corners)
    height, width = footprint.shape
    cells = height * width / footprint.cell_px**2
    return (triangle_sr(a, b, c) + triangle_sr(a, c, d)) * _SQUARE_DEGREES / cells


def triangle_sr(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> float:
    """Return the solid angle of a spherical triangle [sr] from its unit vectors.

    tan(Omega / 2) = |a . (b x c)| / (1 + a . b + b . c + c . a), van Oosterom & Strackee 1983,
    doi:10.1109/TBME.1983.325207.
    """
    volume = abs(float(a @ np.cross(b, c)))
    return float(2 * np.arctan2(volume, 1 + a @ b + b @ c + c @ a))


def footprint_table(footprints: Sequence[TileFootprint], areas: Sequence[float]) -> Table:
    """Return one row per survey tile: name, corners [deg], and the area that it adds.

    Args:
        footprints: Where the survey tiles lie.
        areas: What `covered_areas` gave [deg2].
    """
    table = Table()
    table["tile"] = np.array([place.name for place in footprints], str)
    corners = np.array([place.corners for place in footprints]).reshape(-1, 2, 4)
    for axis, name in enumerate(("ra", "dec")):
        for corner in range(4):
            table[f"{name}_{corner + 1}"] = corners[:, axis, corner]
            table[f"{name}_{corner + 1}"].unit = "deg"
    table["area_deg2"] = np.array(areas, np.float64)
    table["area_deg2"].unit = "deg2"
    table["area_deg2"].description = "sky seen, without masked pixels and what other tiles own"
    table.meta["area_deg2"] = float(sum(areas))
    return table


def footprint_regions(footprints: Sequence[TileFootprint]) -> str:
    """Return a region file with the outline of each survey tile."""
    return region_file([polygon(*place.corners, place.name) for place in footprints])
