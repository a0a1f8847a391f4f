"""Compares predictions on maps of halos with the truth, where that is known."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from encoders.halos.conformal import coverage
from encoders.halos.samples import classes_of
from encoders.halos.targets import LogScale
from encoders.metrics import area
from inference.halos.ensemble import Ensemble
from inference.halos.sets import groups

log = logging.getLogger(__name__)

# Halos of these splits say nothing about new ones: they trained or chose the encoder.
NOT_NEW = ("train", "val")
Figures = dict[str, Any]


def new_maps(predictions: Table) -> Table:
    """Return the maps of halos that had no part in the training."""
    is_new = ~np.isin(np.asarray(predictions["SPLIT"]), NOT_NEW)
    n_seen = int((~is_new).sum())
    if n_seen:
        log.info("%d maps of halos of train and val do not count in sets and evaluation", n_seen)
    return predictions[is_new]


def evaluate(new: Table, ensemble: Ensemble) -> Figures:
    """Return figures of all maps of known cross-section, of each set, and of novelty.

    Args:
        new: Rows of the table of predictions, of halos that did not train.
        ensemble: The encoders.

    Returns:
        `of_training` (maps of the sets and cross-sections that trained), `sets` and
        `cross_sections` (groups of one set and true cross-section), each of figures as `figures_of`
        gives them; `novelty`: share of maps that are flagged, and AUROC of the OOD of those that
        are not of the training against those that are.
    """
    sets = np.asarray(new["SET"])
    is_like = _trained_sets(new, ensemble) != ""
    names = np.unique(sets).tolist()
    return {
        "of_training": figures_of(new[is_like], ensemble),
        "sets": {name: figures_of(new[sets == name], ensemble) for name in names},
        "cross_sections": [
            {"set": name, "cross_section": _number(value), **figures_of(some, ensemble)}
            for name, value, some in groups(new)
        ],
        "novelty": {name: _novelty(new, is_like, sets == name) for name in names},
    }


def figures_of(some: Table, ensemble: Ensemble) -> Figures:
    """Return the figures of some maps; None where nothing is known.

    `accuracy` of the likeliest class, among maps of known classes; `rmse_dex` and `bias_dex` of
    log10 of the cross-section, `coverage` of its interval with the standard error of a mean over
    halos. A cross-section of 0 counts as that which stands for none.
    """
    truth = np.asarray(some["TRUE_CROSS_SECTION"], np.float64)
    is_known = np.isfinite(truth)
    found: Figures = {"n_maps": len(some), "n_known": int(is_known.sum())}
    found |= dict.fromkeys(("accuracy", "rmse_dex", "bias_dex", "coverage", "coverage_error"))
    place = _classes(some, truth, ensemble)
    has_class = place >= 0
    if ensemble.classes and has_class.any():
        names = np.asarray(ensemble.classes)[place[has_class]]
        found["accuracy"] = float((np.asarray(some["CLASS"])[has_class] == names).mean())
    if ensemble.scale is None or not is_known.any():
        return found
    return found | _of_intervals(some[is_known], truth[is_known], ensemble.scale)


def in_words(found: Figures) -> str:
    """Return the main figures in one line."""
    words = []
    for name, one in found["sets"].items():
        figures = {"accuracy": one["accuracy"], "rmse [dex]": one["rmse_dex"]}
        figures |= {"coverage": one["coverage"], "flagged": found["novelty"][name]["flagged"]}
        known = [f"{key} {value:.3f}" for key, value in figures.items() if value is not None]
        words.append(f"set {name}: {', '.join(known)}")
    return "; ".join(words)


def _of_intervals(some: Table, truth: NDArray[np.float64], scale: LogScale) -> Figures:
    value = np.log10(np.maximum(truth, scale.zero))
    low, middle, high = (
        np.log10(np.asarray(some[f"CROSS_SECTION{end}"])) for end in ("_LOW", "", "_HIGH")
    )
    share, error = coverage(value, low, high, np.asarray(some["HALO"]))
    return {
        "rmse_dex": float(np.sqrt(np.mean((middle - value) ** 2))),
        "bias_dex": float(np.mean(middle - value)),
        "coverage": share,
        "coverage_error": _number(error),
    }


def _classes(some: Table, truth: NDArray[np.float64], ensemble: Ensemble) -> NDArray[np.int64]:
    """Return the number of the true class of each map, -1 where there is none."""
    found, sets = classes_of(truth, ensemble.card["cross_sections"]), _trained_sets(some, ensemble)
    named = zip(ensemble.card["classes"], ensemble.card["cross_sections"], strict=True)
    for number, (name, value) in enumerate(named):
        if value is None:
            # A set that is one class, whatever its files say of the cross-section.
            found[sets == name] = number
    return found


def _trained_sets(some: Table, ensemble: Ensemble) -> NDArray[np.str_]:
    truth = np.asarray(some["TRUE_CROSS_SECTION"], np.float64)
    return ensemble.trained_sets(np.asarray(some["SET"]), truth)


def _novelty(new: Table, is_like: NDArray[np.bool_], is_in: NDArray[np.bool_]) -> Figures:
    """Return what is flagged of a set, and how well scores tell its other maps from trained ones.

    Other maps are those that are not of a set and cross-section of the training.
    """
    is_other = is_in & ~is_like
    counts = is_other | is_like
    auroc = area(np.asarray(new["OOD"])[counts], is_other[counts]) if is_other.any() else np.nan
    return {"flagged": float(np.mean(new["ABSTAIN"][is_in])), "auroc": _number(auroc)}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
