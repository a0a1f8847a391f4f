"""Pictures of a classifier: curves of a training, ROC, confusion, examples, detectability."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from encoders.lenses.metrics import Answers, BinnedAccuracy, roc_curve
from encoders.metrics import area, confusion

SIZE_INCH = 4.5
DPI = 100
# A bin of Delta chi2 that ends above is called open.
OPEN_EDGE = 1e6
CHANCE: dict[str, Any] = {"color": "0.6", "linewidth": 0.8, "linestyle": "--"}


def draw_history(
    epochs: Sequence[float], values: Mapping[str, Sequence[float]], name: str
) -> Figure:
    """Draw a figure of training and validation against the epoch.

    Args:
        epochs: Number of epochs done (n,).
        values: By split (n,).
        name: Of the figure.
    """
    figure, axes = _empty()
    for split, row in values.items():
        axes.plot(epochs, row, marker=".", label=split)
    axes.set(xlabel="epoch", ylabel=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def draw_roc(probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> Figure:
    """Draw the ROC curve of each class against the rest.

    Args:
        probabilities: (n, K).
        labels: (n,).
        classes: Names of the classes.
    """
    figure, axes = _empty()
    for k, name in enumerate(classes):
        scores, is_class = probabilities[:, k].numpy(), (labels == k).numpy()
        axes.plot(*roc_curve(scores, is_class), label=f"{name}: {area(scores, is_class):.4f}")
    axes.plot([0, 1], [0, 1], **CHANCE)
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    axes.legend(title="area under the curve", loc="lower right")
    return figure


def draw_confusion(probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> Figure:
    """Draw how many images of each class were taken for which one.

    Args:
        probabilities: (n, K).
        labels: (n,).
        classes: Names of the classes.
    """
    counts = confusion(probabilities, labels)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _empty()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if share[row, column] > 0.5 else "black"
        text = f"{count}\n{100 * share[row, column]:.1f} %"
        axes.text(column, row, text, ha="center", va="center", color=colour)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="found", ylabel="true")
    return figure


def draw_detectability(
    curves: Mapping[str, BinnedAccuracy], n_classes: int, false_alarms: float | None = None
) -> Figure:
    """Draw shares of images with substructure against Delta chi2, with Wilson intervals of 68 %.

    Args:
        curves: By what they are called; all with the same images, one at least. Empty bins are
            left out.
        n_classes: Tells what chance would give.
        false_alarms: Share of the images without substructure in which some was found.
    """
    figure, axes = _empty(width=2 * SIZE_INCH)
    first = next(iter(curves.values()))
    shown = np.flatnonzero(first.n_images)
    for number, (label, curve) in enumerate(curves.items()):
        places = np.arange(len(shown)) + 0.16 * (number - (len(curves) - 1) / 2)
        value = curve.accuracy[shown]
        ends = np.array([_interval(curve, place) for place in shown.tolist()]).reshape(-1, 2)
        errors = np.abs(ends.T - value)
        axes.errorbar(places, value, errors, fmt="o-", capsize=3, markersize=4, label=label)
    axes.axhline(1 / n_classes, label="class by chance", **CHANCE)
    if false_alarms is not None:
        label = "any found where there is none"
        axes.axhline(false_alarms, color="C0", linewidth=0.8, linestyle=":", label=label)
    names = [
        f"{low:g}-{high:g}" if high < OPEN_EDGE else f"> {low:g}"
        for low, high in itertools.pairwise(first.edges)
    ]
    labels = [f"{names[place]}\n({first.n_images[place]})" for place in shown]
    axes.set_xticks(range(len(shown)), labels, fontsize="small")
    axes.set(xlabel=r"$\Delta\chi^2$ of the substructure (images)", ylabel="share", ylim=(0, 1.03))
    figure.legend(loc="outside upper center", ncols=2)
    return figure


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
    found = answers.logits.argmax(dim=1)
    for number, image in enumerate(images.float().mean(dim=1).cpu().numpy()):
        axes = figure.add_subplot(n_rows, n_columns, number + 1)
        axes.imshow(image, cmap="inferno", origin="lower")
        axes.set_axis_off()
        true, guess = int(answers.labels[number]), int(found[number])
        colour = "black" if true == guess else "red"
        axes.set_title(f"{classes[true]} / {classes[guess]}", fontsize="small", color=colour)
    return figure


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, format="png", metadata={"Software": None})
    return buffer.getvalue()


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """Return a figure as (H, W, 3) for TensorBoard."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _interval(curve: BinnedAccuracy, place: int) -> tuple[float, float]:
    """Return the Wilson interval of one bin, which one standard deviation covers."""
    n_images = int(curve.n_images[place])
    test = stats.binomtest(round(curve.accuracy[place] * n_images), n_images)
    found = test.proportion_ci(2 * stats.norm.cdf(1) - 1, method="wilson")
    return float(found.low), float(found.high)


def _empty(width: float = SIZE_INCH) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, SIZE_INCH), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()
