"""Pictures of an evaluation: score maps over colour images, completeness and purity."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from astropy.visualization import make_lupton_rgb
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from numpy.typing import NDArray

from datagen.errors import SkyfoldError
from datagen.tiles.geometry import sky_to_pixel
from datagen.tiles.listing import list_tiles
from datagen.tiles.survey import SurveySettings
from inference.pictures import save_png
from inference.survey.pairs import agreements, both_known
from inference.survey.reading import WholeTileReader
from inference.survey.references import ReferenceCatalog
from inference.survey.scores import ScoreMap
from inference.survey.statistics import CHANCE_PURITY, Fraction

log = logging.getLogger(__name__)

_SIDE_PX = 1000
_LUPTON_Q = 8.0
_STRETCH_SIGMA = 6.0


@dataclass(frozen=True)
class Figures:
    """What to draw.

    Args:
        fractions: Completeness and purity in bins.
        curve: Both against the score threshold.
        maps: Score maps to show.
        candidates: The merged catalogue.
        clusters: The reference.
        pairs: Candidates and clusters that match.
    """

    fractions: Sequence[Fraction]
    curve: Table
    maps: Sequence[ScoreMap]
    candidates: Table
    clusters: ReferenceCatalog
    pairs: Table


def write_plots(folder: Path, figures: Figures, run: Mapping[str, Any]) -> list[Path]:
    """Write all pictures as PNG.

    Args:
        folder: Where to.
        figures: What to draw.
        run: `run.json` of the prediction: says where the survey tiles are.

    Returns:
        The files.
    """
    written = [save_png(folder / "completeness_purity.png", draw_fractions(figures))]
    known = [found.quantity for found in agreements(figures.pairs) if found.n]
    if known:
        written.append(save_png(folder / "pairs.png", draw_pairs(figures.pairs, known)))
    for scores in figures.maps:
        figure = draw_tile(scores, colour_image(scores.tile, run), figures)
        written.append(save_png(folder / f"tile_{scores.tile}.png", figure))
    return written


def draw_fractions(figures: Figures) -> Figure:
    """Return completeness and purity against what they are known in, and against each other."""
    shown = dict.fromkeys((f.quantity, f.variable) for f in figures.fractions)
    binned = [panel for panel in shown if panel[1] != "all"]
    n_columns = -(-(len(binned) + 1) // 2)
    figure = Figure(figsize=(1 + 5 * n_columns, 8), layout="constrained")
    panels = list(figure.subplots(2, n_columns, squeeze=False).flat)
    chance = [f.value for f in figures.fractions if f.quantity == CHANCE_PURITY and f.n]
    for axes, (quantity, variable) in zip(panels, binned, strict=False):
        _draw_bins(axes, figures.fractions, quantity, variable)
        if variable == "score" and chance:
            axes.axhline(chance[0], color="grey", linestyle="--", label="random positions")
            axes.legend()
    curve = figures.curve
    last = panels[len(binned)]
    last.plot(curve["completeness"], curve["purity"], "o-", markersize=3)
    last.set(xlabel="completeness", ylabel="purity", xlim=(0, 1.02), ylim=(0, 1.02))
    for unused in panels[len(binned) + 1 :]:
        unused.set_axis_off()
    return figure


def draw_pairs(pairs: Table, quantities: Sequence[str]) -> Figure:
    """Return what the candidates know of the clusters that they match against the truth."""
    figure = Figure(figsize=(6 * len(quantities), 6), layout="constrained")
    panels = figure.subplots(1, len(quantities), squeeze=False).flat
    for axes, quantity in zip(panels, quantities, strict=True):
        value, error, truth = both_known(pairs, quantity)
        axes.errorbar(truth, value, yerr=error, fmt="o", capsize=3, markersize=4)
        limits = _limits(np.concatenate([truth, value - error, value + error]), quantity)
        axes.plot(limits, limits, color="grey", linestyle="--", label="equal")
        if quantity == "richness":
            axes.set(xscale="log", yscale="log")
            for axis in (axes.xaxis, axes.yaxis):
                # Within one decade there may be no label else.
                axis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 1)))
        axes.set(xlabel=f"{quantity} of the cluster", ylabel=f"{quantity} of the candidate")
        axes.set(xlim=limits, ylim=limits)
        axes.set_box_aspect(1)
        axes.legend(loc="upper left")
    return figure


def _limits(values: NDArray[np.float64], quantity: str) -> tuple[float, float]:
    """Return limits of an axis with some room around values; of a logarithmic one > 0."""
    if quantity == "richness":
        shown = values[values > 0]
        return float(shown.min()) / 1.1, float(shown.max()) * 1.1
    room = 0.05 * max(float(np.ptp(values)), 0.01)
    return float(values.min()) - room, float(values.max()) + room


def draw_tile(scores: ScoreMap, image: NDArray[np.uint8] | None, figures: Figures) -> Figure:
    """Return the colour image and the score map of a survey tile with both catalogues."""
    figure = Figure(figsize=(14, 7), layout="constrained")
    left, right = figure.subplots(1, 2)
    height, width = scores.tile_shape
    ny, nx = scores.score.shape
    cell = scores.cell_px
    if image is not None:
        left.imshow(image, origin="lower", extent=(-0.5, width - 0.5, -0.5, height - 0.5))
    extent = (-0.5, nx * cell - 0.5, -0.5, ny * cell - 0.5)
    options: dict[str, Any] = {"origin": "lower", "extent": extent, "vmin": 0, "vmax": 1}
    # Cells that say nothing leave the image clear.
    veil = 0.35 * np.clip(np.nan_to_num(scores.score), 0, 1)
    left.imshow(scores.score, cmap="magma", alpha=veil, **options)
    shown = right.imshow(scores.score, cmap="magma", **options)
    figure.colorbar(shown, ax=right, shrink=0.8, label="probability that a cell holds a member")
    for axes in (left, right):
        _mark(axes, scores, figures)
        axes.set(xlim=(-0.5, width - 0.5), ylim=(-0.5, height - 0.5), xlabel="x [px]")
    left.set(title=scores.tile, ylabel="y [px]")
    right.set(title="score map")
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, markerscale=0.6)
    return figure


def colour_image(tile: str, run: Mapping[str, Any]) -> NDArray[np.uint8] | None:
    """Return a Lupton RGB image of a survey tile, (H', W', 3), or None where it cannot be read.

    Lupton et al. 2004, doi:10.1086/382245. The longest wavelength is red.
    """
    stored = {
        key.removeprefix("survey."): value
        for key, value in run.get("settings", {}).items()
        if key.startswith("survey.")
    }
    try:
        survey = SurveySettings(**{**stored, "calibrate": True})
        tiles = list_tiles(Path(run["cached_data_path"]), survey)
        found = next(t for t in tiles if t.name == tile)
        reader = WholeTileReader(found, survey, 30.0)
    except (SkyfoldError, KeyError, TypeError, StopIteration) as error:
        log.warning("no colour image of %s: %s", tile, error)
        return None
    last = len(survey.bands) - 1
    bands = [last, last // 2, 0] if last > 2 else [last, min(1, last), 0]
    step = max(1, -(-max(reader.shape) // _SIDE_PX))
    planes = [_shrink(reader, band, step) for band in bands]
    image: NDArray[np.uint8] = make_lupton_rgb(*planes, stretch=_STRETCH_SIGMA / step, Q=_LUPTON_Q)
    return image


def _shrink(reader: WholeTileReader, band: int, step: int) -> NDArray[np.float32]:
    """Return block means of one band in units of its noise, shape (H // step, W // step)."""
    rows, columns = (n // step * step for n in reader.shape)
    pixels = reader.section(slice(0, rows), slice(0, columns))[band]
    blocks = np.nan_to_num((pixels - reader.background[band]) / reader.sigma[band])
    means: NDArray[np.float32] = blocks.reshape(rows // step, step, columns // step, step).mean(
        axis=(1, 3)
    )
    return means


def _draw_bins(axes: Axes, fractions: Sequence[Fraction], quantity: str, variable: str) -> None:
    mine = [f for f in fractions if (f.quantity, f.variable) == (quantity, variable) and f.n]
    if mine:
        middle = np.array([(f.low + f.high) / 2 for f in mine])
        value = np.array([f.value for f in mine])
        low, high = np.array([f.interval for f in mine]).T
        half = np.array([(f.high - f.low) / 2 for f in mine])
        errors = np.clip([value - low, high - value], 0, None)
        axes.errorbar(middle, value, yerr=errors, xerr=half, fmt="o", capsize=3)
    axes.set(xlabel=variable, ylabel=quantity, ylim=(0, 1.05))


def _mark(axes: Axes, scores: ScoreMap, figures: Figures) -> None:
    sky = figures.clusters.sky
    candidates = figures.candidates
    for label, ra, dec, marker, colour in (
        ("reference", sky.ra, sky.dec, "o", "deepskyblue"),
        ("candidate", candidates["ra"], candidates["dec"], "s", "lime"),
    ):
        x, y = sky_to_pixel(scores.tile_wcs, np.asarray(ra), np.asarray(dec))
        axes.scatter(x, y, s=150, facecolors="none", label=label, marker=marker, edgecolors=colour)
