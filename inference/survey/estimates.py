"""Redshift and richness of clusters with errors, from the heads that an encoder may have."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

QUANTITIES = ("redshift", "richness")

# What an encoder may give besides scores -> its plane in a score map.
ESTIMATES = {
    "redshift": "REDSHIFT",
    "redshift_error": "REDSHIFT_ERR",
    "richness": "RICHNESS",
    "richness_error": "RICHNESS_ERR",
}

Planes = Mapping[str, NDArray[np.float32]]


def error_of(quantity: str) -> str:
    """Return the name of the error of a quantity."""
    return f"{quantity}_error"


def given(outputs: Collection[str]) -> tuple[str, ...]:
    """Return which of `ESTIMATES` are there, in their order."""
    return tuple(name for name in ESTIMATES if name in outputs)


def is_known(table: Table, quantity: str) -> bool:
    """Tell whether any candidate of a catalogue has a quantity."""
    return bool(np.isfinite(np.asarray(table[quantity], np.float64)).any())


def estimate(
    planes: Planes, cells: tuple[NDArray[np.int64], NDArray[np.int64]], score: NDArray[np.float64]
) -> dict[str, float]:
    """Return the estimates of one cluster from those of its cells; NaN where there is no plane.

    A cell counts by its score, the probability that it shows the cluster at all. For the redshift
    it is divided by the variance, so that cells which do not know it do not draw it to the middle
    of the training's redshifts. Errors of richness grow with richness: their inverse would favour
    the poor.

    Args:
        planes: Estimates of all cells, shape (ny, nx) each.
        cells: Rows and columns of the cluster's cells, shape (n,) each.
        score: Their scores, shape (n,).
    """
    result = dict.fromkeys(ESTIMATES, np.nan)
    for quantity in QUANTITIES:
        if quantity not in planes:
            continue
        value, error = (
            planes[name][cells].astype(np.float64) for name in (quantity, error_of(quantity))
        )
        weight = score / error**2 if quantity == "redshift" else score
        result[quantity], result[error_of(quantity)] = combine(value, error, weight)
    return result


def combine(
    value: NDArray[np.float64], error: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the mean and the standard deviation of a mixture of normal distributions.

    mu = sum_i w_i mu_i and sigma^2 = sum_i w_i [sigma_i^2 + (mu_i - mu)^2] with sum_i w_i = 1
    (law of total variance; Lakshminarayanan et al. 2017, arXiv:1612.01474, section 2.4).

    Neighbouring cells see the same galaxies, so that their errors are the same errors: many cells
    know no more than one, and the variance is not divided by their number. Where they contradict
    each other it grows.

    Args:
        value: mu_i, shape (n,).
        error: sigma_i, shape (n,).
        weight: w_i up to a factor, shape (n,).
    """
    mean = float(np.average(value, weights=weight))
    variance = float(np.average(error**2 + (value - mean) ** 2, weights=weight))
    return mean, variance**0.5
