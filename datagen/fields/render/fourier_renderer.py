"""The fast renderer: each source is drawn once for all bands, each band is convolved as a whole.

A source's stamp is its galaxy profile under a narrow Gaussian window, the same for all bands:
profile and window are multiplied in k space and many stamps are transformed at once. The stamps
are added to one plane per band, times the band's flux. Every plane is then convolved, in blocks,
with PSF and pixel divided by the window.

A plane holds no frequencies beyond Nyquist, which pixels fold. Window and convolution both have a
soft edge before it; what the two take away is negligible for faint sources and is drawn for bright
ones, band by band on small stamps with twice the sampling.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor

from datagen.fields.render import galsim_renderer
from datagen.fields.render.components import Components, components
from datagen.fields.render.extent import psf_radius
from datagen.fields.render.spectra import Grid, image_spectrum, largest_amplitude, source_spectra
from datagen.fields.render.view import View
from datagen.threads import one_thread

# Sides at which stamps are drawn [px]; the light that is missing at the edges of the last one folds
# back into it.
STAMP_SIZES = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
# Samples of the stamps that are drawn at once; larger batches fall out of the cache.
BATCH_SAMPLES = 2**17
# Side of the blocks in which a plane is convolved, at least this many times the PSF's reach.
BLOCK_PX, BLOCK_REACHES = 512, 8
# Width of the Gaussian window [px], and how many of it its stamp holds.
WINDOW_SIGMA, WINDOW_CUT = 1.1, 6.0
# Middle and width of the soft edge [rad/px], and a stamp that holds its ringing.
EDGE, EDGE_SIGMA = 0.80 * math.pi, 0.07 * math.pi
FINE_GRID = Grid(48, oversampling=2)
SHARP_FWHM_PX = 2.0


def render(sources: Table, views: Sequence[View]) -> Iterator[NDArray[np.float32]]:
    """Draw the noiseless images of a source catalog, one per band.

    Where a PSF is too sharp for twice the sampling, the reference renderer draws.

    Args:
        sources: Source catalog with pixel positions of this image; sources outside the edge
            contribute the light that falls inside.
        views: PSF, band and limits of each image; the shape is the same for all.

    Yields:
        Counts, shape (H, W).
    """
    if any(view.psf.fwhm_arcsec < SHARP_FWHM_PX * view.pixel_scale for view in views):
        yield from galsim_renderer.render(sources, views)
        return
    parts = components(sources, [view.band for view in views], views[0].pixel_scale)
    margin = _margin(parts, views)
    is_bright = _is_bright(parts, views)
    planes = _draw_planes(parts, np.any(is_bright, axis=1), views, margin)
    for band, view in enumerate(views):
        image = _convolved(planes[band], view, margin)
        bright = parts.take(is_bright[:, band])
        _add_fine_light(image, bright.with_flux(bright.flux[:, [band]]), view)
        yield image


def _margin(parts: Components, views: Sequence[View]) -> int:
    """Return how far [px] light is spread by PSF and window."""
    reaches = [
        psf_radius(flux, view.psf, view.pixel_scale, view.faint_limit).max(initial=0.0)
        for flux, view in zip(parts.flux.T, views, strict=True)
    ]
    return math.ceil(float(max(reaches)) + WINDOW_CUT * WINDOW_SIGMA)


def _is_bright(parts: Components, views: Sequence[View]) -> NDArray[np.bool_]:
    """Tell where the soft edges take more than the faint limit from a pixel, shape (N, bands)."""
    # A point in the middle of its pixel has all frequencies in phase there.
    kernels = [_fine_kernel(view).to(torch.complex64) for view in views]
    largest = np.array([float(FINE_GRID.image(kernel)[0, 0]) for kernel in kernels])
    limit = np.array([view.faint_limit for view in views])
    amplitude = largest_amplitude(parts, EDGE)[:, None]
    return np.asarray(np.abs(parts.flux) * amplitude * largest > limit)


@one_thread()
def _draw_planes(
    parts: Components, is_bright: NDArray[np.bool_], views: Sequence[View], margin: int
) -> NDArray[np.float32]:
    """Return the light of all sources under the window; that of bright ones with its ringing.

    Returns:
        Counts, shape (bands, H + 2 margin, W + 2 margin).
    """
    height, width = views[0].shape
    planes = np.zeros((len(views), height + 2 * margin, width + 2 * margin), np.float32)
    sizes = stamp_sizes(parts, np.array([view.faint_limit for view in views]))
    sizes = np.where(is_bright, np.maximum(sizes, FINE_GRID.size), sizes)
    for size in np.unique(sizes).tolist():
        grid = Grid(size)
        _add_stamps(planes, parts.take(sizes == size), grid, _gaussian(grid) * _edge(grid), margin)
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


def _gaussian(grid: Grid) -> Tensor:
    return torch.exp(-0.5 * WINDOW_SIGMA**2 * grid.k_square)


def _edge(grid: Grid) -> Tensor:
    """Return the soft edge: 1 at low, 0 at high frequencies."""
    return 0.5 * torch.erfc((grid.k_square.sqrt() - EDGE) / (math.sqrt(2.0) * EDGE_SIGMA))


def _add_stamps(
    planes: NDArray[np.float32], parts: Components, grid: Grid, kernel: Tensor, margin: int = 0
) -> None:
    """Draw profiles, convolved with a kernel, on stamps of one size and add them to the planes.

    Args:
        planes: Counts, shape (bands, H + 2 margin, W + 2 margin); changed in place.
        parts: Profiles with a flux for each plane.
        grid: Stamps and their sampling.
        kernel: Spectrum on the grid.
        margin: Where pixel 0 lies on the planes.
    """
    parts = parts.take(_is_near(parts, grid.size, planes, margin))
    # Batches of one kind are transformed faster: points, then one Sersic index after another.
    parts = parts.take(np.argsort(np.where(parts.half_light > 0, parts.sersic, 0.0), kind="stable"))
    # The pixel that holds the source is the stamp's centre.
    centre = np.floor(np.stack([parts.x, parts.y], axis=1) + 0.5)
    offset = np.stack([parts.x, parts.y], axis=1) - centre
    corners = (centre.astype(int) - grid.size // 2 + margin).tolist()
    flux = parts.flux.astype(np.float32)
    step = max(1, BATCH_SAMPLES // grid.n_samples**2)
    for start in range(0, len(parts), step):
        rows = slice(start, start + step)
        spectra = source_spectra(parts.take(rows), offset[rows], grid).mul_(kernel)
        for number, stamp in enumerate(grid.image(spectra).numpy(), start=start):
            left, top = corners[number]
            _add(planes, flux[number], stamp, top, left)


def _is_near(
    parts: Components, size: int, planes: NDArray[np.float32], margin: int
) -> NDArray[np.bool_]:
    """Tell whose stamps reach into the planes."""
    half, (height, width) = size / 2 + margin + 1, np.array(planes.shape[1:]) - 2 * margin
    is_near = (parts.x > -half) & (parts.x < width + half)
    return np.asarray(is_near & (parts.y > -half) & (parts.y < height + half))


def _add(
    planes: NDArray[np.float32],
    flux: NDArray[np.float32],
    stamp: NDArray[np.float32],
    top: int,
    left: int,
) -> None:
    """Add the part of a stamp, shape (n, n), that lies on the planes, times the flux of each."""
    size, (height, width) = len(stamp), planes.shape[1:]
    low, high = (max(top, 0), max(left, 0)), (min(top + size, height), min(left + size, width))
    if low[0] < high[0] and low[1] < high[1]:
        inside = stamp[low[0] - top : high[0] - top, low[1] - left : high[1] - left]
        # In strips: a large stamp times all fluxes would need as much memory as the planes.
        step = max(1, BATCH_SAMPLES // inside.shape[1])
        for start in range(0, len(inside), step):
            strip = flux[:, None, None] * inside[start : start + step]
            first = low[0] + start
            planes[:, first : first + strip.shape[1], low[1] : high[1]] += strip


@one_thread()
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
    largest = min(max(BLOCK_PX, BLOCK_REACHES * margin), max(plane.shape))
    size = int(next_fast_len(largest, real=True))
    grid = Grid(size)
    kernel = image_spectrum(view, grid) * _edge(grid) / _gaussian(grid)
    step = size - 2 * margin
    for top in range(0, height, step):
        for left in range(0, width, step):
            block = torch.from_numpy(plane[top : top + size, left : left + size])
            spectrum = torch.fft.rfft2(block, s=(size, size)).mul_(kernel)
            done = torch.fft.irfft2(spectrum, s=(size, size)).numpy()
            part = image[top : top + step, left : left + step]
            part[:] = done[margin:, margin:][: part.shape[0], : part.shape[1]]
    return image


@one_thread()
def _add_fine_light(image: NDArray[np.float32], bright: Components, view: View) -> None:
    """Add what the soft edges took from bright sources.

    Args:
        image: Counts of one band, shape (H, W); changed in place.
        bright: Profiles with their flux in this band.
        view: PSF and pixel.
    """
    _add_stamps(image[None], bright, FINE_GRID, _fine_kernel(view))


def _fine_kernel(view: View) -> Tensor:
    """Return the spectrum of PSF and pixel beyond the soft edges, on `FINE_GRID`."""
    return image_spectrum(view, FINE_GRID) * (1.0 - _edge(FINE_GRID) ** 2)
