"""The central source of an image and its Petrosian radii."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.stats import sigma_clipped_stats
from numpy.typing import NDArray
from scipy import ndimage

from datagen.stamps.cropping import middle
from datagen.stamps.drops import DroppedError

Values = NDArray[np.float64]

# Surface brightness at the Petrosian radius, relative to the mean inside (Blanton et al. 2001,
# doi:10.1086/320405); the flux is that within twice the radius.
ETA = 0.2
N_RADII = 2.0
# Growth curves are differenced between r / STEP and r * STEP.
STEP = 1.2
# Noise above the sky at which pixels belong to a source, after smoothing, and its smallest area.
THRESHOLD, SMOOTHING_PX, MIN_AREA_PX = 3.0, 1.0, 5
# Sources that touch are told apart where they do not touch above one of these shares of the peak.
SHARES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
# Side of the window in which a peak is the brightest pixel; by how much other sources are grown.
PEAK_PX, GROWTH_PX = 7, 3
# Width of the window under which the centre is found, and how often it is moved.
WINDOW_PX, N_STEPS = 2.0, 8
# Rings of which less lies in the image end the profile.
MIN_COVERAGE = 0.1
# Pixels so near to the centre are divided into N_FINE x N_FINE squares; rings are so wide.
INNER_PX, N_FINE, WIDTH_PX = 16.0, 6, 0.25


@dataclass(frozen=True)
class Source:
    """The source in the middle of an image.

    Args:
        centre: Its row and column [px].
        others: (h, w), where other sources are.
    """

    centre: tuple[float, float]
    others: NDArray[np.bool_]


@dataclass(frozen=True)
class Petrosian:
    """Sizes of a source.

    Args:
        radius: Where the surface brightness is `ETA` of the mean inside [px].
        r50: Holds half of the flux [px].
        r90: Holds 90 % of it [px].
        flux: Within `N_RADII` radii [unit of the pixels].
    """

    radius: float
    r50: float
    r90: float
    flux: float


def sky_of(plane: Values) -> tuple[float, float]:
    """Return median and standard deviation of the sky, from pixels within 3 sigma of it."""
    _, median, sigma = sigma_clipped_stats(plane, sigma=3.0, maxiters=10)
    return float(median), float(sigma)


def central_source(plane: Values) -> Source:
    """Find the source at the middle of an image.

    Pixels 3 sigma above the sky, after smoothing, form sources where they touch. The central one
    holds the middle or lies nearest to it, within an eighth of the image; its peak is the one to
    which brightness rises from there.

    Args:
        plane: (h, w), finite.

    Raises:
        DroppedError: There is none.
    """
    smooth = ndimage.gaussian_filter(plane, SMOOTHING_PX)
    sky, sigma = sky_of(smooth)
    labels, n_sources = ndimage.label(smooth > sky + THRESHOLD * sigma)
    areas = np.bincount(labels.ravel(), minlength=n_sources + 1)
    is_source = (areas >= MIN_AREA_PX) & (np.arange(n_sources + 1) > 0)
    rows, columns = np.nonzero(is_source[labels])
    row, column = middle(plane.shape)
    distance = np.hypot(rows - row, columns - column)
    if not distance.size or distance.min() > max(min(plane.shape) / 8, MIN_AREA_PX):
        raise DroppedError("there is no source in the middle of the image", "source")
    start = (int(rows[distance.argmin()]), int(columns[distance.argmin()]))
    peak = _uphill(smooth, start)
    inside = _own_part(smooth - sky, labels == labels[start], peak)
    others = ndimage.binary_dilation(is_source[labels] & ~inside, iterations=GROWTH_PX) & ~inside
    return Source(_centroid(plane - sky, peak), others)


def _uphill(smooth: Values, start: tuple[int, int]) -> tuple[int, int]:
    """Return the peak that is reached by going to the brightest pixel of windows."""
    row, column = start
    while True:
        top, left = max(row - PEAK_PX // 2, 0), max(column - PEAK_PX // 2, 0)
        window = smooth[top : row + PEAK_PX // 2 + 1, left : column + PEAK_PX // 2 + 1]
        down, right = (int(k) for k in np.unravel_index(window.argmax(), window.shape))
        if (top + down, left + right) == (row, column):
            return row, column
        row, column = top + down, left + right


def _own_part(
    smooth: Values, inside: NDArray[np.bool_], peak: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return the part of touching sources that belongs to a peak: what lies nearest to its core.

    Cores are what is above a share of the peak, the first one above which no brighter peak touches.
    """
    for share in SHARES:
        cores, n_cores = ndimage.label(inside & (smooth > share * smooth[peak]))
        own = cores == cores[peak]
        if smooth[own].max() > smooth[peak]:
            continue
        if n_cores == 1:
            break
        areas = np.bincount(cores.ravel())
        cores[areas[cores] < MIN_AREA_PX] = 0
        cores[own] = n_cores + 1
        nearest = ndimage.distance_transform_edt(
            cores == 0, return_distances=False, return_indices=True
        )
        part: NDArray[np.bool_] = inside & (cores[tuple(nearest)] == n_cores + 1)
        return part
    return inside


def _centroid(plane: Values, peak: tuple[int, int]) -> tuple[float, float]:
    """Return the centroid under a Gaussian window that follows it, beginning at the peak.

    As XWIN_IMAGE and YWIN_IMAGE of SExtractor (Bertin & Arnouts 1996, doi:10.1051/aas:1996164).
    """
    rows, columns = (slice(max(at - 6, 0), at + 7) for at in peak)
    part = plane[rows, columns]
    height, width = part.shape
    grid = np.mgrid[rows.start : rows.start + height, columns.start : columns.start + width]
    centre = np.array(peak, np.float64)
    for _ in range(N_STEPS):
        offset = grid - centre[:, None, None]
        weight = part * np.exp(-(offset**2).sum(0) / (2 * WINDOW_PX**2))
        # Twice the offset, since the window pulls it back.
        step = 2 * (weight * offset).sum((1, 2)) / weight.sum()
        if not np.isfinite(step).all() or np.abs(centre + step - peak).max() > WINDOW_PX:
            return float(peak[0]), float(peak[1])
        centre += step
    return float(centre[0]), float(centre[1])


def growth_curve(plane: Values, source: Source) -> tuple[Values, Values]:
    """Return radii [px] and the flux inside each, other sources and borders made up for.

    A ring counts with the mean of its pixels that are seen.

    Args:
        plane: (h, w), the sky subtracted.
        source: Where its centre and the other sources are.
    """
    radius, pixel, area = _squares(plane.shape, source.centre)
    ring = (radius / WIDTH_PX).astype(np.int64)
    edges = np.arange(ring.max() + 2) * WIDTH_PX
    border = (
        min(min(at, n - 1 - at) for at, n in zip(source.centre, plane.shape, strict=True)) + 0.5
    )
    # Inside, pixels make up the ring; at the border they are only a part of it.
    whole = np.where(edges[1:] <= border, np.bincount(ring, area), np.pi * np.diff(edges**2))
    area = area * ~source.others.ravel()[pixel]
    seen = np.bincount(ring, area)
    is_seen = seen > MIN_COVERAGE * whole
    last = int(np.nonzero(is_seen)[0].max()) + 1
    sums = np.bincount(ring, area * plane.ravel()[pixel])
    known = np.nonzero(is_seen)[0]
    mean = np.interp(np.arange(last), known, sums[known] / seen[known])
    return edges[: last + 1], np.concatenate([[0.0], np.cumsum(mean * whole[:last])])


def _squares(
    shape: tuple[int, int], centre: tuple[float, float]
) -> tuple[Values, NDArray[np.int64], Values]:
    """Divide pixels; return distance from the centre [px], number of the pixel, and area [px^2]."""
    y, x = (np.arange(n) - at for n, at in zip(shape, centre, strict=True))
    radius = np.hypot(y[:, None], x).ravel()
    inner, outer = np.nonzero(radius <= INNER_PX)[0], np.nonzero(radius > INNER_PX)[0]
    offsets = (np.arange(N_FINE) + 0.5) / N_FINE - 0.5
    row, column = np.unravel_index(inner, shape)
    fine = np.hypot(y[row][:, None, None] + offsets[:, None], x[column][:, None, None] + offsets)
    return (
        np.concatenate([radius[outer], fine.ravel()]),
        np.concatenate([outer, np.repeat(inner, N_FINE**2)]),
        np.concatenate([np.ones(len(outer)), np.full(fine.size, N_FINE**-2)]),
    )


def petrosian(plane: Values, source: Source) -> Petrosian:
    """Measure a source in circles about its centre.

    With eta(r) = I(r) / <I>(< r), the Petrosian radius is where eta falls to 0.2. With the flux F
    inside r, eta is d ln F / (2 d ln r), which changes slowly with r. r50 and r90 hold these shares
    of the flux within twice the radius, or within the image where that ends before.

    Args:
        plane: (h, w), the sky subtracted.
        source: What to measure.

    Raises:
        DroppedError: There is no flux, or eta stays above 0.2 in the image.
    """
    radii, flux = growth_curve(plane, source)
    at = radii[(radii >= STEP) & (radii * STEP <= radii[-1])]
    inner, outer = (np.interp(at * factor, radii, flux) for factor in (1 / STEP, STEP))
    with np.errstate(invalid="ignore", divide="ignore"):
        eta = np.log(outer / inner) / (4 * np.log(STEP))
    below = np.nonzero(eta <= ETA)[0]
    if not below.size or below[0] == 0 or not (inner[: below[0] + 1] > 0).all():
        raise DroppedError(f"no radius where the surface brightness is {ETA} of the mean", "source")
    pair = slice(below[0] - 1, below[0] + 1)
    radius = float(np.interp(-ETA, -eta[pair], at[pair]))
    total = float(np.interp(N_RADII * radius, radii, flux))
    # Noise lets the curve fall here and there.
    rising = np.maximum.accumulate(flux)
    r50, r90 = (float(np.interp(share * total, rising, radii)) for share in (0.5, 0.9))
    return Petrosian(radius, r50, r90, total)
