"""Clusters of galaxies: abundance, masses, radii and the positions of their members.

Richness is the expected number of red members brighter than 0.2 L* inside the projected radius
R_lambda. Masses are M200m; radii and concentrations that refer to the critical density say so.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.special import lambertw

from datagen.fields import cosmology
from datagen.fields.tables_io import FloatArray, interp

# Relative number of clusters richer than lambda, redMaPPer on DES (Rykoff et al. 2016, ApJS 224 1)
_RICHNESS = np.array([10.0, 20.0, 30.0, 40.0, 60.0, 100.0])
_N_RICHER = np.array([4.5, 1.0, 0.34, 0.14, 0.032, 0.003])
RICHNESS_MAX = 300.0
# the interval of the abundance that `abundance_deg2` states
ABUNDANCE_Z = (0.2, 0.9)
# galaxy concentrations c200c = R200c / r_s, Hennig et al. 2017, MNRAS 467 4015
CONCENTRATION_RED, CONCENTRATION_BLUE = 5.37, 1.38
# typical c200c of the matter of clusters, Duffy et al. 2008, MNRAS 390 L64; converts M200m to M200c
CONCENTRATION_MATTER = 4.0
# intrinsic scatter of ln M at fixed richness, chosen near what follows from Murata et al. 2018, ApJ
# 854 120: their scatter of ln lambda at fixed mass, 0.456, divided by their slope, 0.993; less, in
# quadrature, the Poisson scatter 1 / sqrt(25) at their pivot, which our counts of members have
MASS_SCATTER = 0.40


def _log_log(x: FloatArray, xp: FloatArray, fp: FloatArray) -> FloatArray:
    """Interpolate a decreasing power law in log-log, continued with its end slopes."""
    lx, lxp, lfp = np.log(x), np.log(xp), np.log(fp)
    k = np.clip(np.searchsorted(lxp, lx) - 1, 0, len(xp) - 2)
    slope = (lfp[k + 1] - lfp[k]) / (lxp[k + 1] - lxp[k])
    result: FloatArray = np.exp(lfp[k] + slope * (lx - lxp[k]))
    return result


def richer_than(richness: FloatArray | float) -> FloatArray:
    """Number of clusters richer than `richness`, relative to those richer than 20.

    Power laws between the tabulated points, continued below 10 and above 100.
    """
    return _log_log(np.asarray(richness, float), _RICHNESS, _N_RICHER)


def sample_richness(rng: np.random.Generator, n: int, low: float, high: float) -> FloatArray:
    """Draw n richnesses in [low, high] from the abundance function."""
    n_low, n_high = richer_than(low), richer_than(high)
    count = n_high + rng.random(n) * (n_low - n_high)
    drawn = _log_log(count, _N_RICHER[::-1], _RICHNESS[::-1])
    return np.clip(drawn, low, high)


def abundance_per_deg2(
    density_20: float, richness_range: tuple[float, float], redshift_range: tuple[float, float]
) -> float:
    """Expected clusters per square degree, at constant comoving density.

    Args:
        density_20: clusters with richness > 20 at 0.2 < z < 0.9 [deg^-2].
        richness_range: [lower, upper] richness.
        redshift_range: [lower, upper] redshift.
    """
    volume = np.diff(cosmology.comoving_volume_mpc3(np.asarray(redshift_range)))
    reference = np.diff(cosmology.comoving_volume_mpc3(np.asarray(ABUNDANCE_Z)))
    counts = -np.diff(richer_than(np.asarray(richness_range)))
    return float(density_20 * (counts * volume / reference)[0])


def mean_mass_msun(richness: FloatArray, z: FloatArray) -> FloatArray:
    """Mean M200m [Msun] at a richness.

    M = 3.081e14 Msun (lambda / 40)^1.356 ((1 + z) / 1.35)^-0.30, McClintock et al. 2019,
    MNRAS 482 1352, doi:10.1093/mnras/sty2711.
    """
    return 3.081e14 * (richness / 40.0) ** 1.356 * ((1.0 + z) / 1.35) ** -0.30


def sample_mass_msun(rng: np.random.Generator, richness: FloatArray, z: FloatArray) -> FloatArray:
    """Draw M200m [Msun]: log-normal about `mean_mass_msun`, which stays the mean."""
    deviate = rng.standard_normal(len(richness))
    return mean_mass_msun(richness, z) * np.exp(MASS_SCATTER * deviate - 0.5 * MASS_SCATTER**2)


def r_lambda_mpc(richness: FloatArray) -> FloatArray:
    """Aperture R_lambda = 1.0 (lambda / 100)^0.2 h^-1 Mpc, as physical Mpc (Rykoff+2014)."""
    return (richness / 100.0) ** 0.2 / cosmology.LITTLE_H


def radius_mpc(mass_msun: FloatArray, density: FloatArray) -> FloatArray:
    """Radius [Mpc] of a sphere of 200 times `density` [Msun/Mpc^3] that holds the mass."""
    return np.cbrt(3.0 * mass_msun / (4.0 * np.pi * 200.0 * density))


def nfw_mass(x: FloatArray | float) -> FloatArray:
    """NFW mass function m(x) = ln(1 + x) - x / (1 + x), x = r / r_s."""
    x = np.asarray(x, float)
    return np.log1p(x) - x / (1.0 + x)


@cache
def _conversion_grid() -> tuple[FloatArray, FloatArray]:
    # for a given c200c, c200m solves m(c200m) / c200m^3 = Omega_m(z) m(c200c) / c200c^3
    c200m = np.linspace(CONCENTRATION_MATTER, 4.0 * CONCENTRATION_MATTER, 2000)
    shape = nfw_mass(CONCENTRATION_MATTER)
    density = nfw_mass(c200m) / c200m**3 * CONCENTRATION_MATTER**3 / shape
    ratio = shape / nfw_mass(c200m)
    return density[::-1], ratio[::-1]


def m200c_msun(m200m_msun: FloatArray, z: FloatArray) -> FloatArray:
    """Convert M200m to M200c [Msun] along an NFW profile (Hu & Kravtsov 2003, appendix C)."""
    return m200m_msun * interp(cosmology.omega_m(z), *_conversion_grid())


def r200c_mpc(m200m_msun: FloatArray, z: FloatArray) -> FloatArray:
    """R200c [physical Mpc] from M200m [Msun]."""
    return radius_mpc(m200c_msun(m200m_msun, z), cosmology.critical_density(z))


def sample_nfw_radii(rng: np.random.Generator, x_max: FloatArray) -> FloatArray:
    """Draw 3D radii r / r_s of an NFW profile that ends at x_max, one for each element.

    Exact inverse of m(x) = q with q = u m(x_max): x = -1 / W0(-exp(-q - 1)) - 1, principal branch
    (Robotham & Howlett 2018, RNAAS 2 55, doi:10.3847/2515-5172/aacc70).
    """
    q = rng.random(len(x_max)) * nfw_mass(x_max)
    return -1.0 / lambertw(-np.exp(-q - 1.0), 0).real - 1.0


@cache
def _legendre() -> tuple[FloatArray, FloatArray]:
    nodes, weights = np.polynomial.legendre.leggauss(64)
    return 0.5 * (nodes + 1.0), 0.5 * weights


def projected_nfw_cdf(x: FloatArray, x_max: FloatArray | float) -> FloatArray:
    """Fraction of the galaxies of an NFW sphere of radius x_max inside projected radius x.

    1 - int_x^x_max f(s) sqrt(1 - x^2 / s^2) ds with f = s / (1 + s)^2 / m(x_max); s = x cosh t
    makes the integrand smooth, so that 64 Gauss-Legendre nodes reach 1e-8.

    Args:
        x: projected radii in units of r_s, shape (N,).
        x_max: end of the profile in units of r_s, shape (N,) or a number.
    """
    x, x_max = np.broadcast_arrays(np.asarray(x, float), np.asarray(x_max, float))
    inner = np.clip(x, 1e-9, x_max)[..., None]
    nodes, weights = _legendre()
    t_max = np.arccosh(x_max[..., None] / inner)
    t = nodes * t_max
    s = inner * np.cosh(t)
    integrand = s / (1.0 + s) ** 2 * inner * np.sinh(t) * np.tanh(t)
    outside = (integrand * weights).sum(-1) * t_max[..., 0] / nfw_mass(x_max)
    return np.where(x >= x_max, 1.0, 1.0 - outside)


def isotropic(rng: np.random.Generator, n: int) -> FloatArray:
    """Draw n unit vectors, shape (n, 3)."""
    v = rng.standard_normal((n, 3))
    unit: FloatArray = v / np.linalg.norm(v, axis=1, keepdims=True)
    return unit


def stretch(vectors: FloatArray, rng: np.random.Generator, triaxiality: float) -> FloatArray:
    """Stretch positions along random axes, one set for each cluster, at constant volume.

    Args:
        vectors: positions of the members of one cluster, shape (N, 3).
        rng: generator.
        triaxiality: 1 - minor/major; the middle axis is the mean of both.
    """
    minor = 1.0 - triaxiality
    axes = np.array([1.0, 0.5 * (1.0 + minor), minor])
    rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    scaled: FloatArray = vectors @ (rotation * (axes / np.cbrt(axes.prod()))) @ rotation.T
    return scaled
