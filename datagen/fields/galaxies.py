"""Luminosities, colours and counts of galaxies, in clusters and in the field.

Magnitudes are AB in the DES bands; m* is the i magnitude of an L* galaxy at its redshift.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from datagen.fields import cosmology
from datagen.fields.tables_io import BoolArray, FloatArray, interp, interpolate, load_table
from datagen.fields.templates import template_colours

# faint-end slopes: red from Zenteno et al. 2016, MNRAS 462 830; blue so that the sum of both types
# at a red fraction of 0.7 follows their slope -1.06 of all members to 0.1 in ln N
ALPHA_RED, ALPHA_BLUE = -0.80, -1.30
# members are counted above 0.2 L* = m* + 1.747
COUNTED_MAG = -2.5 * np.log10(0.2)
# satellites end here; the tail beyond holds 1e-3 of them and would outshine central galaxies
BRIGHTEST_MAG = -2.0
BCG_MAG, BCG_SCATTER = -1.5, 0.3
# red fraction of members inside R200, Hennig et al. 2017, MNRAS 467 4015, arXiv:1604.00988; taken
# for that inside R_lambda, which is within a quarter of R200 for richness 20 to 100
_RED_FRACTION_Z, _RED_FRACTION = (0.1, 0.46, 1.0), (0.80, 0.68, 0.55)
# field counts N(<i) = 46 x 10^(0.31 (i - 25)) per arcmin^2, LSST Science Book (arXiv:0912.0201,
# section 3.7); a deep-field law that exceeds counts of bright galaxies, so that brighter than
# i = 20 the slope is 0.55, near the Euclidean 0.6
COUNT_25, COUNT_SLOPE, COUNT_BREAK, BRIGHT_SLOPE = 46.0, 0.31, 20.0, 0.55
FIELD_Z_MAX = 4.0
_COLOUR_SCATTER_BLUE = 0.06  # spread of blue galaxies about the template sequence [mag]


def mstar(z: FloatArray | float) -> FloatArray:
    """Magnitude m* [i, AB]; beyond the table's z = 1.2 it dims with the distance alone."""
    z = np.asarray(z, float)
    z_end = float(load_table("mstar")["z"][-1])
    beyond = np.maximum(z, z_end)
    distance = cosmology.angular_diameter_distance_mpc
    ratio = distance(beyond) * (1 + beyond) ** 2 / (distance(z_end) * (1 + z_end) ** 2)
    dimming: FloatArray = 5.0 * np.log10(ratio)
    return interpolate("mstar", "mstar_i", z) + dimming


def red_sequence(z: FloatArray | float) -> FloatArray:
    """Mean colours g-r, r-i, i-z [mag] of red galaxies, shape (N, 3)."""
    return np.stack([interpolate("red_sequence", c, z) for c in ("gr", "ri", "iz")], axis=-1)


def red_fraction(z: FloatArray | float) -> FloatArray:
    """Red fraction of cluster members above 0.2 L* inside R_lambda."""
    return interp(z, _RED_FRACTION_Z, _RED_FRACTION)


@cache
def _schechter_table(alpha: float) -> tuple[FloatArray, FloatArray]:
    # n(m) dm ~ x^(alpha + 1) exp(-x) with x = L / L* = 10^(-0.4 (m - m*))
    mag = np.linspace(BRIGHTEST_MAG, 16.0, 9001)
    x = 10.0 ** (-0.4 * mag)
    density = x ** (alpha + 1.0) * np.exp(-x)
    steps = 0.5 * (density[1:] + density[:-1]) * np.diff(mag)
    return mag, np.concatenate([[0.0], np.cumsum(steps)])


def schechter_ratio(alpha: float, faint: FloatArray | float) -> FloatArray:
    """Galaxies brighter than m* + faint for each one brighter than 0.2 L*.

    Args:
        alpha: faint-end slope of the Schechter (1976, ApJ 203 297) function.
        faint: faint limit relative to m* [mag].
    """
    mag, cumulative = _schechter_table(alpha)
    counted = interp(COUNTED_MAG, mag, cumulative)
    return interp(faint, mag, cumulative) / counted


def sample_schechter(rng: np.random.Generator, alpha: float, faint: FloatArray) -> FloatArray:
    """Draw magnitudes relative to m* between `BRIGHTEST_MAG` and `faint`, shape (N,)."""
    mag, cumulative = _schechter_table(alpha)
    return interp(rng.random(len(faint)) * interp(faint, mag, cumulative), cumulative, mag)


def field_density(mag_limit: float) -> float:
    """Field galaxies brighter than `mag_limit` (i) per arcmin^2."""
    deep = COUNT_25 * 10.0 ** (COUNT_SLOPE * (max(mag_limit, COUNT_BREAK) - 25.0))
    return float(deep * 10.0 ** (BRIGHT_SLOPE * min(mag_limit - COUNT_BREAK, 0.0)))


def sample_field_magnitudes(
    rng: np.random.Generator, n: int, brightest: float, faintest: float
) -> FloatArray:
    """Draw n i magnitudes from the number counts between two limits; -inf for no bright one."""
    low, high = field_density(brightest), field_density(faintest)
    counts = low + (high - low) * (1.0 - rng.random(n))
    at_break = field_density(COUNT_BREAK)
    slope = np.where(counts < at_break, BRIGHT_SLOPE, COUNT_SLOPE)
    return COUNT_BREAK + np.log10(counts / at_break) / slope


def sample_field_redshifts(rng: np.random.Generator, mag_i: FloatArray) -> FloatArray:
    """Draw p(z | i) ~ z^2 exp(-z / z_i), z_i = max(0.0417 i - 0.686, 0.03), below z = 4.

    The Gamma(3, z_i) distribution; LSST Science Book (arXiv:0912.0201), where z0 = 0.0417 i - 0.744
    describes all galaxies brighter than i and z_i those at i.
    """
    scale = np.maximum(0.0417 * mag_i - 0.686, 0.03)
    return np.clip(scale * rng.standard_gamma(3.0, len(mag_i)), 0.01, FIELD_Z_MAX)


def field_red_fraction(mag_i: FloatArray, z: FloatArray) -> FloatArray:
    """Red fraction of field galaxies, falling with faintness and redshift.

    A chosen form: 0.55 above L* to 0.08 far below, constant to z = 0.6, 0.4 times that at 1.2, none
    beyond, where the red-sequence table ends.
    """
    local = 0.08 + 0.47 / (1.0 + np.exp((mag_i - mstar(z) - 1.0) / 0.7))
    return local * interp(z, [0.6, 1.2, 1.2001], [1.0, 0.4, 0.0])


def sample_colours(
    rng: np.random.Generator, z: FloatArray, is_red: BoolArray, width: float
) -> FloatArray:
    """Draw g-r, r-i, i-z [mag], shape (N, 3).

    Red galaxies scatter about the red sequence, independently in each colour; blue ones lie
    between the templates Sbc and Im.

    Args:
        rng: generator.
        z: redshift, shape (N,).
        is_red: bool, shape (N,).
        width: Gaussian width of the red sequence [mag].
    """
    deviate = rng.standard_normal((len(z), 3))
    kind = 2.0 * rng.beta(1.5, 1.5, len(z))
    red = red_sequence(z) + width * deviate
    blue = template_colours(kind, z) + _COLOUR_SCATTER_BLUE * deviate
    return np.where(is_red[:, None], red, blue)


def magnitudes(mag_i: FloatArray, colours: FloatArray) -> FloatArray:
    """Magnitudes in g, r, i, z, shape (N, 4), from i and the colours g-r, r-i, i-z (N, 3)."""
    mag_r = mag_i + colours[:, 1]
    return np.stack([mag_r + colours[:, 0], mag_r, mag_i, mag_i - colours[:, 2]], axis=1)
