"""Cluster candidates: groups of cells over the threshold, split at separate peaks."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Row, Table
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from datagen.errors import DataFormatError, DataNotFoundError
from datagen.tiles.geometry import pixel_scale_arcsec, pixel_to_sky
from inference.survey.estimates import ESTIMATES, estimate
from inference.survey.regions import circle, region_file
from inference.survey.scores import ScoreMap

_EIGHT = np.ones((3, 3), int)
_HAIR = 1e-6

COLUMNS = {
    "id": (str, None, "survey tile and number in it, highest score first"),
    "ra": (np.float64, "deg", "right ascension (ICRS) of the score-weighted centre"),
    "dec": (np.float64, "deg", "declination (ICRS)"),
    "score": (np.float64, None, "sum of the cells' probabilities"),
    "peak": (np.float64, None, "largest probability of a cell"),
    "n_cells": (np.int64, None, "number of cells"),
    "area_arcmin2": (np.float64, "arcmin2", "area of the cells"),
    "extent_arcmin": (np.float64, "arcmin", "distance from centre to middle of the farthest cell"),
    "redshift": (np.float64, None, "redshift; NaN from an encoder that does not estimate it"),
    "redshift_error": (np.float64, None, "its standard deviation (68 %)"),
    "richness": (np.float64, None, "richness; NaN from an encoder that does not estimate it"),
    "richness_error": (np.float64, None, "its standard deviation (68 %)"),
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
    boxes = ndimage.find_objects(labels)
    rows = [_measure(score, scores, labels, k, box) for k, box in enumerate(boxes, start=1)]
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
        peaks = _peaks(np.where(mine, score[box], -np.inf), rule.separation_cells)
        result[box][mine] = n_labels + 1 + _nearest(np.argwhere(mine), peaks)
        n_labels += len(peaks)
    return result


def to_ecsv(table: Table) -> str:
    """Return a catalogue as ECSV text."""
    stream = io.StringIO()
    table.write(stream, format="ascii.ecsv")
    return stream.getvalue()


def read_catalog(path: Path) -> Table:
    """Read a catalogue of candidates.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged: a column is missing or of another type, or rows are.
    """
    try:
        text = path.read_text()
        table = Table.read(text.splitlines(), format="ascii.ecsv")
        problem = _problem(table) if text.endswith("\n") else "its last line is cut off"
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{path} does not exist", value=str(path)) from error
    except Exception as error:  # astropy's readers raise many unrelated classes
        problem = " ".join(str(error).split()) or type(error).__name__
    if problem:
        raise DataFormatError(
            f"{path} is damaged or no catalogue of candidates: {problem}; "
            "`python inference/predict.py` with the same settings writes it again",
            value=str(path),
        )
    return table


def _problem(table: Table) -> str:
    """Return what is wrong with a catalogue; nothing if nothing is."""
    for name, (kind, _, _) in COLUMNS.items():
        if name not in table.colnames:
            return f"column {name} is missing"
        if table[name].dtype.kind != np.dtype(kind).kind:
            return f"column {name} is of type {table[name].dtype}"
    # A file that lost its end can look like a shorter one.
    n_rows = table.meta.get("n_candidates", len(table))
    return "" if n_rows == len(table) else f"it has {len(table)} rows instead of {n_rows}"


def to_regions(table: Table) -> str:
    """Return a catalogue as a region file, one circle of equal area for each candidate."""
    radius = np.sqrt(np.asarray(table["area_arcmin2"]) / np.pi) * 60
    return region_file(map(circle, table["ra"], table["dec"], radius, map(_label, table)))


def _label(row: Row) -> str:
    """Return name and score of a candidate and, where they are known, redshift and richness."""
    label = f"{row['id']} {row['score']:.2f}"
    if np.isfinite(row["redshift"]):
        label += f" z={row['redshift']:.3f}+-{row['redshift_error']:.3f}"
    if np.isfinite(row["richness"]):
        label += f" richness={row['richness']:.0f}+-{row['richness_error']:.0f}"
    return label


def _peaks(score: NDArray[np.float64], separation: float) -> NDArray[np.int64]:
    """Return the (row, column) of the peaks of one group, shape (n, 2), n >= 1, highest first."""
    tops = np.argwhere(_tops(score))
    # All cells of a plateau are tops; the first one in reading order stands for it.
    tops = tops[np.argsort(-score[tuple(tops.T)], kind="stable")]
    limit = max(separation, 1.5)
    tree = cKDTree(tops)
    is_free = np.ones(len(tops), bool)
    accepted = []
    for number, top in enumerate(tops):
        if not is_free[number]:
            continue
        accepted.append(number)
        near = np.array(tree.query_ball_point(top, limit), int)
        # The search includes its border, and peaks as far as the limit are apart.
        is_free[near[np.hypot(*(tops[near] - top).T) < limit]] = False
    return tops[accepted]


def _nearest(cells: NDArray[np.int64], peaks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the row of the nearest peak for each cell, shape (n,); among equals the highest."""
    tree = cKDTree(peaks)
    distance, _ = tree.query(cells)
    # Distances are roots of integers: what is this little farther is equally far.
    equals = tree.query_ball_point(cells, distance + _HAIR)
    return np.fromiter(map(min, equals), np.int64, len(cells))


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
    score: NDArray[np.float64],
    scores: ScoreMap,
    labels: NDArray[np.int64],
    number: int,
    box: tuple[slice, ...],
) -> dict[str, float]:
    """Return the values of the candidate `number`, whose cells lie in `box`."""
    rows, columns = np.nonzero(labels[box] == number)
    rows, columns = rows + box[0].start, columns + box[1].start
    weight = score[rows, columns]
    x, y = (float(np.average(axis, weights=weight)) for axis in (columns, rows))
    centre = (scores.cell_px - 1) / 2
    return {
        "score": float(weight.sum()),
        "peak": float(weight.max()),
        "n_cells": len(rows),
        "extent": float(np.hypot(columns - x, rows - y).max()),
        "x": x * scores.cell_px + centre,
        "y": y * scores.cell_px + centre,
        "mask_fraction": float(scores.mask_fraction[rows, columns].mean()),
        **estimate(scores.estimates, (rows, columns), weight),
    }


def _table(rows: list[dict[str, float]], scores: ScoreMap, rule: CandidateRule) -> Table:
    table = empty_catalog(len(rows))
    for key in ("score", "peak", "n_cells", "x", "y", "mask_fraction", *ESTIMATES):
        table[key] = np.array([row[key] for row in rows], COLUMNS[key][0])
    wcs = scores.tile_wcs
    if rows:
        ra, dec = pixel_to_sky(wcs, table["x"], table["y"])
        table["ra"], table["dec"] = ra % 360.0, dec
    side_arcmin = pixel_scale_arcsec(wcs, scores.tile_shape) * scores.cell_px / 60
    table["area_arcmin2"] = table["n_cells"] * side_arcmin**2
    table["extent_arcmin"] = np.array([row["extent"] for row in rows]) * side_arcmin
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
    """Note the length of a catalogue and give its columns their units and descriptions."""
    table.meta["n_candidates"] = len(table)
    for name, (_, unit, description) in COLUMNS.items():
        table[name].unit = unit
        table[name].description = description
    return table
