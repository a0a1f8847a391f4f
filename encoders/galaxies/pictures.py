"""Pictures of representations: coloured stamps, nearest neighbours, views, principal components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from encoders.pictures import draw_table, empty, grid

Array = NDArray[np.float64]
Images = NDArray[np.float32]
# Stretched brightness that is black, and that is white: the sky has 0 with a noise of about 0.5.
BLACK, WHITE = -0.5, 6.0
# Last letters of names of bands, by rising wavelength.
WAVELENGTHS = "ugrizyjhk"
# Width of a stamp and height of a panel [inch].
STAMP, PANEL = 1.1, 2.6
# Between stamps, in units of their side, and more of it where text stands below them.
GAP, TEXT = 0.06, 0.22
# Points that are drawn, and the share of them beyond each end of the scale of colours.
N_POINTS, TAIL = 3000, 0.02


def rgb(stamps: Images, bands: Sequence[str]) -> Images:
    """Return stamps in colours: red is the band of the longest wavelength.

    Of other than three bands, each colour is a mean of those that are next to it; one band is grey.
    All stamps have the same limits, so that their brightness and colours can be compared.

    Args:
        stamps: Of `Stretch.bright` (n, bands, H, W); black where not finite.
        bands: Their names. Those of letters of filters (`WAVELENGTHS`) are put in order, others
            count as ordered by rising wavelength.

    Returns:
        0 to 1 (n, H, W, 3).
    """
    letters = [band[-1:].lower() for band in bands]
    if len(set(letters)) == len(bands) and set(letters) <= set(WAVELENGTHS):
        stamps = stamps[:, np.argsort([WAVELENGTHS.index(letter) for letter in letters])]
    levels = (np.nan_to_num(stamps, nan=BLACK, posinf=WHITE, neginf=BLACK) - BLACK) / (
        WHITE - BLACK
    )
    places = np.linspace(0.0, 1.0, len(bands))
    reach = max(0.5, 1.0 / max(1, len(bands) - 1))
    weights = np.clip(1.0 - np.abs(places - np.array([[1.0], [0.5], [0.0]])) / reach, 0.0, None)
    if len(bands) == 1:
        weights = np.ones((3, 1))
    weights /= weights.sum(axis=1, keepdims=True)
    mixed: Images = np.einsum("cb,nbhw->nhwc", weights, levels).astype(np.float32)
    return mixed.clip(0.0, 1.0)


def draw_strips(
    queries: Images, neighbours: Images, distances: Array, titles: Sequence[str]
) -> Figure:
    """Draw stamps, framed, and to the right of each its nearest neighbours, nearest first.

    Args:
        queries: 0 to 1 (n, H, W, 3).
        neighbours: (n, k, H, W, 3).
        distances: From the query (n, k); infinite where there is no neighbour.
        titles: What stands below the queries (n,).
    """
    texts = [
        [title, *(f"{value:.2f}" if np.isfinite(value) else "" for value in row)]
        for title, row in zip(titles, distances.tolist(), strict=True)
    ]
    is_shown = np.isfinite(np.pad(distances, ((0, 0), (1, 0))))
    stamps = np.concatenate((queries[:, None], neighbours), axis=1)
    return _mosaic(stamps, is_shown, texts, ["stamp", "nearest stamps of other objects"])


def draw_views(plain: Images, views: Images, titles: Sequence[str]) -> Figure:
    """Draw stamps, framed, and to the right of each its views.

    Args:
        plain: 0 to 1 (n, H, W, 3).
        views: (n_views, n, H, W, 3).
        titles: What stands below the stamps (n,).
    """
    stamps = np.concatenate((plain[:, None], views.swapaxes(0, 1)), axis=1)
    texts = [[title, *([""] * len(views))] for title in titles]
    return _mosaic(stamps, np.ones(stamps.shape[:2], bool), texts, ["stamp", "views"])


def draw_pca(
    embeddings: Array, labels: Array, names: Sequence[str], units: Mapping[str, str]
) -> Figure:
    """Draw embeddings along their first two principal components, coloured by each label.

    Labels that never change, or are known of no stamp, are left out.

    Args:
        embeddings: (n, D).
        labels: NaN where unknown, which is grey (n, F).
        names: Of the labels; without any, points have one colour.
        units: Of labels that have one.
    """
    places, shares = principal_components(embeddings, 2)
    # Stamps of a suite stand together: every n-th shows all of them.
    step = -(-len(places) // N_POINTS) or 1
    places, labels = places[::step], labels[::step]
    kept = [
        k for k in range(len(names)) if len(np.unique(labels[:, k][~np.isnan(labels[:, k])])) > 1
    ]
    names, labels = [names[k] for k in kept], labels[:, kept]
    figure, panels = grid(max(1, len(names)), width=1.3 * PANEL, height=PANEL)
    for axes in panels:
        # Below those whose label is known.
        axes.plot(*places.T, ".", color="0.85" if names else "C0", markersize=3, zorder=0)
        axes.set(xticks=[], yticks=[])
    for column, name in enumerate(names):
        unit = f" [{units[name]}]" if units.get(name) else ""
        _coloured(panels[column], places, labels[:, column], f"{name}{unit}")
    axis = [f"{100 * share:.0f} %" for share in shares.tolist()]
    figure.supxlabel(f"first principal component ({axis[0]} of the variance)", fontsize="medium")
    figure.supylabel(f"second ({axis[1]})", fontsize="medium")
    return figure


def draw_fields(
    found: Array, true: Array, units: Mapping[str, str], classes: Sequence[str]
) -> Figure:
    """Draw found against true fields, a panel for each; classes as counts.

    Args:
        found: (n, F), in their units.
        true: The same; NaN where unknown.
        units: By name of the field, in the order of the columns.
        classes: Fields that are numbers of classes.
    """
    figure, panels = grid(len(units), PANEL, PANEL)
    for axes, (name, unit), a, b in zip(panels, units.items(), true.T, found.T, strict=True):
        axes.set_title(f"{name} [{unit}]" if unit else name, fontsize="small")
        is_known = np.isfinite(a) & np.isfinite(b)
        if is_known.any():
            (_count if name in classes else _scatter)(axes, a[is_known], b[is_known])
    return figure


def _scatter(axes: Axes, true: Array, found: Array) -> None:
    ends = [min(true.min(), found.min()), max(true.max(), found.max())]
    axes.plot(ends, ends, color="0.5", linewidth=0.8)
    axes.plot(true, found, ".", markersize=2, alpha=0.5)
    axes.set(xlabel="true", ylabel="found")


def _count(axes: Axes, true: Array, found: Array) -> None:
    """Draw the number of stamps by true and found class."""
    n = int(max(true.max(), found.max())) + 1
    counts = np.zeros((n, n))
    np.add.at(counts, (true.astype(int), found.astype(int)), 1)
    texts = [[f"{int(count)}" for count in row] for row in counts]
    draw_table(axes, counts / counts.sum(axis=1, keepdims=True).clip(1), texts)
    axes.set(xlabel="found", ylabel="true", xticks=range(n), yticks=range(n))


def principal_components(rows: Array, n: int) -> tuple[Array, Array]:
    """Return rows along the n axes on which they scatter most.

    Axes point to where the largest of their coefficients is positive.

    Args:
        rows: (m, D).
        n: Number of axes; those beyond D have zeros.

    Returns:
        Places (m, n), and the shares of the variance (n,).
    """
    away = rows - rows.mean(axis=0)
    variances, vectors = np.linalg.eigh(away.T @ away)
    variances, vectors = variances[::-1][:n].clip(0.0), vectors[:, ::-1][:, :n]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    missing = n - vectors.shape[1]
    places = np.pad(away @ (vectors * np.where(largest < 0.0, -1.0, 1.0)), ((0, 0), (0, missing)))
    total = max(float((away**2).sum()), np.finfo(np.float64).tiny)
    return places, np.pad(variances, (0, missing)) / total


def _coloured(axes: Axes, places: Array, label: Array, title: str) -> None:
    """Draw the points whose label is known in its colours, and their scale."""
    axes.set_title(title, fontsize="small")
    is_known = np.isfinite(label)
    if not is_known.any():
        return
    low, high = np.quantile(label[is_known], (TAIL, 1.0 - TAIL)).tolist()
    x, y = places[is_known].T
    points = axes.scatter(x, y, s=6, c=label[is_known], linewidths=0)
    points.set_clim(low, high)
    bar = axes.figure.colorbar(points, ax=axes, shrink=0.9)
    bar.ax.tick_params(labelsize="x-small")


def _mosaic(
    stamps: Images, is_shown: NDArray[np.bool_], texts: Sequence[Sequence[str]], heads: list[str]
) -> Figure:
    """Draw rows of stamps; the first column is framed and stands apart.

    One panel holds all: hundreds of panels would take matplotlib many seconds.

    Args:
        stamps: (rows, columns, H, W, 3).
        is_shown: (rows, columns).
        texts: Below the stamps (rows, columns).
        heads: Of the first column, and of the others.
    """
    n_rows, n_columns = is_shown.shape
    right = [0.0, *(2 * GAP + np.arange(1, n_columns) * (1.0 + GAP))]
    down = np.arange(n_rows) * (1.0 + (TEXT if any(map(any, texts)) else GAP))
    width, height = right[-1] + 1.0, down[-1] + 1.0
    figure, axes = empty(STAMP * width + 0.2, STAMP * (height + 2 * TEXT) + 0.2)
    for row, column in np.argwhere(is_shown).tolist():
        x, y = right[column], down[row]
        # The first row of pixels is at the bottom, as in all pictures of the sky.
        image = stamps[row, column, ::-1]
        axes.imshow(image, extent=(x, x + 1.0, y + 1.0, y), interpolation="nearest")
        style = {"ha": "center", "va": "top", "fontsize": "x-small"}
        axes.text(x + 0.5, y + 1.02, texts[row][column], style)
    for y in down.tolist():
        axes.add_patch(Rectangle((0.0, y), 1.0, 1.0, fill=False, color="C3", linewidth=2.0))
    for x, head in zip(right, heads, strict=False):
        axes.text(x, -0.05, head, va="bottom", fontsize="small")
    axes.set(xlim=(-0.02, width + 0.02), ylim=(height + TEXT, -TEXT))
    axes.set_axis_off()
    return figure
