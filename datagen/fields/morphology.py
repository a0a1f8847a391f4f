"""Sizes, shapes and profiles of galaxies: one law for members and field galaxies alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datagen.fields import cosmology, galaxies
from datagen.fields.tables_io import BoolArray, FloatArray

# chosen stellar mass of an L* red galaxy, and how much lighter a blue one of equal i magnitude is
# [log10 Msun]; only sizes depend on them
LOG_MASS_STAR, LOG_MASS_BLUE = 10.9, -0.35
# size-mass relation, van der Wel et al. 2014, ApJ 788 28: log10 R_e / kpc at 5e10 Msun and z = 0.25
LOG_SIZE_RED, LOG_SIZE_BLUE = 0.60, 0.86
SLOPE_RED, SLOPE_BLUE = 0.75, 0.22
EVOLUTION_RED, EVOLUTION_BLUE = -1.48, -0.75
# below 2e10 Msun early types hardly shrink with mass; the slope there is chosen
LOG_MASS_FLAT, SLOPE_FLAT = np.log10(2e10), 0.10
SCATTER_RED, SCATTER_BLUE = 0.13, 0.17  # [dex]
SHEAR_MAX = 0.8
# width of each shear component; blue galaxies: half of them thick, half of them thin discs
SHEAR_RED, SHEAR_BLUE = (0.15, 0.15), (0.18, 0.33)
HLR_RANGE = (0.02, 30.0)  # [arcsec]


@dataclass(frozen=True)
class Morphology:
    """Profiles of N galaxies.

    Args:
        hlr_arcsec: circularised half-light radius R_e sqrt(q), shape (N,).
        fracdev: share of the de Vaucouleurs profile in the light, shape (N,).
        sersic_n: Sersic index, shape (N,).
        shear: reduced shear (g1, g2), |g| = (1 - q) / (1 + q), from +x counter-clockwise,
            shape (N, 2).
    """

    hlr_arcsec: FloatArray
    fracdev: FloatArray
    sersic_n: FloatArray
    shear: FloatArray


def log_stellar_mass(mag_i: FloatArray, z: FloatArray, is_red: BoolArray) -> FloatArray:
    """Stellar mass [log10 Msun] from the luminosity relative to L*."""
    as_red = LOG_MASS_STAR - 0.4 * (mag_i - galaxies.mstar(z))
    return np.asarray(np.where(is_red, as_red, as_red + LOG_MASS_BLUE), np.float64)


def mean_log_size(log_mass: FloatArray, z: FloatArray, is_red: BoolArray) -> FloatArray:
    """Median semi-major half-light radius R_e [log10 physical kpc]."""
    pivot = np.log10(5e10)
    steep = SLOPE_RED * (np.maximum(log_mass, LOG_MASS_FLAT) - pivot)
    red = LOG_SIZE_RED + steep + SLOPE_FLAT * np.minimum(log_mass - LOG_MASS_FLAT, 0.0)
    blue = LOG_SIZE_BLUE + SLOPE_BLUE * (log_mass - pivot)
    stretch: FloatArray = np.log10((1.0 + z) / 1.25)
    red, blue = red + EVOLUTION_RED * stretch, blue + EVOLUTION_BLUE * stretch
    log_size: FloatArray = np.where(is_red, red, blue)
    return log_size


def sample_shear(rng: np.random.Generator, sigma: FloatArray) -> FloatArray:
    """Draw Gaussian shears of width sigma, again until |g| < 0.8; shape (N, 2)."""
    shear = np.empty((len(sigma), 2))
    todo = np.arange(len(sigma))
    while todo.size:
        shear[todo] = rng.standard_normal((todo.size, 2)) * sigma[todo, None]
        todo = todo[np.hypot(shear[todo, 0], shear[todo, 1]) >= SHEAR_MAX]
    return shear


def sample_morphology(
    rng: np.random.Generator, mag_i: FloatArray, z: FloatArray, is_red: BoolArray
) -> Morphology:
    """Draw profiles: red galaxies de Vaucouleurs, blue ones exponential.

    Args:
        rng: generator.
        mag_i: i magnitude [AB], shape (N,).
        z: redshift, shape (N,).
        is_red: shape (N,).
    """
    n = len(mag_i)
    first = rng.random(n) < 0.5
    sigma = np.where(is_red, np.where(first, *SHEAR_RED), np.where(first, *SHEAR_BLUE))
    shear = sample_shear(rng, sigma)
    size = np.hypot(shear[:, 0], shear[:, 1])
    axis_ratio = (1.0 - size) / (1.0 + size)
    scatter = np.where(is_red, SCATTER_RED, SCATTER_BLUE) * rng.standard_normal(n)
    log_kpc = mean_log_size(log_stellar_mass(mag_i, z, is_red), z, is_red) + scatter
    hlr = 10.0 ** (log_kpc - 3.0) * cosmology.arcsec_per_mpc(z) * np.sqrt(axis_ratio)
    fracdev = np.where(is_red, 1.0, 0.0)
    return Morphology(np.clip(hlr, *HLR_RANGE), fracdev, np.where(is_red, 4.0, 1.0), shear)
