"""The fast renderer: each source is drawn once for all bands, each band is convolved as a whole.

A source's stamp is its galaxy profile under a narrow Gaussian window, the same for all bands:
profile and window are multiplied in k space and many stamps are transformed at once. The stamps
are added to one plane per band, times the band's flux. Every plane is then convolved, in blocks,
with PSF and pixel divided by the window. In k the window is hardly lower than PSF and pixel
anywhere, so that the division does not amplify noise.

Stamps hold the galaxy's light only; the wings of the PSF come with the convolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

import galsim
import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor

from datagen.fields.psf import PsfModel
from datagen.fields.render import galsim_renderer
from datagen.fields.render.components import Components, components
from datagen.fields.render.extent import psf_radius
from datagen.fields.render.view import View

# Sides at which stamps are drawn [px]; sources that need more are cut at the last one.
STAMP_SIZES = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
# Elements of the k-images that are drawn at once; larger batches fall out of the cache.
BATCH_ELEMENTS = 2**17
# Side of the blocks in which a plane is convolved, at least this many times the PSF's reach.
BLOCK_PX, BLOCK_REACHES = 512, 8
# Width of the Gaussian window [px], and how many of it its stamp holds. A narrower window would
# ring, a wider one would fall below the spectra of sharp PSFs.
WINDOW_SIGMA, WINDOW_CUT = 1.1, 6.0
# PSF and pixel must have fallen this low at the Nyquist frequency: FWHM > 2.3 px for beta 2.5.
NYQUIST_LIMIT = 0.01
# Largest error in a pixel, over flux times spectrum at the Nyquist frequency (measured).
ALIAS_SHARE = 0.1
# Radial tables are linear in (k r)^(1/4), from 0 to the fourth root of TABLE_REACH.
TABLE_REACH, TABLE_SIZE = 2000.0, 8192


def render(sources: Table, views: Sequence[View]) -> Iterator[NDArray[np.float32]]:
    """Draw the noiseless images of a source catalog, one per band.

    Bright sources whose light is too sharp for the pixels are left to the reference renderer,
    which folds what lies beyond the Nyquist frequency; so are all sources where a PSF is.

    Args:
        sources: Source catalog with pixel positions of this image; sources outside the edge
            contribute the light that falls inside.
        views: PSF, band and limits of each image; the shape is the same for all.

    Yields:
        Counts, shape (H, W).
    """
    if max(_at_nyquist(view) for view in views) > NYQUIST_LIMIT:
        yield from galsim_renderer.render(sources, views)
        return
    parts = components(sources, [view.band for view in views], views[0].pixel_scale)
    is_sharp = np.stack([_is_sharp(parts, n, view) for n, view in enumerate(views)], axis=1)
    smooth = replace(parts, flux=np.where(is_sharp, 0.0, parts.flux)).take(
        ~np.all(is_sharp, axis=1)
    )
    margin = _margin(smooth, views)
    planes = _draw_planes(smooth, views, margin)
    for band, view in enumerate(views):
        image = _convolved(planes[band], view, margin)
        sharp = parts.take(is_sharp[:, band])
        yield image + galsim_renderer.draw(replace(sharp, flux=sharp.flux[:, [band]]), view)


def _at_nyquist(view: View) -> float:
    """Return PSF times pixel at the Nyquist frequency, along the PSF's minor axis."""
    reach = torch.tensor(math.pi * _minor_scale(view))
    return float(_moffat(view.psf.beta)(reach**2)) * 2.0 / math.pi


def _is_sharp(parts: Components, band: int, view: View) -> NDArray[np.bool_]:
    """Tell which profiles have more light beyond the Nyquist frequency than may be left out.

    It is estimated from the spectrum at that frequency along the minor axes of PSF and galaxy.
    """
    shear = np.hypot(*parts.shear.T)
    minor = parts.half_light * np.sqrt((1 - shear) / (1 + shear))
    galaxy = _profiles((math.pi * _tensor(minor)) ** 2, parts.sersic).numpy()
    leak = np.abs(parts.flux[:, band]) * galaxy * _at_nyquist(view) * ALIAS_SHARE
    return np.asarray(leak > view.faint_limit)


def _minor_scale(view: View) -> float:
    """Return the Moffat scale radius along the minor axis [px]."""
    shear = float(np.hypot(*_psf_shear(view.psf)))
    return view.psf.scale_arcsec / view.pixel_scale * math.sqrt((1 - shear) / (1 + shear))


def _margin(parts: Components, views: Sequence[View]) -> int:
    """Return how far [px] light is spread by PSF and window."""
    reaches = [
        psf_radius(flux, view.psf, view.pixel_scale, view.faint_limit).max(initial=0.0)
        for flux, view in zip(parts.flux.T, views, strict=True)
    ]
    return math.ceil(float(max(reaches)) + WINDOW_CUT * WINDOW_SIGMA)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep small kernels on one thread: more are slower, and the bytes must not depend on them."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


@_one_thread()
def _draw_planes(parts: Components, views: Sequence[View], margin: int) -> NDArray[np.float32]:
    """Return the light of all sources under the window, margin included.

    Returns:
        Counts, shape (bands, H + 2 margin, W + 2 margin).
    """
    height, width = views[0].shape
    planes = np.zeros((len(views), height + 2 * margin, width + 2 * margin), np.float32)
    limit = np.array([view.faint_limit for view in views])
    sizes = stamp_sizes(parts, limit)
    half = sizes / 2 + margin + 1
    is_near = (parts.x > -half) & (parts.x < width + half)
    is_near &= (parts.y > -half) & (parts.y < height + half)
    parts, sizes = parts.take(is_near), sizes[is_near]
    for size in np.unique(sizes).tolist():
        _add_stamps(planes, parts.take(sizes == size), size, margin)
    return planes


def stamp_sizes(parts: Components, limit: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the side of the stamp [px] that holds each profile's light above the faint limit.

    Args:
        parts: Profiles, N rows.
        limit: Surface brightness of each band, shape (bands,) [counts/px].

    Returns:
        Shape (N,).
    """
    wanted = 2 * np.ceil(parts.reach(limit) + WINDOW_CUT * WINDOW_SIGMA) + 2
    number = np.searchsorted(STAMP_SIZES, wanted).clip(0, len(STAMP_SIZES) - 1)
    return np.asarray(np.asarray(STAMP_SIZES)[number])


def _add_stamps(planes: NDArray[np.float32], parts: Components, size: int, margin: int) -> None:
    """Draw profiles on stamps of one size and add them to the planes."""
    # The pixel that holds the source is the stamp's centre, size // 2.
    x, y = np.floor(parts.x + 0.5), np.floor(parts.y + 0.5)
    left, top = ((v.astype(int) - size // 2 + margin).tolist() for v in (x, y))
    flux = parts.flux.astype(np.float32)[:, :, None, None]
    step = max(1, BATCH_ELEMENTS // size**2)
    for start in range(0, len(parts), step):
        rows = slice(start, start + step)
        offset = np.stack([parts.x - x, parts.y - y], axis=1)[rows]
        stamps = draw_stamps(parts.take(rows), offset, size).numpy()
        for number, stamp in enumerate(stamps, start=start):
            _add(planes, flux[number] * stamp, top[number], left[number])


def draw_stamps(parts: Components, offset: NDArray[np.float64], size: int) -> Tensor:
    """Draw profiles of unit flux under a Gaussian window.

    Args:
        parts: Profiles, N rows.
        offset: Distance (x, y) of the source from the stamp's pixel size // 2, shape (N, 2) [px].
        size: Side of the stamps [px], even.

    Returns:
        Shape (N, size, size); the sum of each is 1.
    """
    ky, kx = _wave_numbers(size)
    window = torch.exp(-0.5 * WINDOW_SIGMA**2 * (ky[:, None] ** 2 + kx**2))
    a, b, c = (_tensor(v * parts.half_light**2) for v in _quadratic(parts.shear))
    # |S k|^2 of the sheared wave vector, in units of the half-light radius.
    square = a[:, None, None] * kx**2 + c[:, None, None] * ky[:, None] ** 2
    square += (2.0 * b[:, None, None] * ky[:, None]) * kx
    profile = _profiles(square, parts.sersic).mul_(window)
    x, y = _tensor(offset).T
    row_phase = torch.polar(torch.ones(()), -y[:, None] * ky) * _alternating(size)
    col_phase = torch.polar(torch.ones(()), -x[:, None] * kx) * _alternating(size)[: len(kx)]
    spectrum = profile * row_phase[:, :, None] * col_phase[:, None, :]
    stamps: Tensor = torch.fft.irfft2(spectrum, s=(size, size))
    return stamps


def _profiles(square: Tensor, sersic: NDArray[np.float64]) -> Tensor:
    """Return the Fourier transforms of Sersic profiles.

    Args:
        square: (k R_e)^2, shape (N, ...).
        sersic: Sersic indices, shape (N,).
    """
    values = torch.empty_like(square)
    for n in np.unique(sersic).tolist():
        rows = torch.from_numpy(np.flatnonzero(sersic == n))
        values[rows] = _sersic(round(n, 1))(square[rows])
    return values


def _add(planes: NDArray[np.float32], stamp: NDArray[np.float32], top: int, left: int) -> None:
    """Add the part of a stamp, shape (bands, n, n), that lies on the planes."""
    size, (height, width) = stamp.shape[-1], planes.shape[1:]
    low, high = (max(top, 0), max(left, 0)), (min(top + size, height), min(left + size, width))
    if low[0] < high[0] and low[1] < high[1]:
        planes[:, low[0] : high[0], low[1] : high[1]] += stamp[
            :, low[0] - top : high[0] - top, low[1] - left : high[1] - left
        ]


@_one_thread()
def _convolved(plane: NDArray[np.float32], view: View, margin: int) -> NDArray[np.float32]:
    """Convolve a plane with PSF and pixel, in blocks that overlap by the margin on either side.

    Args:
        plane: Counts under the window, shape (H + 2 margin, W + 2 margin).
        view: PSF and pixel.
        margin: Reach of PSF and window [px].

    Returns:
        Counts, shape (H, W).
    """
    height, width = view.shape
    image = np.empty((height, width), np.float32)
    largest = max(BLOCK_PX, BLOCK_REACHES * margin)
    size = int(next_fast_len(min(largest, max(plane.shape)), real=True))
    kernel = _transfer(view, size)
    step = size - 2 * margin
    for top in range(0, height, step):
        for left in range(0, width, step):
            block = torch.from_numpy(plane[top : top + size, left : left + size])
            spectrum = torch.fft.rfft2(block, s=(size, size)).mul_(kernel)
            done = torch.fft.irfft2(spectrum, s=(size, size)).numpy()
            part = image[top : top + step, left : left + step]
            part[:] = done[margin:, margin:][: part.shape[0], : part.shape[1]]
    return image


def _transfer(view: View, size: int) -> Tensor:
    """Return PSF times pixel over the window in k space, shape (size, size // 2 + 1)."""
    ky, kx = _wave_numbers(size)
    scale = view.psf.scale_arcsec / view.pixel_scale
    a, b, c = (float(v) * scale**2 for v in _quadratic(_psf_shear(view.psf)))
    square = a * kx**2 + (c * ky**2)[:, None] + (2.0 * b * ky)[:, None] * kx
    pixel = torch.sinc(ky / (2.0 * math.pi))[:, None] * torch.sinc(kx / (2.0 * math.pi))
    window = torch.exp(-0.5 * WINDOW_SIGMA**2 * (ky[:, None] ** 2 + kx**2))
    return _moffat(view.psf.beta)(square) * pixel / window


def _wave_numbers(size: int) -> tuple[Tensor, Tensor]:
    """Return (ky, kx) of a real transform [rad/px], shapes (size,) and (size // 2 + 1,)."""
    step = 2.0 * math.pi
    return torch.fft.fftfreq(size) * step, torch.fft.rfftfreq(size) * step


def _alternating(size: int) -> Tensor:
    """Return the phase of a shift by half the stamp: +1, -1, +1, ..."""
    return 1.0 - 2.0 * (torch.arange(size) % 2)


def _tensor(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))


def _quadratic(shear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (a, b, c) of |S k|^2 = a kx^2 + 2 b kx ky + c ky^2 for reduced shears (g1, g2).

    S = [[1 + g1, g2], [g2, 1 - g1]] / sqrt(1 - g^2) conserves area.
    """
    g1, g2 = np.moveaxis(shear, -1, 0)
    square = g1**2 + g2**2
    terms = np.stack([1 + 2 * g1 + square, 2 * g2, 1 - 2 * g1 + square])
    return np.asarray(terms / (1 - square))


def _psf_shear(psf: PsfModel) -> NDArray[np.float64]:
    """Return the PSF's reduced shear (g1, g2) from its distortion; |g| = tan(asin(e) / 2)."""
    shear = galsim.Shear(e1=psf.e1, e2=psf.e2)
    return np.array([shear.g1, shear.g2])


@dataclass(frozen=True)
class _Radial:
    """A radial function of k, tabulated in (k r)^(1/4).

    Args:
        values: Function at k r = TABLE_REACH (i / (TABLE_SIZE - 1))^4, shape (TABLE_SIZE,).
        steps: Differences to the next value, the last is 0, same shape.
    """

    values: Tensor
    steps: Tensor

    @classmethod
    def of(cls, profile: galsim.GSObject) -> _Radial:
        """Tabulate a round GalSim profile of unit size."""
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
    return _Radial.of(galsim_renderer.sersic_profile(n, 1.0))


@cache
def _moffat(beta: float) -> _Radial:
    return _Radial.of(galsim.Moffat(beta=beta, scale_radius=1.0))
