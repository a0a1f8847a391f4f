"""The reference renderer: every source is drawn with GalSim, in k space.

For each source the galaxy's k-image is multiplied with that of PSF and pixel and transformed back.
The k-image of PSF and pixel is evaluated once per image and stamp size, because it is the slowest
part (a Moffat profile needs a Bessel function for every k).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import galsim
import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen.fields.psf import PsfModel
from datagen.fields.render.components import (
    DE_VAUCOULEURS,
    EXPONENTIAL,
    Components,
    components,
)
from datagen.fields.render.extent import psf_radius
from datagen.fields.render.view import View

# Sizes at which FFTs are fast; the light that is missing at the edges of the last one folds back.
STAMP_SIZES = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
# Where the kernel is cut; with GalSim's default 1e-3 bright stars err by 4e-4 of their peak,
KERNEL_CUT = 1e-5


def render(sources: Table, views: Sequence[View]) -> Iterator[NDArray[np.float32]]:
    """Draw the noiseless images of a source catalog, one per band.

    Args:
        sources: Source catalog with pixel positions of this image; sources outside the edge
            contribute the light that falls inside.
        views: Shape, PSF, band and limits of each image.

    Yields:
        Counts, shape (H, W).
    """
    for view in views:
        yield draw(components(sources, [view.band], view.pixel_scale), view)


def draw(parts: Components, view: View) -> NDArray[np.float32]:
    """Draw the noiseless image of profiles with one flux each, shape (H, W)."""
    image = np.zeros(view.shape, np.float32)
    kernels = _Kernels(view.psf, view.pixel_scale)
    sizes = stamp_sizes(parts, view)
    for row in np.flatnonzero(_is_near(parts, sizes, view.shape)).tolist():
        stamp = _draw_stamp(parts, row, int(sizes[row]), kernels)
        _add(image, stamp, round_half_up(parts.x[row]), round_half_up(parts.y[row]))
    return image


def round_half_up(value: float) -> int:
    """Return the pixel that holds a position, without rounding to even."""
    return int(np.floor(value + 0.5))


def stamp_sizes(parts: Components, view: View) -> NDArray[np.int64]:
    """Return the side of the stamp [px] that holds each profile's light above the faint limit.

    The convolved profile reaches no further than the galaxy along its major axis plus the PSF of
    the same flux; half the limit is granted to either.
    """
    limit = view.faint_limit / 2.0
    radius = psf_radius(parts.flux[:, 0], view.psf, view.pixel_scale, limit)
    wanted = np.ceil(2 * (radius + parts.reach(np.array([limit])))) + 2
    number = np.searchsorted(STAMP_SIZES, wanted).clip(0, len(STAMP_SIZES) - 1)
    return np.asarray(np.asarray(STAMP_SIZES)[number])


def _is_near(
    parts: Components, sizes: NDArray[np.int64], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Tell whose stamps overlap the image."""
    half, (height, width) = sizes / 2 + 1, shape
    is_near = (parts.x > -half) & (parts.x < width + half)
    return np.asarray(is_near & (parts.y > -half) & (parts.y < height + half))


class _Kernels:
    """The k-images of PSF and pixel, one per stamp size, in pixel units."""

    def __init__(self, psf: PsfModel, pixel_scale: float) -> None:
        profile = psf.galsim().dilate(1.0 / pixel_scale)
        accurate = galsim.Convolve([profile, galsim.Pixel(1.0)])
        self._profile = accurate.withGSParams(maxk_threshold=KERNEL_CUT)
        self._kernels: dict[int, tuple[galsim.Image, galsim.Image]] = {}

    def get(self, size: int) -> tuple[galsim.Image, galsim.Image]:
        """Return the kernel of a stamp size and a k-image of the same layout to draw on."""
        if size not in self._kernels:
            step = 2.0 * np.pi / size
            # Beyond the pixel's Nyquist frequency the k-image is wrapped, not cut.
            reach = max(size, 2 * int(np.ceil(self._profile.maxk / step)))
            bounds = galsim.BoundsI(0, reach // 2, -(reach // 2), reach // 2)
            kernel = galsim.ImageCF(bounds, scale=step)
            self._profile.drawKImage(kernel, recenter=False)
            self._kernels[size] = (kernel, kernel.copy())
        return self._kernels[size]

    def finish(self, kimage: galsim.Image, size: int) -> NDArray[np.float32]:
        """Transform a k-image to a stamp, shape (size, size), centre at size // 2."""
        bounds = galsim.BoundsI(-(size // 2), size // 2 - 1, -(size // 2), size // 2 - 1)
        stamp = galsim.ImageF(bounds, scale=1.0)
        self._profile.drawFFT_finish(stamp, kimage, size, add_to_image=False)
        return np.asarray(stamp.array)


def _draw_stamp(parts: Components, row: int, size: int, kernels: _Kernels) -> NDArray[np.float32]:
    """Draw one profile on its stamp; the stamp's centre is the pixel that holds the source."""
    kernel, kimage = kernels.get(size)
    x, y = parts.x[row], parts.y[row]
    profile = _profile(parts, row).shift(x - round_half_up(x), y - round_half_up(y))
    profile.drawKImage(kimage, recenter=False)
    kimage *= kernel
    return kernels.finish(kimage, size)


def _profile(parts: Components, row: int) -> galsim.GSObject:
    """Return one profile in pixel units."""
    half_light, flux = parts.half_light[row], parts.flux[row, 0]
    if half_light == 0:
        return galsim.DeltaFunction(flux=flux)
    g1, g2 = parts.shear[row]
    return flux * sersic_profile(float(parts.sersic[row]), half_light).shear(g1=g1, g2=g2)


def sersic_profile(n: float, half_light: float) -> galsim.GSObject:
    """Return a round profile of unit flux; the special cases have faster formulas."""
    if n == EXPONENTIAL:
        return galsim.Exponential(half_light_radius=half_light)
    if n == DE_VAUCOULEURS:
        return galsim.DeVaucouleurs(half_light_radius=half_light)
    return galsim.Sersic(n=round(n, 1), half_light_radius=half_light)


def _add(image: NDArray[np.float32], stamp: NDArray[np.float32], x: int, y: int) -> None:
    """Add the part of a stamp, centred on pixel (x, y), that lies inside the image."""
    half, (height, width) = stamp.shape[0] // 2, image.shape
    top, left = y - half, x - half
    rows = slice(max(top, 0), min(top + stamp.shape[0], height))
    cols = slice(max(left, 0), min(left + stamp.shape[1], width))
    if rows.start < rows.stop and cols.start < cols.stop:
        inside = stamp[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
        image[rows, cols] += inside
