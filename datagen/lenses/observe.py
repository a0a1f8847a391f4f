"""How a telescope sees a lens: PSF kernels, and noise from given random numbers.

A pixel has the variance sigma^2 + counts / gain: sky and read noise, and the photons of what is in
the image. An infinite gain leaves out the photon noise of the image.
"""

from __future__ import annotations

import math
from functools import cache

import galsim
import torch
from torch import Tensor

# Up to this rate Poisson numbers are inverted term by term, above by an expansion.
_SMALL_RATE, _N_TERMS = 16.0, 64


@cache
def psf_kernel(fwhm_arcsec: float, radius_arcsec: float, ray_scale: float) -> Tensor:
    """Return a round Gaussian PSF, convolved with a square of `ray_scale`, on a grid of that step.

    With supersampling, the mean over the rays of a pixel widens the square to the whole pixel, so
    images are integrated over pixels exactly, up to what rays miss between them.

    Args:
        fwhm_arcsec: Full width at half maximum [arcsec].
        radius_arcsec: Half width of the kernel, beyond which the profile is cut [arcsec].
        ray_scale: Step of the grid [arcsec], `Grid.ray_scale`.

    Returns:
        Kernel of unit sum, float64, shape (k, k) with odd k. Shared: do not change it in place.
    """
    side = 2 * math.ceil(radius_arcsec / ray_scale) + 1
    profile = galsim.Gaussian(fwhm=fwhm_arcsec)
    image = profile.drawImage(nx=side, ny=side, scale=ray_scale, dtype=float)
    # GalSim's transforms leave values of -1e-12 far out
    kernel = torch.from_numpy(image.array.copy()).clamp(min=0.0)
    return kernel / kernel.sum()


def variance_map(image: Tensor, sigma: Tensor, gain: Tensor) -> Tensor:
    """Return the variance of each pixel [counts^2].

    Args:
        image: Noise-free counts, (B, C, H, W).
        sigma: Sky and read noise [counts], (B,).
        gain: Electrons per count, (B,); infinite without photon noise.
    """
    return _pixels(sigma) ** 2 + image.clamp(min=0.0) / _pixels(gain)


def add_noise(
    image: Tensor, sigma: Tensor, gain: Tensor, normal: Tensor, uniform: Tensor | None = None
) -> Tensor:
    """Return the image with noise made of given random numbers.

    Args:
        image: Noise-free counts, (B, C, H, W).
        sigma: Sky and read noise [counts], (B,).
        gain: Electrons per count, (B,). Not used without `uniform`.
        normal: Standard normal numbers, (B, C, H, W).
        uniform: Uniform numbers in (0, 1) for the photons, (B, C, H, W), better in float64; None
            for no photon noise.
    """
    if uniform is not None:
        electrons = poisson(image.clamp(min=0.0) * _pixels(gain), uniform)
        image = electrons.to(image.dtype) / _pixels(gain)
    return image + _pixels(sigma) * normal.to(image.dtype)


def _pixels(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def poisson(rate: Tensor, uniform: Tensor) -> Tensor:
    """Return Poisson numbers as quantiles of uniform ones.

    Exact below a rate of 16; above, Q = r + sqrt(r) w + ... of Giles 2016, doi:10.1145/2699466,
    section 2, which differs from the exact quantile in less than 0.1 % of the draws, and then by 1.

    Args:
        rate: Expected numbers, >= 0 and finite, any shape.
        uniform: In (0, 1), same shape.

    Returns:
        Whole numbers in float64.
    """
    rate, uniform = rate.double(), uniform.double()
    is_small = rate < _SMALL_RATE
    result = _large_poisson(rate.clamp(min=_SMALL_RATE), uniform)
    result[is_small] = _small_poisson(rate[is_small], uniform[is_small])
    return result


def _small_poisson(rate: Tensor, uniform: Tensor) -> Tensor:
    """Count the terms of the distribution function that lie below `uniform`."""
    term = torch.exp(-rate)
    below = term.clone()
    count = torch.zeros_like(rate)
    for k in range(1, _N_TERMS):
        count += below < uniform
        term = term * (rate / k)
        below += term
    return count


def _large_poisson(rate: Tensor, uniform: Tensor) -> Tensor:
    w, root = torch.special.ndtri(uniform), torch.sqrt(rate)
    w2 = w**2
    quantile = rate + root * w + (1.0 / 3.0 + w2 / 6.0)
    quantile -= w * (1.0 / 36.0 + w2 / 72.0) / root
    quantile += (w2**2 / 270.0 + 7.0 * w2 / 810.0 - 8.0 / 405.0) / rate
    return torch.floor(quantile).clamp(min=0.0)
