"""The reference renderer: every source is drawn with GalSim, in k space.

For each source the galaxy's k-image is multiplied with that of PSF and pixel and transformed back.
The k-image of PSF and pixel is evaluated once per image and stamp size, because it is the slowest
part (a Moffat profile needs a Bessel function for every k).
"""

from __future__ import annotations

from dataclasses import dataclass

import galsim
import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen.fields.psf import PsfModel
from datagen.fields.render.extent import psf_radius, sersic_radius
from datagen.fields.render.view import View

# Sizes at which FFTs are fast; sources that need more are cut at the last one.
STAMP_SIZES = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
# GalSim keeps tables for 100 distinct Sersic indices; a finer grid would rebuild them all the time.
SERSIC_STEP = 0.1
SERSIC_RANGE = (0.3, 6.2)
MAX_SHEAR = 0.95
# Where the kernel is cut; with GalSim's default 1e-3 bright stars err by 4e-4 of their peak.
KERNEL_CUT = 1e-4


@dataclass(frozen=True)
class _Plan:
    """Columns of the sources that reach into the image, as plain arrays of shape (n_sources,)."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    flux: NDArray[np.float64]
    half_light: NDArray[np.float64]
    dev_fraction: NDArray[np.float64]
    sersic: NDArray[np.float64]
    g1: NDArray[np.float64]
    g2: NDArray[np.float64]
    is_star: NDArray[np.bool_]
    stamp: NDArray[np.int64]


def render(sources: Table, view: View) -> NDArray[np.float32]:
    """Draw the noiseless image of a source catalog.

    Args:
        sources: Source catalog with pixel positions of this image; sources outside the edge
            contribute the light that falls inside.
        view: Shape, PSF, band and limits.

    Returns:
        Counts, shape (H, W).
    """
    image = np.zeros(view.shape, np.float32)
    plan = _plan(sources, view)
    kernels = _Kernels(view.psf, view.pixel_scale)
    for row in range(len(plan.x)):
        stamp = _draw(plan, row, kernels)
        _add(image, stamp, round_half_up(plan.x[row]), round_half_up(plan.y[row]))
    return image


def round_half_up(value: float) -> int:
    """Return the pixel that holds a position, without rounding to even."""
    return int(np.floor(value + 0.5))


def stamp_sizes(sources: Table, view: View) -> NDArray[np.int64]:
    """Return the side of the stamp [px] that holds each source's light above the faint limit.

    The convolved profile reaches no further than the galaxy along its major axis plus the PSF of
    the same flux; half the limit is granted to either.
    """
    flux = _column(sources, f"FLUX_{view.band.upper()}")
    limit = view.faint_limit / 2.0
    radius = psf_radius(flux, view.psf, view.pixel_scale, limit)
    shear = np.hypot(_column(sources, "G1"), _column(sources, "G2")).clip(0, MAX_SHEAR)
    stretch = np.sqrt((1 + shear) / (1 - shear))
    half_light = _column(sources, "HLR") / view.pixel_scale
    reach = np.maximum(*(sersic_radius(f, half_light, n, limit) for f, n in _parts(sources, flux)))
    radius += np.where(_column(sources, "SOURCE_TYPE") == 1, 0.0, reach * stretch)
    wanted = np.ceil(2 * radius) + 2
    number = np.searchsorted(STAMP_SIZES, wanted).clip(0, len(STAMP_SIZES) - 1)
    return np.asarray(np.asarray(STAMP_SIZES)[number])


def _parts(
    sources: Table, flux: NDArray[np.float64]
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return (flux, Sersic index) of the two components of each galaxy."""
    fraction, n = _column(sources, "FRACDEV"), _quantised(_column(sources, "SERSIC_N"))
    is_given = np.isfinite(n)
    return [
        (np.where(is_given, flux, flux * fraction), np.where(is_given, n, 4.0)),
        (np.where(is_given, 0.0, flux * (1 - fraction)), np.ones_like(flux)),
    ]


def _quantised(n: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round Sersic indices to the grid; nan where none is given (nan or <= 0)."""
    known = np.where(n > 0, n, np.nan)
    return np.asarray(np.round(known.clip(*SERSIC_RANGE) / SERSIC_STEP) * SERSIC_STEP)


def _plan(sources: Table, view: View) -> _Plan:
    """Select the sources whose stamps overlap the image."""
    stamp = stamp_sizes(sources, view)
    x, y = _column(sources, "X"), _column(sources, "Y")
    flux = _column(sources, f"FLUX_{view.band.upper()}")
    height, width = view.shape
    half = stamp / 2 + 1
    is_near = (x > -half) & (x < width + half) & (y > -half) & (y < height + half) & (flux != 0)
    return _Plan(
        x=x[is_near],
        y=y[is_near],
        flux=flux[is_near],
        half_light=_column(sources, "HLR")[is_near] / view.pixel_scale,
        dev_fraction=_column(sources, "FRACDEV")[is_near],
        sersic=_quantised(_column(sources, "SERSIC_N"))[is_near],
        g1=_column(sources, "G1")[is_near],
        g2=_column(sources, "G2")[is_near],
        is_star=_column(sources, "SOURCE_TYPE")[is_near] == 1,
        stamp=stamp[is_near],
    )


def _column(sources: Table, name: str) -> NDArray[np.float64]:
    return np.asarray(sources[name], np.float64)


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


def _draw(plan: _Plan, row: int, kernels: _Kernels) -> NDArray[np.float32]:
    """Draw one source on its stamp; the stamp's centre is the pixel that holds the source."""
    size = int(plan.stamp[row])
    kernel, kimage = kernels.get(size)
    x, y = plan.x[row], plan.y[row]
    profile = _point(plan, row) if plan.is_star[row] else _galaxy(plan, row)
    profile = profile.shift(x - round_half_up(x), y - round_half_up(y))
    profile.drawKImage(kimage, recenter=False)
    kimage *= kernel
    return kernels.finish(kimage, size)


def _point(plan: _Plan, row: int) -> galsim.GSObject:
    return galsim.DeltaFunction(flux=plan.flux[row])


def _galaxy(plan: _Plan, row: int) -> galsim.GSObject:
    """Return one galaxy in pixel units: Sersic where n is given, else a FRACDEV mixture."""
    size, flux = plan.half_light[row], plan.flux[row]
    if size <= 0:
        return _point(plan, row)
    if np.isfinite(plan.sersic[row]):
        profile = _sersic(float(plan.sersic[row]), size, flux)
    else:
        fraction = plan.dev_fraction[row]
        parts = [_sersic(n, size, flux * f) for n, f in ((4, fraction), (1, 1 - fraction)) if f > 0]
        profile = parts[0] if len(parts) == 1 else galsim.Add(parts)
    shear = complex(plan.g1[row], plan.g2[row])
    if abs(shear) > MAX_SHEAR:
        shear *= MAX_SHEAR / abs(shear)
    return profile.shear(g1=shear.real, g2=shear.imag)


def _sersic(n: float, size: float, flux: float) -> galsim.GSObject:
    """Return a round profile; the special cases have faster formulas than the general one."""
    if n == 1:
        return galsim.Exponential(half_light_radius=size, flux=flux)
    if n == 4:
        return galsim.DeVaucouleurs(half_light_radius=size, flux=flux)
    return galsim.Sersic(n=round(n, 1), half_light_radius=size, flux=flux)


def _add(image: NDArray[np.float32], stamp: NDArray[np.float32], x: int, y: int) -> None:
    """Add the part of a stamp, centred on pixel (x, y), that lies inside the image."""
    half, (height, width) = stamp.shape[0] // 2, image.shape
    top, left = y - half, x - half
    rows = slice(max(top, 0), min(top + stamp.shape[0], height))
    cols = slice(max(left, 0), min(left + stamp.shape[1], width))
    if rows.start < rows.stop and cols.start < cols.stop:
        inside = stamp[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
        image[rows, cols] += inside
