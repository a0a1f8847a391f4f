"""Fourier transforms of sources, PSF and pixel on the grids of discrete transforms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property

import galsim
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datagen.fields.psf import PsfModel
from datagen.fields.render.components import Components
from datagen.fields.render.galsim_renderer import sersic_profile
from datagen.fields.render.view import View

# Radial tables are linear in (k r)^(1/4), from 0 to the fourth root of TABLE_REACH.
TABLE_REACH, TABLE_SIZE = 2000.0, 8192


@dataclass(frozen=True)
class Grid:
    """The wave numbers of the real transform of a square image.

    Args:
        size: Side of the image, even [px].
        oversampling: Samples per pixel and axis.
    """

    size: int
    oversampling: int = 1

    @property
    def n_samples(self) -> int:
        """Return the samples along one axis."""
        return self.size * self.oversampling

    @cached_property
    def ky(self) -> Tensor:
        """Return the wave numbers of the rows [rad/px], shape (n_samples, 1)."""
        ky: Tensor = torch.fft.fftfreq(self.n_samples) * (2.0 * math.pi * self.oversampling)
        return ky[:, None]

    @cached_property
    def kx(self) -> Tensor:
        """Return the wave numbers of the columns [rad/px], shape (n_samples // 2 + 1,)."""
        kx: Tensor = torch.fft.rfftfreq(self.n_samples) * (2.0 * math.pi * self.oversampling)
        return kx

    @property
    def k_square(self) -> Tensor:
        """Return k^2 [rad^2/px^2], shape (n_samples, n_samples // 2 + 1)."""
        return self.ky**2 + self.kx**2

    def image(self, spectrum: Tensor) -> Tensor:
        """Return the image of a spectrum, sampled at the pixels, shape (..., size, size)."""
        n, o = self.n_samples, self.oversampling
        fine: Tensor = torch.fft.irfft2(spectrum, s=(n, n))
        return fine if o == 1 else fine[..., ::o, ::o] * o**2


def source_spectra(parts: Components, offset: NDArray[np.float64], grid: Grid) -> Tensor:
    """Return the spectra of profiles of unit flux.

    Args:
        parts: Profiles, N rows.
        offset: Distance (x, y) of the source from pixel size // 2, shape (N, 2) [px].
        grid: Wave numbers.

    Returns:
        Complex, shape (N, n_samples, n_samples // 2 + 1).
    """
    x, y = (_stacked(v) for v in offset.T)
    rows, columns = _to_centre(grid.n_samples)[:, None], _to_centre(len(grid.kx))
    phase_y = torch.polar(torch.ones(()), -y * grid.ky) * rows
    phase_x = torch.polar(torch.ones(()), -x * grid.kx) * columns
    if not parts.half_light.any():
        return phase_y * phase_x
    a, b, c = (_stacked(v * parts.half_light**2) for v in _quadratic(parts.shear))
    # |S k|^2 of the sheared wave vector, in units of the half-light radius.
    square = (c * grid.ky + (2.0 * b) * grid.kx).mul_(grid.ky).add_(a * grid.kx**2)
    return _sersic_spectra(square, parts.sersic) * phase_y * phase_x


def image_spectrum(view: View, grid: Grid) -> Tensor:
    """Return the spectrum of PSF and pixel, shape (n_samples, n_samples // 2 + 1)."""
    scale = view.psf.scale_arcsec / view.pixel_scale
    a, b, c = (float(v) * scale**2 for v in _quadratic(_psf_shear(view.psf)))
    square = a * grid.kx**2 + c * grid.ky**2 + (2.0 * b * grid.ky) * grid.kx
    pixel = torch.sinc(grid.ky / (2.0 * math.pi)) * torch.sinc(grid.kx / (2.0 * math.pi))
    return _moffat(view.psf.beta)(square) * pixel


def largest_amplitude(parts: Components, k: float) -> NDArray[np.float64]:
    """Return the spectra of profiles of unit flux at a wave number along their minor axes.

    Args:
        parts: Profiles, N rows.
        k: Wave number [rad/px].

    Returns:
        Shape (N,).
    """
    shear = np.hypot(*parts.shear.T)
    minor = parts.half_light * np.sqrt((1 - shear) / (1 + shear))
    square = torch.from_numpy(np.asarray((k * minor) ** 2, np.float32))
    return _sersic_spectra(square, parts.sersic).numpy().astype(np.float64)


def _sersic_spectra(square: Tensor, sersic: NDArray[np.float64]) -> Tensor:
    """Return spectra at (k R_e)^2, shape (N, ...), for Sersic indices of shape (N,)."""
    if len(set(sersic.tolist())) == 1:
        return _sersic(round(float(sersic[0]), 1))(square)
    values = torch.empty_like(square)
    for n in np.unique(sersic).tolist():
        rows = torch.from_numpy(np.flatnonzero(sersic == n))
        values[rows] = _sersic(round(n, 1))(square[rows])
    return values


def _to_centre(n: int) -> Tensor:
    """Return the phase of a shift by half the image: +1, -1, +1, ..."""
    return 1.0 - 2.0 * (torch.arange(n) % 2)


def _stacked(values: NDArray[np.float64]) -> Tensor:
    """Return values (N,) in the shape (N, 1, 1)."""
    return torch.from_numpy(np.asarray(values, np.float32))[:, None, None]


def _quadratic(shear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (a, b, c) of |S k|^2 = a kx^2 + 2 b kx ky + c ky^2 for reduced shears (g1, g2).

    S = [[1 + g1, g2], [g2, 1 - g1]] / sqrt(1 - g^2) conserves area.
    """
    g1, g2 = np.moveaxis(shear, -1, 0)
    square = g1**2 + g2**2
    terms = np.stack([1 + 2 * g1 + square, 2 * g2, 1 - 2 * g1 + square])
    return np.asarray(terms / (1 - square))


def _psf_shear(psf: PsfModel) -> NDArray[np.float64]:
    """Return the PSF's reduced shear (g1, g2) from its distortion."""
    shear = galsim.Shear(e1=psf.e1, e2=psf.e2)
    return np.array([shear.g1, shear.g2])


@dataclass(frozen=True)
class _Radial:
    """A radial function of k in a table.

    Args:
        values: Function at k r = TABLE_REACH (i / (TABLE_SIZE - 1))^4, shape (TABLE_SIZE,).
        steps: Differences to the next value, the last is 0, same shape.
    """

    values: Tensor
    steps: Tensor

    @classmethod
    def of(cls, profile: galsim.GSObject) -> _Radial:
        """Tabulate the transform of a round GalSim profile of unit size."""
        k = TABLE_REACH * np.linspace(0.0, 1.0, TABLE_SIZE) ** 4
        values = torch.tensor([profile.kValue(v, 0.0).real for v in k])
        return cls(values, torch.diff(values, append=values[-1:]))

    def __call__(self, square: Tensor) -> Tensor:
        """Interpolate at (k r)^2, any shape."""
        place = square.sqrt().sqrt_().sqrt_().mul_((TABLE_SIZE - 1) / TABLE_REACH**0.25)
        number = place.to(torch.int32).clamp_(max=TABLE_SIZE - 1)
        return self.values[number] + self.steps[number] * (place - number)


@cache
def _sersic(n: float) -> _Radial:
    return _Radial.of(sersic_profile(n, 1.0))


@cache
def _moffat(beta: float) -> _Radial:
    return _Radial.of(galsim.Moffat(beta=beta, scale_radius=1.0))
