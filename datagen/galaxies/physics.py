"""Light, sizes and shapes: pure functions of arrays.

Flat LCDM with H0 = 70 km/s/Mpc and Omega_m = 0.3, as in `datagen.fields.cosmology`.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import gamma, kv

from datagen.fields.cosmology import (
    H0,
    OMEGA_M,
    angular_diameter_distance_mpc,
    critical_density,
)
from datagen.fields.galaxies import mstar, red_sequence
from datagen.fields.morphology import LOG_MASS_BLUE, LOG_MASS_STAR
from datagen.fields.templates import template_colours
from datagen.galaxies.streams import Array
from datagen.galaxies.version import BANDS

# Magnitude of one nanomaggy (AB).
ZERO_POINT = 22.5
# 1 / (km/s/Mpc) [Gyr].
_HUBBLE_GYR = 977.792
# Index of the Spergel profile that looks like a de Vaucouleurs one.
BULGE_NU = -0.6
# Bulges form no stars, clumps do nothing else [log10 1/yr].
BULGE_LOG_SSFR, CLUMP_LOG_SSFR = -13.0, -9.0
# Galaxies are on the red sequence below this log sSFR, and become blue within so many dex.
_RED_LOG_SSFR, _RED_WIDTH = -10.9, 0.2
# Above, they go along the sequence of blue templates from here to there.
_BLUE_LOG_SSFR = (-10.4, -9.7)
# Extinction A / E(B-V) of DECam's bands, as the Legacy Surveys have it (Dey et al. 2019,
# doi:10.3847/1538-3881/ab089d), from Schlafly & Finkbeiner 2011, doi:10.1088/0004-637X/737/2/103.
EXTINCTION = {"g": 3.214, "r": 2.165, "i": 1.592, "z": 1.211}


def cosmic_age(z: Array | float) -> Array:
    """Return 2 / (3 H0 sqrt(O_L)) asinh(sqrt(O_L / O_m) (1 + z)^-1.5) [Gyr]; Peebles 1993."""
    dark = 1.0 - OMEGA_M
    argument = math.sqrt(dark / OMEGA_M) * (1.0 + np.asarray(z, float)) ** -1.5
    age: Array = 2.0 / (3.0 * math.sqrt(dark)) * _HUBBLE_GYR / H0 * np.arcsinh(argument)
    return age


def arcsec_per_kpc(z: Array | float) -> Array:
    """Return the angle of 1 kpc at redshift z [arcsec]."""
    return np.degrees(1e-3 / angular_diameter_distance_mpc(z)) * 3600.0


def r_delta_kpc(mass: Array | float, z: Array | float, delta: float) -> Array:
    """Return the radius within which the mean density is delta times critical [kpc].

    Args:
        mass: Mass within that radius [Msun].
        z: Redshift.
        delta: Overdensity, such as 200.
    """
    volume = np.asarray(mass) / (delta * critical_density(z)) * 3.0 / (4.0 * math.pi)
    return 1e3 * np.cbrt(volume)


def red_share(log_ssfr: Array | float) -> Array:
    """Return 1 / (1 + 10^((log sSFR + 10.9) / 0.2)): 1 on the red sequence, 0 for blue galaxies."""
    exponent = (np.asarray(log_ssfr, float) - _RED_LOG_SSFR) / _RED_WIDTH
    return 1.0 / (1.0 + 10.0**exponent)


def colours(log_ssfr: Array, z: Array) -> Array:
    """Return g-r, r-i, i-z of stars that form at a rate, seen at a redshift, (n, 3) [AB mag].

    Between the red sequence and blue templates of `datagen.fields`, by `red_share`.
    """
    low, high = _BLUE_LOG_SSFR
    sequence = np.clip(2.0 * (log_ssfr - low) / (high - low), 0.0, 2.0)
    red = red_share(log_ssfr)[:, None]
    mixed: Array = red * red_sequence(z) + (1.0 - red) * template_colours(sequence, z)
    return mixed


def magnitude_i(log_mass: Array, log_ssfr: Array, z: Array) -> Array:
    """Return the i magnitude of galaxies of a stellar mass [log10 Msun], (n,) [AB mag].

    A red galaxy of 10^10.9 Msun has m*(z); blue ones of the same mass are brighter.
    """
    as_red = log_mass - LOG_MASS_BLUE * (1.0 - red_share(log_ssfr))
    return mstar(z) - 2.5 * (as_red - LOG_MASS_STAR)


def relative_fluxes(log_ssfr: Array, z: Array, bands: list[str]) -> Array:
    """Return fluxes over that in i, (n, bands)."""
    gr, ri, iz = colours(log_ssfr, z).T
    above_i = np.stack([gr + ri, ri, np.zeros_like(ri), -iz], axis=-1)
    ratios: Array = 10.0 ** (-0.4 * above_i[:, [BANDS.index(band) for band in bands]])
    return ratios


def flux(magnitude: Array | float) -> Array:
    """Return 10^(0.4 (22.5 - m)) [nanomaggies]."""
    return np.asarray(10.0 ** (0.4 * (ZERO_POINT - np.asarray(magnitude, float))))


def exponential_within(x: Array | float) -> Array:
    """Return the light of an exponential disc within x half-light radii, as a share."""
    scaled = 1.67834699 * np.asarray(x, float)
    return 1.0 - (1.0 + scaled) * np.exp(-scaled)


def bulge_within(x: Array | float) -> Array:
    """Return the same of a Spergel profile of nu = -0.6.

    Spergel 2010, ApJS 191, 58 (eq. 9): 1 - 2 (1 + nu) f_(nu+1)(u), f_mu(u) = (u/2)^mu K_mu(u) /
    Gamma(mu + 1).
    """
    return _spergel_within(_bulge_scale() * np.asarray(x, float))


def half_light(bulge: Array, bulge_size: float) -> Array:
    """Return the half-light radius of bulge and disc together [half-light radii of the disc].

    Args:
        bulge: B/T, (n,).
        bulge_size: Half-light radius of the bulge over that of the disc, <= 1.
    """
    radius, total = _half_light_table(bulge_size)
    return np.interp(bulge, total, radius)


def ellipse(axes: Array, thickness: float) -> tuple[float, float]:
    """Return how an oblate body is seen: axis ratio, position angle of the major axis.

    Args:
        axes: Rotation of its own axes to the sky; the third is that of symmetry, (3, 3).
        thickness: Axis ratio q0, seen edge-on; q^2 = q0^2 + (1 - q0^2) cos^2 i (Hubble 1926).

    Returns:
        Axis ratio; angle [rad from +x counter-clockwise].
    """
    x, y, depth = axes[:, 2]
    ratio = math.sqrt(thickness**2 + (1.0 - thickness**2) * depth**2)
    return ratio, math.atan2(y, x) + 0.5 * math.pi


def _spergel_within(u: Array | float) -> Array:
    order = BULGE_NU + 1.0
    u = np.maximum(np.asarray(u, float), 1e-12)
    shape = (0.5 * u) ** order * kv(order, u) / gamma(order + 1.0)
    within: Array = 1.0 - 2.0 * order * shape
    return within


@cache
def _bulge_scale() -> float:
    """Return the half-light radius in units of the scale radius."""
    return float(brentq(lambda u: float(_spergel_within(u)) - 0.5, 1e-3, 10.0))


@cache
def _half_light_table(bulge_size: float) -> tuple[Array, Array]:
    """Return half-light radii and the B/T that has each of them, rising in B/T."""
    radius = np.linspace(1.0, bulge_size, 400)
    disc, bulge = exponential_within(radius), bulge_within(radius / bulge_size)
    # Where both halves meet, bulge * B + (1 - bulge) * D = 1/2; equal sizes leave 0 / 0.
    total = (0.5 - disc) / np.where(bulge > disc, bulge - disc, 1.0)
    return radius, np.clip(total, 0.0, 1.0)
