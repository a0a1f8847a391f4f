"""Pictures of an encoder of halos: latents, cross-sections, overlaps, coverage, saliency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from encoders.metrics import area, roc_curve
from encoders.pictures import CHANCE, SIZE_INCH, draw_table, empty

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]
Place = Literal["upper right", "outside right upper"]
# Points of a group that are drawn, and axes of the latent space.
N_POINTS = 500
N_AXES = 7
N_BINS = 40
# Widths of panels [inch].
PANEL, STRIP = 1.5, 0.75
# Saliency that is still told from none, in units of the largest.
DIMMEST = 1e-3


def draw_latents(z: Array, group: Numbers, names: Sequence[str]) -> Figure:
    """Draw latents along the two axes on which they scatter most (principal components).

    Args:
        z: (n, L).
        group: Number of the group of each map (n,).
        names: Of the groups.
    """
    away = z - z.mean(axis=0)
    _, lengths, axes_of = np.linalg.svd(away, full_matrices=False)
    places = away @ axes_of[:2].T
    shares = lengths**2 / max(float((lengths**2).sum()), np.finfo(np.float64).tiny)
    figure, axes = empty(width=1.3 * SIZE_INCH)
    if places.shape[1] < 2:
        _histograms(axes, places[:, 0], group, len(names))
    else:
        _points(axes, places, group, len(names))
        axes.set(ylabel=f"second component ({100 * shares[1]:.0f} %)")
    axes.set(xlabel=f"first component ({100 * shares[0]:.0f} % of the variance)")
    _name_groups(figure, names, "outside right upper")
    return figure


def draw_corner(z: Array, group: Numbers, names: Sequence[str]) -> Figure:
    """Draw each latent, and each pair of them; of many only the first seven.

    Args:
        z: (n, L).
        group: Number of the group of each map (n,).
        names: Of the groups.
    """
    n_axes = min(z.shape[1], N_AXES)
    size = PANEL * max(n_axes, 3)
    figure = Figure(figsize=(size, size))
    FigureCanvasAgg(figure)
    panels = figure.subplots(n_axes, n_axes, squeeze=False, sharex="col")
    figure.subplots_adjust(0.07, 0.06, 0.98, 0.98, wspace=0.08, hspace=0.08)
    for row, column in np.ndindex(n_axes, n_axes):
        axes: Axes = panels[row, column]  # type: ignore[assignment] # one panel
        axes.tick_params(labelsize="x-small", labelleft=column == 0 < row)
        axes.xaxis.set_major_locator(MaxNLocator(3, prune="both"))
        if row < column:
            axes.set_axis_off()
        elif row == column:
            _histograms(axes, z[:, row], group, len(names))
            axes.set_yticks([])
        else:
            _points(axes, z[:, [column, row]], group, len(names))
        if row == n_axes - 1:
            axes.set_xlabel(f"$z_{column}$")
        if column == 0 < row:
            axes.set_ylabel(f"$z_{row}$")
    _name_groups(figure, names, "upper right")
    return figure


def draw_cross_sections(
    found: Array, group: Numbers, names: Sequence[str], true: Array, zero: float
) -> Figure:
    """Draw how the found cross-sections of each group are spread; shaded are 68 % of them.

    Args:
        found: [cm^2/g], > 0 (n,).
        group: Number of the group of each map (n,).
        names: Of the groups (G,).
        true: Cross-section of each group [cm^2/g], a dashed line; NaN where unknown (G,).
        zero: Where one of 0 stands on the logarithmic axis [cm^2/g].
    """
    height = 1.2 + STRIP * len(names)
    figure = Figure(figsize=(1.3 * SIZE_INCH, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    shown = np.append(found, np.maximum(true[np.isfinite(true)], zero))
    edges = np.geomspace(shown.min() / 1.1, 1.1 * shown.max(), N_BINS + 1).tolist()
    for number, (axes, name) in enumerate(zip(panels, names, strict=True)):
        mine = found[group == number]
        axes.hist(mine, edges, color=_colour(number), alpha=0.8)
        low, middle, high = np.quantile(mine, (0.16, 0.5, 0.84))
        axes.axvspan(low, high, color="0.85", zorder=0)
        axes.axvline(middle, color="black", linewidth=1.0)
        if np.isfinite(true[number]):
            axes.axvline(max(true[number], zero), color="black", linestyle="--", linewidth=1.0)
        axes.set(xscale="log", yticks=[])
        axes.set_ylabel(f"{name}\n({len(mine)})", rotation=0, ha="right", va="center")
    panels[-1].set_xlabel(r"found cross-section [cm$^2$/g]")
    return figure


def draw_overlaps(overlaps: Array, names: Sequence[str], trained: Sequence[str]) -> Figure:
    """Draw how much groups of tested maps overlap with groups of training maps.

    Args:
        overlaps: 0 to 1, NaN where there is none (G, G').
        names: Of the groups of tested maps (G,).
        trained: Of those of training maps (G',).
    """
    figure, axes = empty(2.5 + 0.7 * len(trained), 1.5 + 0.45 * len(names))
    texts = [["" if np.isnan(v) else f"{v:.2f}" for v in row] for row in overlaps.tolist()]
    draw_table(axes, np.nan_to_num(overlaps), texts)
    axes.set_xticks(range(len(trained)), trained, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="training maps", ylabel="tested maps", title=r"overlap in $z_1, z_2, ...$")
    return figure


def draw_coverage(levels: Sequence[float], shares: Mapping[str, Array]) -> Figure:
    """Draw how many maps intervals hold against how many they should.

    Args:
        levels: Of the intervals, 0 to 1 (n,).
        shares: By set, share and its error (n, 2).
    """
    figure, axes = empty()
    for number, (name, rows) in enumerate(shares.items()):
        share, error = rows.T
        axes.plot(levels, share, color=_colour(number), label=name)
        axes.fill_between(
            levels, share - error, share + error, color=_colour(number), alpha=0.2, linewidth=0
        )
    axes.plot([0, 1], [0, 1], **CHANCE)
    axes.set(xlabel="level of the interval", ylabel="share of maps within it")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="upper left")
    return figure


def draw_novelty(usual: Array, other: Mapping[str, Array], threshold: float) -> Figure:
    """Draw the share of maps of other sets that are flagged against that of usual maps.

    Args:
        usual: Novelty of usual maps (n,).
        other: Novelty of maps by set.
        threshold: What is used; dots are drawn there.
    """
    figure, axes = empty()
    for number, (name, scores) in enumerate(other.items()):
        both = np.concatenate((usual, scores))
        is_other = np.arange(len(both)) >= len(usual)
        label = f"{name}: {area(both, is_other):.3f}"
        axes.plot(*roc_curve(both, is_other), color=_colour(number), label=label)
        rates = [float((values > threshold).mean()) for values in (usual, scores)]
        axes.plot(*rates, "o", color=_colour(number), clip_on=False)
    axes.plot([0, 1], [0, 1], **CHANCE)
    axes.set(xlabel="share of usual maps that is flagged", ylabel="share that is flagged")
    axes.legend(title="area under the curve", loc="lower right")
    return figure


def draw_saliency(
    maps: Mapping[str, Tensor], salient: Mapping[str, Tensor], channels: Sequence[str]
) -> Figure:
    """Draw mean maps of groups, and below them how much their pixels move the first latent.

    All groups share a scale of colours, which is logarithmic for what moves the latent.

    Args:
        maps: What the network sees, by group (C, H, W).
        salient: Of the same groups, see `encoders.halos.saliency` (C, H, W).
        channels: Names of the channels.
    """
    n_rows, n_columns = 2 * len(channels), len(maps)
    figure = Figure(figsize=(2 * n_columns + 1.0, 2.1 * n_rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(n_rows, n_columns, squeeze=False)
    for number, channel in enumerate(channels):
        seen = {name: planes[number].numpy() for name, planes in maps.items()}
        moved = {name: planes[number].numpy() for name, planes in salient.items()}
        values = np.stack(list(seen.values()))
        _row(panels[2 * number], seen, Normalize(values.min(), values.max()), "inferno")
        top = max(float(np.stack(list(moved.values())).max()), float(np.finfo(np.float32).tiny))
        _row(panels[2 * number + 1], moved, LogNorm(DIMMEST * top, top, clip=True), "viridis")
        panels[2 * number, 0].set_ylabel(channel)
        panels[2 * number + 1, 0].set_ylabel(r"$|\partial z_0 / \partial x|$")
    for axes, name in zip(panels[0], maps, strict=True):
        axes.set_title(name)
    return figure


def _row(panels: Array, planes: Mapping[str, Array], norm: Normalize, colours: str) -> None:
    """Draw a plane in each panel, and their scale of colours beside them."""
    for axes, plane in zip(panels, planes.values(), strict=True):
        image = axes.imshow(plane, cmap=colours, norm=norm, origin="lower")
        axes.set(xticks=[], yticks=[])
    axes.figure.colorbar(image, ax=list(panels), shrink=0.9)


def _points(axes: Axes, places: Array, group: Numbers, n_groups: int) -> None:
    for number in range(n_groups):
        mine = places[group == number]
        step = -(-len(mine) // N_POINTS) or 1
        axes.plot(*mine[::step].T, ".", color=_colour(number), markersize=3, alpha=0.6)


def _histograms(axes: Axes, values: Array, group: Numbers, n_groups: int) -> None:
    last = values.max() + np.finfo(np.float32).tiny
    edges = np.linspace(values.min(), last, N_BINS + 1).tolist()
    for number in range(n_groups):
        mine = values[group == number]
        weights = np.full(len(mine), 1.0 / max(len(mine), 1))
        axes.hist(mine, edges, weights=weights, histtype="step", color=_colour(number))


def _name_groups(figure: Figure, names: Sequence[str], place: Place) -> None:
    handles = [
        Line2D([], [], linestyle="", marker="o", color=_colour(k)) for k in range(len(names))
    ]
    figure.legend(handles, list(names), loc=place, markerscale=0.8)


def _colour(number: int) -> str:
    return f"C{number % 10}"
