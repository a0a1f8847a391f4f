"""Cluster candidates: groups of cells over the threshold, split at separate peaks."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy import ndimage

from inference.survey.geometry import pixel_scale_arcsec, pixel_to_sky
from inference.survey.scores import ScoreMap

_EIGHT = np.ones((3, 3), int)

COLUMNS = {
    "id": (str, None, "survey tile and number in it, highest score first"),
    "ra": (np.float64, "deg", "right ascension (ICRS) of the score-weighted centre"),
    "dec": (np.float64, "deg", "declination (ICRS)"),
    "score": (np.float64, None, "sum of the cells' probabilities"),
    "peak": (np.float64, None, "largest probability of a cell"),
    "n_cells": (np.int64, None, "number of cells"),
    "area_arcmin2": (np.float64, "arcmin2", "area of the cells"),
    "x": (np.float64, "pix", "column in the survey tile, 0-based pixel centres"),
    "y": (np.float64, "pix", "row in the survey tile"),
    "mask_fraction": (np.float64, None, "fraction of masked pixels in the cells"),
    "tile": (str, None, "survey tile"),
}


@dataclass(frozen=True)
class CandidateRule:
    """What counts as a candidate.

    Args:
        threshold: Cells with a greater probability take part.
        separation_cells: Peaks of one group closer than this belong together.
        min_cells: Smallest number of cells.
    """

    threshold: float
    separation_cells: float
    min_cells: int


def find_candidates(scores: ScoreMap, rule: CandidateRule) -> Table:
    """Return the candidates of one survey tile, highest score first.

    Cells over the threshold that touch, corners included, form a group. A group with several peaks
    is split: each of its cells goes to the nearest peak.

    Args:
        scores: The score map.
        rule: Threshold and splitting.

    Returns:
        Table with the columns of `COLUMNS`.
    """
    score = np.nan_to_num(scores.score.astype(np.float64), nan=0.0)
    labels = label_cells(score, rule)
    rows = [_measure(score, scores, labels == k) for k in range(1, int(labels.max(initial=0)) + 1)]
    rows = [row for row in rows if row["n_cells"] >= rule.min_cells]
    rows.sort(key=lambda row: (-row["score"], row["y"], row["x"]))
    return _table(rows, scores, rule)


def label_cells(score: NDArray[np.float64], rule: CandidateRule) -> NDArray[np.int64]:
    """Return the number of the candidate that each cell belongs to, 0 for none, shape (ny, nx)."""
    groups, n_groups = ndimage.label(score > rule.threshold, _EIGHT)
    result = np.zeros(score.shape, np.int64)
    n_labels = 0
    for number, box in enumerate(ndimage.find_objects(groups, n_groups), start=1):
        mine = groups[box] == number
        cells = np.argwhere(mine)
        peaks = _peaks(np.where(mine, score[box], -np.inf), cells, rule.separation_cells)
        nearest = ((cells[:, None] - peaks[None]) ** 2).sum(axis=-1).argmin(axis=1)
        result[box][mine] = n_labels + 1 + nearest
        n_labels += len(peaks)
    return result


def to_ecsv(table: Table) -> str:
    """Return a catalogue as ECSV text."""
    stream = io.StringIO()
    table.write(stream, format="ascii.ecsv")
    return stream.getvalue()


def to_regions(table: Table) -> str:
    """Return a catalogue as a DS9 region file, one circle of equal area for each candidate."""
    lines = ["# Region file format: DS9 version 4.1", "global color=green", "icrs"]
    for row in table:
        radius = np.sqrt(row["area_arcmin2"] / np.pi) * 60
        name = f"{row['id']} {row['score']:.2f}"
        lines.append(f'circle({row["ra"]:.7f},{row["dec"]:.7f},{radius:.2f}") # text={{{name}}}')
    return "\n".join(lines) + "\n"


def _peaks(
    score: NDArray[np.float64], cells: NDArray[np.int64], separation: float
) -> NDArray[np.int64]:
    """Return the (row, column) of the peaks of one group, shape (n, 2), n >= 1, highest first."""
    is_top = _tops(score)
    # All cells of a plateau are tops; the first one in reading order stands for it.
    tops = [cell for cell in cells if is_top[tuple(cell)]]
    tops.sort(key=lambda cell: (-score[tuple(cell)], cell[0], cell[1]))
    accepted: list[NDArray[np.int64]] = []
    for top in tops:
        if all(np.hypot(*(top - other)) >= max(separation, 1.5) for other in accepted):
            accepted.append(top)
    return np.array(accepted)


def _tops(score: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the cells of all plateaus that no neighbour overtops, same shape."""
    is_top: NDArray[np.bool_] = np.isfinite(score) & (score == _highest_around(score))
    while True:
        # The foot of a hill may be flat: next to an equal cell that is no top there is no top.
        overtopped = _highest_around(np.where(is_top, -np.inf, score))
        flat = is_top & (overtopped == score)
        if not flat.any():
            return is_top
        is_top &= ~flat


def _highest_around(score: NDArray[np.float64]) -> NDArray[np.float64]:
    return ndimage.maximum_filter(score, footprint=_EIGHT, mode="constant", cval=-np.inf)


def _measure(
    score: NDArray[np.float64], scores: ScoreMap, mine: NDArray[np.bool_]
) -> dict[str, float]:
    rows, columns = np.nonzero(mine)
    weight = score[mine]
    centre = (scores.cell_px - 1) / 2
    return {
        "score": float(weight.sum()),
        "peak": float(weight.max()),
        "n_cells": len(rows),
        "x": float(np.average(columns, weights=weight)) * scores.cell_px + centre,
        "y": float(np.average(rows, weights=weight)) * scores.cell_px + centre,
        "mask_fraction": float(scores.mask_fraction[mine].mean()),
    }


def _table(rows: list[dict[str, float]], scores: ScoreMap, rule: CandidateRule) -> Table:
    table = empty_catalog(len(rows))
    for key in ("score", "peak", "n_cells", "x", "y", "mask_fraction"):
        table[key] = np.array([row[key] for row in rows], COLUMNS[key][0])
    wcs = scores.tile_wcs
    if rows:
        ra, dec = pixel_to_sky(wcs, table["x"], table["y"])
        table["ra"], table["dec"] = ra % 360.0, dec
    side_arcmin = pixel_scale_arcsec(wcs, scores.tile_shape) * scores.cell_px / 60
    table["area_arcmin2"] = table["n_cells"] * side_arcmin**2
    table["id"] = np.array([f"{scores.tile}_{k:04d}" for k in range(1, len(rows) + 1)], str)
    table["tile"] = np.array([scores.tile] * len(rows), str)
    table.meta["tile"] = scores.tile
    table.meta["threshold"] = rule.threshold
    table.meta["score"] = COLUMNS["score"][2]
    for key in ("CKPTSHA", "RUNHASH", "TILEHASH", "VERSION"):
        table.meta[key.lower()] = scores.meta.get(key, "")
    return describe(table)


def empty_catalog(length: int) -> Table:
    """Return a catalogue with all columns and `length` rows of zeros."""
    return Table({name: np.zeros(length, kind) for name, (kind, _, _) in COLUMNS.items()})


def describe(table: Table) -> Table:
    """Give the columns of a catalogue their units and descriptions."""
    for name, (_, unit, description) in COLUMNS.items():
        table[name].unit = unit
        table[name].description = description
    return table
