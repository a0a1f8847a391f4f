"""Images of components: each is drawn once with unit flux, under the PSF, for all bands."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import galsim
import numpy as np

from datagen.errors import ConfigError
from datagen.galaxies.streams import Array

# Stamps are this many times as wide as what holds all but GalSim's folding threshold of the light.
_MARGIN = 2
# Largest side of a Fourier transform, which then takes half a gigabyte.
_MOST_POINTS = 8192


@dataclass(frozen=True)
class Component:
    """A part of an image whose shape is the same in all bands.

    Args:
        profile: Of unit flux, about the centre of the image [arcsec].
        fluxes: (bands,) [nanomaggies].
        place: Where its middle is seen, x and y from the centre of the image [arcsec].
        is_whole: Whether it is drawn on the whole image, or on a stamp that holds its light.
    """

    profile: galsim.GSObject
    fluxes: Array
    place: tuple[float, float] = (0.0, 0.0)
    is_whole: bool = True


def moffat(fwhm: float, beta: float, g1: float = 0.0, g2: float = 0.0) -> galsim.GSObject:
    """Return a PSF of unit flux, I ~ (1 + (r / r_d)^2)^-beta (Moffat 1969, A&A 3, 455).

    Args:
        fwhm: Full width at half maximum [arcsec].
        beta: Slope of the wings.
        g1: Reduced shear along x.
        g2: Along the diagonal.
    """
    return galsim.Moffat(beta=beta, fwhm=fwhm).shear(g1=g1, g2=g2)


def draw(
    components: Iterable[Component], psf: galsim.GSObject, side: int, scale: float, n_bands: int
) -> Array:
    """Draw components and combine them over bands, which is linear.

    Args:
        components: What is seen.
        psf: PSF of unit flux [arcsec].
        side: Of the image [px].
        scale: [arcsec/px].
        n_bands: Number of bands.

    Returns:
        Noiseless image, (bands, side, side), in the unit of the fluxes.

    Raises:
        ConfigError: A component is so wide, or the PSF so narrow, that it would take much memory.
    """
    image = np.zeros((n_bands, side, side))
    for part in components:
        seen = galsim.Convolve([part.profile, psf])
        width = side if part.is_whole else _MARGIN * int(seen.getGoodImageSize(scale))
        bounds = _bounds(part.place, width, side, scale)
        if bounds is None:
            continue
        _check_size(seen, width * scale)
        stamp = galsim.ImageD(bounds)
        middle = 0.5 * (side - 1)
        x, y = (middle + value / scale for value in part.place)
        seen.drawImage(stamp, scale=scale, center=galsim.PositionD(x, y))
        rows = slice(bounds.ymin, bounds.ymax + 1)
        columns = slice(bounds.xmin, bounds.xmax + 1)
        image[:, rows, columns] += part.fluxes[:, None, None] * stamp.array
    return image


def _check_size(seen: galsim.GSObject, width: float) -> None:
    """Raise `ConfigError` where the transform of a component needs too many points."""
    n_points = max(2.0 * math.pi / seen.stepk, width) * seen.maxk / math.pi
    if n_points > _MOST_POINTS:
        raise ConfigError(
            f"expected images that are drawn with transforms of at most {_MOST_POINTS} points a "
            f"side, but one needs {n_points:.0f}; take a larger galaxy.imaging.fwhm, a smaller "
            "side, or objects that are smaller or farther away",
            value=n_points,
            allowed=f"<= {_MOST_POINTS}",
        )


def _bounds(
    place: tuple[float, float], width: int, side: int, scale: float
) -> galsim.BoundsI | None:
    """Return the 0-based pixels of an image that a stamp covers; None where there are none."""
    edges = []
    for value in place:
        middle = 0.5 * (side - 1) + value / scale
        low = max(round(middle - 0.5 * width), 0)
        high = min(round(middle + 0.5 * width), side - 1)
        if low > high:
            return None
        edges.append((low, high))
    (x_low, x_high), (y_low, y_high) = edges
    return galsim.BoundsI(x_low, x_high, y_low, y_high)
