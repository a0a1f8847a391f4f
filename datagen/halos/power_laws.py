"""Numbers with dN/dm ~ m^-slope between two limits."""

from __future__ import annotations

import numpy as np

from datagen.halos.cosmology import Array

_N_SHARES = 1000


def power_law(u: Array, low: float, high: float, slope: float) -> Array:
    """Return the number below which is the share u."""
    power = 1.0 - slope
    if abs(power) < 1e-9:
        ln_m = np.log(low) + np.log(high / low) * u
    else:
        ln_m = np.log(low**power + (high**power - low**power) * u) / power
    values: Array = np.exp(ln_m)
    return values


def moment(power: float, low: float, high: float, slope: float) -> float:
    """Return the mean of m^power."""
    u = (np.arange(_N_SHARES) + 0.5) / _N_SHARES
    return float((power_law(u, low, high, slope) ** power).mean())
