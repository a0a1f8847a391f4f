"""Matched pairs of candidate and cluster: how well their redshifts and richnesses agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen.tiles.geometry import separation_rad, unit_vectors
from encoders.statistics import MAD_TO_SIGMA
from inference.survey.estimates import QUANTITIES, error_of, is_known
from inference.survey.references import ReferenceCatalog
from inference.survey.statistics import Fraction, overall

OFFSETS = {
    "redshift": "(z - z_ref) / (1 + z_ref)",
    "richness": "ln(richness / richness_ref)",
}


@dataclass(frozen=True)
class Agreement:
    """How well the candidates know a quantity of the clusters that they match.

    Args:
        quantity: One of `QUANTITIES`.
        n: Pairs in which both know it.
        bias: Median offset, see `OFFSETS`; NaN without pairs.
        scatter: 1.48 times the median absolute deviation from it.
        within: Pairs that differ by at most the candidate's error: 0.68 for honest errors.
    """

    quantity: str
    n: int
    bias: float
    scatter: float
    within: Fraction


def matched_pairs(
    candidates: Table, clusters: ReferenceCatalog, partner: NDArray[np.int64]
) -> Table:
    """Return candidate, cluster, what is known of both, and their separation [arcmin].

    Args:
        candidates: The candidates, with id.
        clusters: The clusters.
        partner: Row of each candidate's cluster, -1 for none, shape (n,).
    """
    rows = np.flatnonzero(partner >= 0)
    other = partner[rows]
    here = unit_vectors(np.asarray(candidates["ra"])[rows], np.asarray(candidates["dec"])[rows])
    there = unit_vectors(clusters.sky.ra[other], clusters.sky.dec[other])
    table = Table()
    table["candidate"] = np.asarray(candidates["id"]).astype(str)[rows]
    table["cluster"] = clusters.ids[other]
    table["richness"] = clusters.richness[other]
    table["redshift"] = clusters.sky.redshift[other]
    table["separation_arcmin"] = np.degrees(separation_rad(here, there)) * 60
    for quantity in (name for name in QUANTITIES if is_known(candidates, name)):
        for name in (quantity, error_of(quantity)):
            table[f"candidate_{name}"] = np.asarray(candidates[name], np.float64)[rows]
    return table


def agreements(pairs: Table) -> list[Agreement]:
    """Return how well the pairs agree in each quantity that the candidates know.

    Args:
        pairs: What `matched_pairs` gave.
    """
    return [_agreement(pairs, name) for name in QUANTITIES if f"candidate_{name}" in pairs.colnames]


def both_known(
    pairs: Table, quantity: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return value and error of the candidates, and the clusters' value, where both are known.

    A richness that is not above 0 has no logarithm and counts as unknown.
    """
    names = (f"candidate_{quantity}", f"candidate_{error_of(quantity)}", quantity)
    value, error, truth = (np.asarray(pairs[name], np.float64) for name in names)
    known = np.isfinite(value) & np.isfinite(truth)
    if quantity == "richness":
        known &= (value > 0) & (truth > 0)
    return value[known], error[known], truth[known]


def summary_lines(found: Sequence[Agreement]) -> list[str]:
    """Return the agreements as lines of text."""
    lines = []
    for agreement in found:
        head = f"pairs {OFFSETS[agreement.quantity]:<40}{agreement.n:>16}"
        if not agreement.n:
            lines.append(f"{head}     n/a")
            continue
        low, high = agreement.within.interval
        lines.append(
            f"{head}  median {agreement.bias:+.4f}, scatter {agreement.scatter:.4f}, within the "
            f"68 % error {agreement.within.value:.3f} ({low:.3f} - {high:.3f})"
        )
    return lines


def _agreement(pairs: Table, quantity: str) -> Agreement:
    value, error, truth = both_known(pairs, quantity)
    offset = (value - truth) / (1 + truth) if quantity == "redshift" else np.log(value / truth)
    within = overall(f"{quantity}_within_error", np.abs(value - truth) <= error)
    if not len(value):
        return Agreement(quantity, 0, np.nan, np.nan, within)
    bias = float(np.median(offset))
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(offset - bias)))
    return Agreement(quantity, len(value), bias, scatter, within)
