"""What a set of maps tells as a whole: its cross-section, and how like the training it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray

from datagen.seeds import stream
from encoders.halos.likelihood import LEVELS, grid
from encoders.halos.losses import UNLABELLED
from encoders.halos.overlap import overlap_with_classes
from encoders.halos.population import mean_posterior, per_cluster
from encoders.halos.reference import CLASSES, CLUSTERS, SETS, first_clusters
from encoders.halos.two_sample import Pair, classifier_test, mmd_test
from inference.halos.ensemble import Ensemble
from inference.halos.table import first_latents, latents

Numbers = NDArray[np.float64]
# Widths of a population on the axis of t; 0 is a set of one cross-section.
WIDTHS = np.concatenate([[0.0], np.linspace(0.02, 0.5, 17)])
# Of the places of a likelihood every second one is close enough; time goes with their square.
STRIDE = 2
N_FOLDS, RIDGE = 5, 0.1
POPULATION = ("CROSS_SECTION_LOW", "CROSS_SECTION", "CROSS_SECTION_HIGH", "WIDTH", "WIDTH_HIGH")


@dataclass(frozen=True)
class Comparison:
    """How sets are compared with those of the training.

    Args:
        n_maps: Maps of each side, whole halos.
        n_permutations: Of a test.
    """

    n_maps: int
    n_permutations: int


def summarise(predictions: Table, ensemble: Ensemble, how: Comparison) -> Table:
    """Return a row for each set, and for each true cross-section of it where these are known.

    Columns SET, TRUE_CROSS_SECTION [cm^2/g], N_MAPS, N_CLUSTERS, ABSTAINED (share of the maps);
    of the population posterior of the maps that are not flagged CROSS_SECTION_LOW, CROSS_SECTION,
    CROSS_SECTION_HIGH (16, 50, 84 %) [cm^2/g], WIDTH and WIDTH_HIGH (50, 84 %) [dex]; for each set
    of the training OVERLAP with the class that it overlaps with most, and MMD_P and C2ST_P against
    the maps of that class.

    Args:
        predictions: Rows of the table of predictions.
        ensemble: The encoders.
        how: Sizes of the comparison.
    """
    found = []
    for name, value, some in groups(predictions):
        kept = some[~np.asarray(some["ABSTAIN"])]
        row = {
            "SET": name,
            "TRUE_CROSS_SECTION": value,
            "N_MAPS": len(some),
            "N_CLUSTERS": len(np.unique(some["HALO"])),
            "ABSTAINED": float(np.mean(some["ABSTAIN"])),
        }
        row |= dict(zip(POPULATION, population(kept, ensemble), strict=True))
        found.append(row | compare(some, ensemble, how))
    table = Table(found)
    for name in ("TRUE_CROSS_SECTION", *POPULATION[:3]):
        table[name].unit = "cm2 g-1"
    for name in POPULATION[3:]:
        table[name].unit = "dex"
    return table


def groups(predictions: Table) -> Iterator[tuple[str, float, Table]]:
    """Yield name, true cross-section [cm^2/g], NaN where unknown, and rows of each group."""
    sets, truth = np.asarray(predictions["SET"]), np.asarray(predictions["TRUE_CROSS_SECTION"])
    for name in np.unique(sets):
        for value in np.unique(truth[sets == name]):
            is_same = np.isnan(truth) if np.isnan(value) else truth == value
            yield str(name), float(value), predictions[(sets == name) & is_same]


def population(some: Table, ensemble: Ensemble) -> tuple[float, ...]:
    """Return 16, 50, 84 % of the cross-section [cm^2/g], 50, 84 % of its width [dex].

    The mean over refits of the likelihoods, whose error all clusters share. NaN without maps, or
    without an axis of cross-sections.
    """
    if ensemble.scale is None or not len(some):
        return (np.nan,) * len(POPULATION)
    first = first_latents(some, len(ensemble.members))
    clusters = np.asarray(some["HALO"], np.int64)
    refitted = (per_cluster(one[:, ::STRIDE], clusters) for one in ensemble.refitted(first))
    found = mean_posterior(refitted, grid()[::STRIDE], WIDTHS)
    dex = ensemble.scale.high - ensemble.scale.low
    centre, width = ensemble.scale.inverse(found.centre(LEVELS)), found.width(LEVELS[1:]) * dex
    return (*centre.tolist(), *width.tolist())


def compare(some: Table, ensemble: Ensemble, how: Comparison) -> dict[str, float]:
    """Return overlap and p-values against each set of the training.

    The axis of the cross-section has no part in them.
    """
    reference, names = ensemble.reference, list(ensemble.card.get("sets") or ())
    known, classes = reference.views["latent"].numpy(), reference.column(CLASSES).numpy()
    clusters, numbers = reference.column(CLUSTERS).numpy(), reference.column(SETS).numpy()
    mine, my_clusters = latents(some), np.asarray(some["HALO"], np.int64)
    found: dict[str, float] = {}
    for number in np.unique(numbers).tolist():
        name = names[number] if number < len(names) else str(number)
        of_set = numbers == number
        label, share = _nearest(mine, known[of_set], classes[of_set])
        of_class = of_set & (classes == label)
        p_values = (np.nan, np.nan)
        if np.isfinite(share):
            a, clusters_a = _limited(mine[:, 1:], my_clusters, how.n_maps)
            b, clusters_b = _limited(known[of_class, 1:], clusters[of_class], how.n_maps)
            p_values = _test(Pair(a, b, clusters_a, clusters_b), how)
        keys = (f"OVERLAP_{name}", f"MMD_P_{name}", f"C2ST_P_{name}")
        found |= dict(zip(keys, (share, *p_values), strict=True))
    return found


def _nearest(mine: Numbers, known: Numbers, classes: NDArray[np.int64]) -> tuple[int, float]:
    """Return the class that overlaps with some maps most, and by how much; NaN without one."""
    shares = overlap_with_classes(mine, known, classes) if mine.shape[1] > 1 else {}
    shares = {label: share for label, share in shares.items() if np.isfinite(share)}
    label = max(shares, key=lambda label: shares[label], default=UNLABELLED)
    return label, shares.get(label, np.nan)


def _limited(
    values: Numbers, clusters: NDArray[np.int64], n_maps: int
) -> tuple[Numbers, NDArray[np.int64]]:
    """Return the maps of some halos, with their halos."""
    chosen = first_clusters(torch.from_numpy(clusters), n_maps).numpy()
    return values[chosen], clusters[chosen]


def _test(pair: Pair, how: Comparison) -> tuple[float, float]:
    """Return the p-values of both tests."""
    mmd = mmd_test(pair, how.n_permutations, stream(0, 0, "mmd"))
    c2st = classifier_test(pair, how.n_permutations, stream(0, 0, "c2st"), N_FOLDS, RIDGE)
    return mmd.p_value, c2st.p_value
