"""What telescopes would see: mass from the shapes of galaxies, X-rays as photons."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import poisson

from datagen.halos.cosmology import CM_PER_KPC, LSUN, Array, angular_distance

Complex = NDArray[np.complex128]

_ERG_PER_KEV = 1.60218e-9
_ARCMIN = math.pi / 10_800.0
# From this mean on quantiles of Poisson numbers are expanded about those of normal ones.
_MANY = 100.0


def shape_noise(ellipticity: float, galaxies: float, pixel_arcmin: float) -> float:
    """Return the noise of the convergence in a pixel, sigma_e / sqrt(2 n A).

    Args:
        ellipticity: Total rms of both components, sigma_e.
        galaxies: n [arcmin^-2].
        pixel_arcmin: Side of the pixel.
    """
    return ellipticity / math.sqrt(2.0 * galaxies) / pixel_arcmin


def kaiser_squires(gamma: Complex) -> Array:
    """Return the convergence of a complex shear map (Kaiser & Squires 1993); its mean is 0."""
    kernel = _kernel(len(gamma))
    # E modes are real; B modes, which lensing has not, are left out.
    kappa: Array = np.fft.ifft2(np.conj(kernel) * np.fft.fft2(gamma)).real
    return kappa


def shear_of(kappa: Array) -> Complex:
    """Return the complex shear gamma_1 + i gamma_2 of a convergence map, with periodic borders."""
    gamma: Complex = np.fft.ifft2(_kernel(len(kappa)) * np.fft.fft2(kappa))
    return gamma


def lensing_map(mass: Array, lensing: float, noise: float, white: Array) -> Array:
    """Return the mass map that shapes of galaxies give [Msun/kpc^2]; its mean is 0.

    The shear is that of a map four times as large, whose rim continues the border's mean, so that
    opposite borders hardly know of each other; what is measured is the map itself.

    Args:
        mass: Surface density, (side, side) [Msun/kpc^2].
        lensing: Critical surface density [Msun/kpc^2].
        noise: Of each shear component in a pixel.
        white: Independent normal numbers, (2, side, side).
    """
    n = len(mass)
    border = np.mean([mass[0].mean(), mass[-1].mean(), mass[:, 0].mean(), mass[:, -1].mean()])
    wide = np.full((2 * n, 2 * n), border)
    wide[:n, :n] = mass
    gamma = shear_of(wide / lensing)[:n, :n] + noise * (white[0] + 1j * white[1])
    return kaiser_squires(gamma) * lensing


def photons(xray: Array, z: float, pixel_kpc: float, effort: float, white: Array) -> Array:
    """Return the counts of an X-ray telescope, (side, side).

    Each pixel has a normal number of its own, so that what one shows does not change another.

    Args:
        xray: Surface brightness, (side, side) [Lsun/kpc^2].
        z: Redshift of the cluster.
        pixel_kpc: Side of a pixel.
        effort: Effective area times exposure over the energy of a photon [cm^2 s/keV].
        white: Independent normal numbers, (side, side).
    """
    distance = angular_distance(0.0, z) * (1.0 + z) ** 2 * CM_PER_KPC
    flux = xray * LSUN * pixel_kpc**2 / (4.0 * math.pi * distance**2)
    return counts(flux * effort / _ERG_PER_KEV, white)


def counts(mean: Array, white: Array) -> Array:
    """Return Poisson numbers: their quantiles at the shares of normal numbers.

    Large ones by the expansion of Giles 2016 (Algorithm 955, ACM Trans. Math. Softw. 42, 7).

    Args:
        mean: (...).
        white: Independent normal numbers, (...).
    """
    large, w = np.maximum(mean, _MANY), white
    root = np.sqrt(large)
    found = large + root * w + (2.0 + w**2) / 6.0 - (2.0 * w + w**3) / (72.0 * root)
    found += (-16.0 + 7.0 * w**2 + 3.0 * w**4) / (810.0 * large)
    is_few = mean < _MANY
    found[is_few] = poisson.ppf(ndtr(w[is_few]), mean[is_few])
    return np.floor(found)


def pixel_arcmin(z: float, pixel_kpc: float) -> float:
    """Return the angle of a pixel [arcmin]."""
    return pixel_kpc / angular_distance(0.0, z) / _ARCMIN


def _kernel(n: int) -> Complex:
    """Return (k_x + i k_y)^2 / k^2, 0 at k = 0, (n, n)."""
    k_x, k_y = np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n))
    k = k_x + 1j * k_y
    k[0, 0] = 1.0
    kernel: Complex = k**2 / np.abs(k) ** 2
    kernel[0, 0] = 0.0
    return kernel
