"""Pictures of a classifier: ROC, examples, detectability."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from encoders.lenses.metrics import Answers, BinnedAccuracy
from encoders.metrics import area, roc_curve
from encoders.pictures import CHANCE, SIZE_INCH, empty

# A bin of Delta chi2 that ends above is called open.
OPEN_EDGE = 1e6
# Shares against Delta chi2: in words, and as lines.
QUANTITIES = {"accuracy": ("class found", "o-"), "detected": ("any substructure found", "s--")}


def draw_roc(probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> Figure:
    """Draw the ROC curve of each class against the rest.

    Args:
        probabilities: (n, K).
        labels: (n,).
        classes: Names of the classes.
    """
    figure, axes = empty()
    for k, name in enumerate(classes):
        scores, is_class = probabilities[:, k].numpy(), (labels == k).numpy()
        axes.plot(*roc_curve(scores, is_class), label=f"{name}: {area(scores, is_class):.4f}")
    axes.plot([0, 1], [0, 1], **CHANCE)
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    axes.legend(title="area under the curve", loc="lower right")
    return figure


def draw_detectability(
    curves: Mapping[tuple[str, str], BinnedAccuracy],
    n_classes: int,
    false_alarms: float | None = None,
) -> Figure:
    """Draw shares of images with substructure against Delta chi2, with Wilson intervals of 68 %.

    Args:
        curves: By class and quantity of `QUANTITIES`, one at least, all with the same edges. Empty
            bins are left out.
        n_classes: Tells what chance would give.
        false_alarms: Share of the images without substructure in which some was found.
    """
    figure, axes = empty(width=2 * SIZE_INCH)
    edges = next(iter(curves.values())).edges
    counts = np.array([curve.n_images for curve in curves.values()])
    shown = np.flatnonzero(counts.sum(axis=0))
    _draw_shares(axes, curves, shown)
    axes.axhline(1 / n_classes, label="class by chance", **CHANCE)
    if false_alarms is not None:
        label = "any found where there is none"
        axes.axhline(false_alarms, color="black", linewidth=0.8, linestyle=":", label=label)
    bins = [
        f"{low:g}-{high:g}" if high < OPEN_EDGE else f"> {low:g}"
        for low, high in itertools.pairwise(edges)
    ]
    # Curves of the same images tell their counts once.
    told = list(dict.fromkeys(tuple(row) for row in counts.tolist()))
    labels = [f"{bins[k]}\n({', '.join(str(row[k]) for row in told)})" for k in shown.tolist()]
    axes.set_xticks(range(len(shown)), labels, fontsize="small")
    names = dict.fromkeys(name for name, _ in curves)
    whose = f" of {', '.join(names)}" if len(told) > 1 else ""
    xlabel = rf"$\Delta\chi^2$ of the substructure (in brackets: number of images{whose})"
    # Lines at 0 and 1 would hide behind the frame.
    axes.set(xlabel=xlabel, ylabel="share", ylim=(-0.02, 1.03))
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _draw_shares(
    axes: Axes, curves: Mapping[tuple[str, str], BinnedAccuracy], shown: NDArray[np.intp]
) -> None:
    """Draw the curves at the places of the bins that are shown, side by side."""
    names = list(dict.fromkeys(name for name, _ in curves))
    for number, ((name, quantity), curve) in enumerate(curves.items()):
        shift = 0.16 * (number - (len(curves) - 1) / 2)
        mine = shown[curve.n_images[shown] > 0]
        words, style = QUANTITIES[quantity]
        axes.errorbar(
            np.searchsorted(shown, mine) + shift,
            curve.accuracy[mine],
            _errors(curve, mine),
            fmt=style,
            color=f"C{names.index(name)}",
            capsize=3,
            markersize=4,
            label=f"{name}: {words}",
        )


def draw_examples(images: Tensor, answers: Answers, classes: Sequence[str]) -> Figure:
    """Draw images with their true and their found class, red where these differ.

    Args:
        images: (n, C, H, W), of `Stretch.bright`; the mean over the bands is drawn.
        answers: To the same images.
        classes: Names of the classes.
    """
    n_columns = math.ceil(math.sqrt(len(images)))
    n_rows = math.ceil(len(images) / n_columns)
    figure = Figure(figsize=(2 * n_columns, 2.2 * n_rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("true / found class (red: wrong)", fontsize="medium")
    found = answers.logits.argmax(dim=1)
    for number, image in enumerate(images.float().mean(dim=1).cpu().numpy()):
        axes = figure.add_subplot(n_rows, n_columns, number + 1)
        axes.imshow(image, cmap="inferno", origin="lower")
        axes.set_axis_off()
        true, guess = int(answers.labels[number]), int(found[number])
        colour = "black" if true == guess else "red"
        axes.set_title(f"{classes[true]} / {classes[guess]}", fontsize="small", color=colour)
    return figure


def _errors(curve: BinnedAccuracy, places: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the lengths of the error bars of some bins, below and above (2, n)."""
    ends = np.array([_interval(curve, place) for place in places.tolist()]).reshape(-1, 2)
    found: NDArray[np.float64] = np.abs(ends.T - curve.accuracy[places])
    return found


def _interval(curve: BinnedAccuracy, place: int) -> tuple[float, float]:
    """Return the Wilson interval of one bin, which one standard deviation covers."""
    n_images = int(curve.n_images[place])
    test = stats.binomtest(round(curve.accuracy[place] * n_images), n_images)
    found = test.proportion_ci(2 * stats.norm.cdf(1) - 1, method="wilson")
    return float(found.low), float(found.high)
