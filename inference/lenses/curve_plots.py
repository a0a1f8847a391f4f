"""The picture of a learning curve."""

from __future__ import annotations

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datagen.lenses.format import CLASSES
from encoders.pictures import CHANCE


def draw_curve(curve: Table, pairs: Table) -> Figure:
    """Return accuracy, and differences to the reference, against the number of training images.

    Args:
        curve: Columns model, n_train, accuracy, low, high.
        pairs: Columns model, reference, n_train, difference, low, high; may be empty.
    """
    models = list(dict.fromkeys(curve["model"].tolist()))
    n_panels = 2 if len(pairs) else 1
    figure = Figure(figsize=(5.5 * n_panels, 4.5), layout="constrained")
    panels = figure.subplots(1, n_panels, squeeze=False)[0]
    for number, model in enumerate(models):
        shift = 1.03 ** (number - (len(models) - 1) / 2)
        _draw(panels[0], curve[curve["model"] == model], "accuracy", f"C{number}", shift)
        if len(pairs):
            _draw(panels[1], pairs[pairs["model"] == model], "difference", f"C{number}", shift)
    percent = f"{100 * curve.meta['confidence']:g} %"
    panels[0].axhline(1 / len(CLASSES), label="chance", **CHANCE)
    panels[0].set(ylabel=f"accuracy of the test ({percent} intervals)")
    panels[0].legend(loc="lower right")
    if len(pairs):
        panels[1].axhline(0, **CHANCE)
        reference = pairs["reference"][0]
        panels[1].set(ylabel=f"accuracy - accuracy of {reference}, same images")
    ticks = sorted(set(curve["n_train"].tolist()))
    for axes in panels:
        axes.set(xscale="log", xlabel="training images")
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    return figure


def _draw(axes: Axes, table: Table, name: str, colour: str, shift: float) -> None:
    if not len(table):
        return
    value = np.asarray(table[name])
    errors = [value - np.asarray(table["low"]), np.asarray(table["high"]) - value]
    place = np.asarray(table["n_train"]) * shift
    label = str(table["model"][0])
    axes.errorbar(place, value, yerr=errors, fmt="o-", color=colour, capsize=3, label=label)
