"""Pictures of an evaluation: ROC, confusion, reliability, accuracy against Delta chi2, examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from encoders.lenses.metrics import BinnedAccuracy
from encoders.lenses.pictures import draw_detectability, draw_roc
from encoders.metrics import N_CALIBRATION_BINS
from encoders.pictures import CHANCE, draw_confusion
from encoders.statistics import MAD_TO_SIGMA
from inference.lenses.evaluation import NO_SUBSTRUCTURE, Evaluation, Sample
from inference.lenses.listing import Part
from inference.lenses.reading import Expected, open_part
from inference.pictures import save_png
from inference.results import probability_columns
from inference.survey.matching import wilson_interval
from inference.survey.statistics import Fraction


@dataclass(frozen=True)
class Examples:
    """Where the images of a picture of examples are.

    Args:
        parts: All parts.
        expected: What the encoder asks of images.
        n_images: How many of each class.
    """

    parts: Sequence[Part]
    expected: Expected
    n_images: int


def write_plots(folder: Path, sample: Sample, found: Evaluation, examples: Examples) -> list[Path]:
    """Write all pictures as PNG; return their names."""
    p, labels, classes = sample.probabilities, sample.labels, sample.classes
    drawn = {
        "roc": draw_roc(p, labels, classes),
        "confusion": draw_confusion(p, labels, classes),
        "reliability": draw_reliability(sample),
    }
    if any(f.variable == "delta_chi2" and f.n for f in found.fractions):
        drawn["delta_chi2"] = draw_delta_chi2(found.fractions, len(classes))
    if examples.n_images:
        drawn["examples"] = draw_examples(sample, examples)
    return [save_png(folder / f"{name}.png", figure) for name, figure in drawn.items()]


def draw_reliability(sample: Sample) -> Figure:
    """Return how often the likeliest class is right against its probability (68 % intervals)."""
    confidence = sample.probabilities.amax(dim=1).numpy()
    edges = np.linspace(0, 1, N_CALIBRATION_BINS + 1)
    which = np.clip(np.digitize(confidence, edges) - 1, 0, N_CALIBRATION_BINS - 1)
    count = np.bincount(which, minlength=N_CALIBRATION_BINS)
    right = np.bincount(which, sample.is_right, N_CALIBRATION_BINS)
    mean = np.bincount(which, confidence, N_CALIBRATION_BINS) / np.maximum(count, 1)
    figure = Figure(figsize=(4.5, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], **CHANCE)
    shown = count > 0
    value = right[shown] / count[shown]
    low, high = wilson_interval(right[shown], count[shown])
    errors = np.clip([value - low, high - value], 0, None)
    top.errorbar(mean[shown], value, yerr=errors, fmt="o", capsize=3, markersize=4)
    start = 1 / len(sample.classes)
    top.set(ylabel="share that is right", ylim=(0, 1.02))
    bottom.bar(edges[:-1], count, np.diff(edges), align="edge", color="0.7", edgecolor="white")
    bottom.set(
        xlabel="probability of the likeliest class", ylabel="images", xlim=(start - 0.02, 1.02)
    )
    return figure


def draw_delta_chi2(fractions: Sequence[Fraction], n_classes: int) -> Figure:
    """Return accuracy and detection of each class with substructure against Delta chi2."""
    names = dict.fromkeys(f.quantity for f in fractions if f.variable == "delta_chi2")
    curves = {}
    for name in names:
        quantity, label = name.split("_", 1)
        curves[label, quantity] = _curve(fractions, name)
    smooth = [f.value for f in fractions if f.quantity == f"accuracy_{NO_SUBSTRUCTURE}" and f.n]
    return draw_detectability(curves, n_classes, 1 - smooth[0] if smooth else None)


def draw_examples(sample: Sample, examples: Examples) -> Figure:
    """Return images of each class with their probabilities; titles of wrong ones are red."""
    classes, n_columns = sample.classes, examples.n_images
    figure = Figure(figsize=(1.9 * n_columns + 0.6, 2.7 * len(classes)), layout="constrained")
    figure.suptitle("true class (red: another one was found), and probabilities", fontsize="medium")
    heights = [4, 1] * len(classes)
    panels = figure.subplots(2 * len(classes), n_columns, squeeze=False, height_ratios=heights)
    for axes in panels.flat:
        axes.set_axis_off()
    for number, name in enumerate(classes):
        mine = np.flatnonzero(np.asarray(sample.table["TRUE_CLASS"]) == name)
        chosen = mine[np.unique(np.linspace(0, len(mine) - 1, n_columns).round().astype(int))]
        for column, row in enumerate(chosen.tolist() if len(mine) else []):
            image = _read(str(sample.table["ID"][row]), examples)
            _draw_image(panels[2 * number, column], image, sample, row)
            _draw_bars(panels[2 * number + 1, column], sample, row, has_names=column == 0)
    return figure


def stretched(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return asinh of the mean over the bands in units of its noise, from its median.

    Noise is in the linear part of it, the lens in the logarithmic one.
    """
    plane = image.mean(axis=0, dtype=np.float64)
    middle = np.median(plane)
    noise = MAD_TO_SIGMA * np.median(np.abs(plane - middle))
    found: NDArray[np.float64] = np.arcsinh((plane - middle) / (noise or 1.0))
    return found


def _draw_image(axes: Axes, image: NDArray[np.float32], sample: Sample, row: int) -> None:
    axes.imshow(stretched(image), cmap="inferno", origin="lower")
    entry = sample.table[row]
    title = str(entry["TRUE_CLASS"])
    if entry["TRUE_CLASS"] != NO_SUBSTRUCTURE and np.isfinite(entry["DELTA_CHI2"]):
        title += rf", $\Delta\chi^2$ = {entry['DELTA_CHI2']:.3g}"
    is_right = entry["TRUE_CLASS"] == entry["CLASS"]
    axes.set_title(title, fontsize="small", color="black" if is_right else "red")


def _draw_bars(axes: Axes, sample: Sample, row: int, has_names: bool) -> None:
    values = [float(sample.table[name][row]) for name in probability_columns(sample.classes)]
    colours = ["C0" if name == sample.table["CLASS"][row] else "0.7" for name in sample.classes]
    axes.set_axis_on()
    axes.barh(range(len(values)), values, color=colours)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xticks=[])
    axes.set_yticks(range(len(values)), sample.classes if has_names else [""] * len(values))
    axes.tick_params(length=0, labelsize="x-small")
    for place, value in enumerate(values):
        is_long = value > 0.7
        axes.text(
            value + (-0.02 if is_long else 0.02), place, f"{value:.2f}", fontsize="x-small",
            va="center", ha="right" if is_long else "left", color="white" if is_long else "black",
        )  # fmt: skip


def _curve(fractions: Sequence[Fraction], quantity: str) -> BinnedAccuracy:
    mine = [f for f in fractions if f.variable == "delta_chi2" and f.quantity == quantity]
    edges = np.array([*(f.low for f in mine), mine[-1].high])
    values = np.array([f.value for f in mine])
    return BinnedAccuracy(edges, np.array([f.n for f in mine]), values)


def _read(image_id: str, examples: Examples) -> NDArray[np.float32]:
    part = next(part for part in examples.parts if _holds(part, image_id))
    row = part.row_of(image_id)
    images, _ = open_part(part, examples.expected).read(np.array([row]))
    image: NDArray[np.float32] = images[0]
    return image


def _holds(part: Part, image_id: str) -> bool:
    if part.is_shard:
        return image_id.startswith(f"{part.ids[0]}[")
    return image_id in part.ids
