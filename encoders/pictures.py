"""Pictures that several tasks share: curves of a training, confusion, and how they are written."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from encoders.metrics import confusion

SIZE_INCH = 4.5
DPI = 100
CHANCE: dict[str, Any] = {"color": "0.6", "linewidth": 0.8, "linestyle": "--"}


def draw_history(
    epochs: Sequence[float], values: Mapping[str, Mapping[str, Sequence[float]]]
) -> Figure:
    """Draw figures of training and validation against the epoch, a panel for each.

    Args:
        epochs: Number of epochs done (n,).
        values: By name of the figure and by split (n,).
    """
    figure, panels = grid(len(values), width=SIZE_INCH, height=SIZE_INCH)
    splits = sorted({split for rows in values.values() for split in rows})
    for axes, (name, rows) in zip(panels, values.items(), strict=True):
        for split, row in rows.items():
            axes.plot(epochs, row, marker=".", label=split, color=f"C{splits.index(split)}")
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.legend()
    return figure


def draw_confusion(probabilities: Tensor, labels: Tensor, classes: Sequence[str]) -> Figure:
    """Draw how many of each class were taken for which one.

    Args:
        probabilities: (n, K).
        labels: (n,).
        classes: Names of the classes.
    """
    counts = confusion(probabilities, labels)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = empty()
    texts = [[f"{n}\n{100 * p:.1f} %" for n, p in zip(*rows, strict=True)]
             for rows in zip(counts, share, strict=True)]  # fmt: skip
    draw_table(axes, share, texts)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="found", ylabel="true")
    return figure


def draw_table(axes: Axes, shares: NDArray[np.float64], texts: Sequence[Sequence[str]]) -> None:
    """Draw shares, 0 to 1, as blue squares with a text in each.

    Args:
        axes: Where to.
        shares: (n, m).
        texts: (n, m).
    """
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.5 else "black"
        axes.text(column, row, texts[row][column], ha="center", va="center", color=colour)


def empty(width: float = SIZE_INCH, height: float = SIZE_INCH) -> tuple[Figure, Axes]:
    """Return a figure [inch] and its one panel."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def grid(n_panels: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of so many panels [inch each] in rows of about equal number, and these."""
    n_columns = math.ceil(math.sqrt(n_panels))
    n_rows = math.ceil(n_panels / n_columns)
    figure = Figure(figsize=(width * n_columns, height * n_rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(n_rows, n_columns, k + 1) for k in range(n_panels)]


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
