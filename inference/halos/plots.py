"""Pictures of predictions on maps of halos: cross-sections, coverage, novelty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from encoders.halos.pictures import draw_novelty
from inference.halos.ensemble import Ensemble
from inference.halos.sets import groups
from inference.pictures import save_png

PICTURES = ("cross_sections", "novelty", "coverage")
LINE: dict[str, Any] = {"color": "0.6", "linestyle": "--", "linewidth": 1}


def write_sets(folder: Path, new: Table, sets: Table, ensemble: Ensemble) -> list[Path]:
    """Write the pictures of sets as PNG; return their names."""
    drawn = {"novelty": novelty_of(new, ensemble)}
    if ensemble.scale is not None:
        drawn["cross_sections"] = draw_cross_sections(new, sets, ensemble.scale.zero)
    made = {name: figure for name, figure in drawn.items() if figure is not None}
    return [save_png(folder / f"{name}.png", figure) for name, figure in made.items()]


def write_coverage(folder: Path, found: dict[str, Any]) -> list[Path]:
    """Write the picture of an evaluation as PNG where there is one; return its name."""
    known = [one for one in found["cross_sections"] if one["coverage"] is not None]
    return [save_png(folder / "coverage.png", draw_coverage(known))] if known else []


def draw_cross_sections(new: Table, sets: Table, zero: float) -> Figure:
    """Return how single maps of each set are distributed, and what the set says as a whole.

    Grey: maps that are not flagged; black: 16, 50, 84 % of the population; red: truth.

    Args:
        new: Rows of the table of predictions.
        sets: Rows of the table of sets, in the order of their groups.
        zero: Cross-section that stands for none [cm^2/g].
    """
    figure, axes = _rows_figure(sets)
    for place, (_, value, some) in enumerate(groups(new)):
        medians = np.log10(np.asarray(some["CROSS_SECTION"])[~np.asarray(some["ABSTAIN"])])
        axes.plot(medians, np.full(len(medians), place), "|", color="0.5", alpha=0.3)
        low, middle, high = (
            np.log10(sets[f"CROSS_SECTION{end}"][place]) for end in ("_LOW", "", "_HIGH")
        )
        errors = [[middle - low], [high - middle]]
        axes.errorbar([middle], [place], xerr=errors, fmt="ko", capsize=3, markersize=4)
        if np.isfinite(value):
            axes.plot(np.log10(max(value, zero)), place, "r|", markersize=14)
    axes.set_xlabel(r"log$_{10}$ cross-section [cm$^2$/g]")
    return figure


def novelty_of(new: Table, ensemble: Ensemble) -> Figure | None:
    """Return what is flagged of other maps against those like the training's, if there are both.

    Other maps are those of other sets, or of cross-sections that were not taken of a set.

    Args:
        new: Rows of the table of predictions.
        ensemble: The encoders.
    """
    sets, scores = np.asarray(new["SET"]), np.asarray(new["OOD"], np.float64)
    truth = np.asarray(new["TRUE_CROSS_SECTION"], np.float64)
    is_usual = ensemble.trained_sets(sets, truth) != ""
    other = {str(name): scores[(sets == name) & ~is_usual] for name in np.unique(sets[~is_usual])}
    if not other or not is_usual.any():
        return None
    return draw_novelty(scores[is_usual], other, ensemble.threshold)


def draw_coverage(known: list[dict[str, Any]], level: float = 0.68) -> Figure:
    """Return which share of intervals holds the truth, by set and cross-section.

    Args:
        known: Groups with `set`, `cross_section`, `coverage` and `coverage_error`.
        level: What is expected.
    """
    labels = [f"{one['set']}, {one['cross_section']:g}" for one in known]
    figure = Figure(figsize=(5, 1.2 + 0.3 * len(known)), layout="constrained")
    axes = figure.subplots()
    errors = [one["coverage_error"] or 0.0 for one in known]
    shares = [one["coverage"] for one in known]
    axes.errorbar(shares, range(len(known)), xerr=errors, fmt="o", capsize=3, markersize=4)
    axes.axvline(level, **LINE)
    axes.set_yticks(range(len(known)), labels)
    axes.invert_yaxis()
    axes.set(xlabel="share of intervals that hold the truth", xlim=(0, 1.02))
    return figure


def _rows_figure(sets: Table) -> tuple[Figure, Axes]:
    """Return a figure with a row for each group."""
    labels = [
        name if np.isnan(value) else f"{name}, {value:g}"
        for name, value in zip(sets["SET"], sets["TRUE_CROSS_SECTION"], strict=True)
    ]
    figure = Figure(figsize=(6, 1.2 + 0.4 * len(labels)), layout="constrained")
    axes = figure.subplots()
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    return figure, axes
