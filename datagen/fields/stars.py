"""Stars of the Milky Way at high galactic latitude: counts and colours."""

from __future__ import annotations

import numpy as np

from datagen.fields.tables_io import FloatArray

# brighter stars saturate in survey exposures and are masked there
BRIGHTEST_MAG = 15.0
# d log10 N / d i, chosen so that 8.1 stars per arcmin^2 at i < 24.4 mean about 2000 per deg^2 at
# i < 18, the order of magnitude seen at high galactic latitude
COUNT_SLOPE = 0.18
LOCUS_WIDTH = 0.03  # [mag]


def sample_magnitudes(rng: np.random.Generator, n: int, mag_limit: float) -> FloatArray:
    """Draw n i magnitudes with counts ~ 10^(0.18 i) between i = 15 and `mag_limit`."""
    bright = 10.0 ** (COUNT_SLOPE * (BRIGHTEST_MAG - mag_limit))
    fraction: FloatArray = bright + rng.random(n) * (1.0 - bright)
    return mag_limit + np.log10(fraction) / COUNT_SLOPE


def locus(ri: FloatArray) -> FloatArray:
    """Colours g-r, r-i, i-z [mag] of main-sequence stars at a given r-i, shape (N, 3).

    g-r = 1.39 (1 - exp(-4.9 (r-i)^3 - 2.45 (r-i)^2 - 1.68 (r-i) - 0.05)), Juric et al. 2008,
    ApJ 673 864, equation 4; i-z = 0.58 (r-i) - 0.02, a straight line chosen to run from G to
    M dwarfs.
    """
    gr = 1.39 * (1.0 - np.exp(-4.9 * ri**3 - 2.45 * ri**2 - 1.68 * ri - 0.05))
    return np.stack([gr, ri, 0.58 * ri - 0.02], axis=-1)


def sample_colours(rng: np.random.Generator, mag_i: FloatArray) -> FloatArray:
    """Draw g-r, r-i, i-z [mag], shape (N, 3), about the locus.

    A chosen mixture of turn-off stars (r-i near 0.12), their redder tail, and M dwarfs (r-i near
    1.2), whose share grows from 0.35 at i = 16 to 0.65 at i = 22.
    """
    n = len(mag_i)
    is_dwarf = rng.random(n) < np.interp(mag_i, [16.0, 22.0], [0.35, 0.65])
    blue = 0.03 + rng.gamma(2.0, 0.07, n)
    ri = np.where(is_dwarf, 1.15 + 0.35 * rng.standard_normal(n), blue)
    return locus(np.clip(ri, 0.0, 2.2)) + LOCUS_WIDTH * rng.standard_normal((n, 3))
