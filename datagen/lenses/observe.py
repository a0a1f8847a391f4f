"""How a telescope sees a lens: PSF kernels, noise from given random numbers, signal-to-noise ratio.

A pixel has the variance sigma^2 + counts / gain: sky and read noise, and the photons of what is in
the image. An infinite gain leaves out the photon noise of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import galsim
import torch
from torch import Tensor

from datagen.errors import ConfigError

PsfKind = Literal["gaussian", "moffat", "airy"]
PSF_KINDS: tuple[PsfKind, ...] = ("gaussian", "moffat", "airy")
_MIN_BETA = 1.1
# FWHM of the Airy pattern in units of wavelength / diameter
_AIRY_FWHM = 1.028993969962188
# Up to this rate Poisson numbers are inverted term by term, above by an expansion.
_SMALL_RATE, _N_TERMS = 16.0, 64


@dataclass(frozen=True)
class Psf:
    """A round point-spread function.

    Args:
        kind: gaussian, moffat or airy.
        fwhm_arcsec: Full width at half maximum [arcsec].
        radius_arcsec: Half width of the kernel, beyond which the profile is cut [arcsec].
        beta: Slope of the wings of `moffat`; > 1.1.
    """

    kind: PsfKind
    fwhm_arcsec: float
    radius_arcsec: float
    beta: float

    def __post_init__(self) -> None:
        if self.kind not in PSF_KINDS:
            raise ConfigError(
                f"kind = {self.kind}, but a PSF must be one of {', '.join(PSF_KINDS)}",
                self.kind,
                PSF_KINDS,
            )
        for name in ("fwhm_arcsec", "radius_arcsec"):
            if getattr(self, name) <= 0:
                value = getattr(self, name)
                raise ConfigError(f"{name} = {value}, but it must be positive", value)
        if self.kind == "moffat" and self.beta <= _MIN_BETA:
            raise ConfigError(f"beta = {self.beta}, but it must be > {_MIN_BETA}", self.beta)

    def galsim(self) -> galsim.GSObject:
        """Return the profile as a GalSim object in units of arcsec."""
        if self.kind == "gaussian":
            return galsim.Gaussian(fwhm=self.fwhm_arcsec)
        if self.kind == "moffat":
            return galsim.Moffat(beta=self.beta, fwhm=self.fwhm_arcsec)
        return galsim.Airy(lam_over_diam=self.fwhm_arcsec / _AIRY_FWHM)


@cache
def psf_kernel(psf: Psf, ray_scale: float) -> Tensor:
    """Return the PSF, convolved with a square of `ray_scale`, on a grid of that step.

    With supersampling, the mean over the rays of a pixel widens the square to the whole pixel, so
    images are integrated over pixels exactly, up to what rays miss between them.

    Args:
        psf: The profile.
        ray_scale: Step of the grid [arcsec], `Grid.ray_scale`.

    Returns:
        Kernel of unit sum, float64, shape (k, k) with odd k. Shared: do not change it in place.
    """
    side = 2 * math.ceil(psf.radius_arcsec / ray_scale) + 1
    image = psf.galsim().drawImage(nx=side, ny=side, scale=ray_scale, dtype=float)
    kernel = torch.from_numpy(image.array.copy())
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


def snr(arcs: Tensor, variance: Tensor) -> Tensor:
    """Return the signal-to-noise ratio of the lensed source.

    Pixels are added from the brightest relative to their noise to the faintest, and the largest
    ratio of summed counts to the root of the summed variance counts; Collett 2015,
    doi:10.1088/0004-637X/811/1/20, section 3.

    Args:
        arcs: Noise-free counts of the lensed source alone, (B, C, H, W).
        variance: Of each pixel, all light included [counts^2], (B, C, H, W).

    Returns:
        (B,).
    """
    signal, noise = _grown(arcs, variance)
    return (signal / torch.sqrt(noise)).amax(1)


def _grown(arcs: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cumulative counts and variances, brightest pixels first, (B, pixels)."""
    counts, noise = arcs.flatten(1), variance.flatten(1)
    order = (counts / torch.sqrt(noise)).argsort(1, descending=True)
    return counts.gather(1, order).cumsum(1), noise.gather(1, order).cumsum(1)


def flux_factor(arcs: Tensor, variance: Tensor, gain: Tensor, wanted: Tensor) -> Tensor:
    """Return the factor on the source's flux that gives a wanted signal-to-noise ratio.

    With counts A and variance V of the k brightest pixels, the ratio is s where
    (f A)^2 = s^2 (V + f A / gain), a quadratic equation for f; the smallest f of all k is the
    answer. Pixels are ordered by their noise without the source.

    Args:
        arcs: Noise-free counts of the lensed source alone, (B, C, H, W); not all 0.
        variance: Of each pixel without the source [counts^2], (B, C, H, W).
        gain: Electrons per count, (B,); infinite without photon noise.
        wanted: Signal-to-noise ratio, (B,).

    Returns:
        (B,).
    """
    signal, noise = _grown(arcs, variance)
    square = (wanted**2)[:, None]
    photon = square / gain[:, None]
    factor = (photon + torch.sqrt(photon**2 + 4.0 * square * noise)) / (2.0 * signal)
    return factor.amin(1)


def sigma_factor(arcs: Tensor, variance: Tensor, wanted: Tensor) -> Tensor:
    """Return the factor on the noise that gives a wanted signal-to-noise ratio.

    It multiplies the standard deviation of every pixel, photon noise included; see `snr`.

    Args:
        arcs: Noise-free counts of the lensed source alone, (B, C, H, W).
        variance: Of each pixel, all light included [counts^2], (B, C, H, W).
        wanted: Signal-to-noise ratio, (B,).

    Returns:
        (B,).
    """
    return snr(arcs, variance) / wanted
