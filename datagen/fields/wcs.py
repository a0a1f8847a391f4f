"""Tangent-plane coordinates: sky <-> pixels, east to the left, 0-based pixel centres.

Pixel positions are `(x, y)` with x along columns and y along rows; the centre of the first pixel is
(0, 0). FITS counts from 1, so `CRPIX` is one larger.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray

from datagen.files import Card


def tan_wcs(ra_deg: float, dec_deg: float, shape: tuple[int, int], pixel_scale: float) -> WCS:
    """Return a TAN WCS whose reference point is the centre of the image.

    Calabretta & Greisen 2002, doi:10.1051/0004-6361:20021327. North is up, east is left.

    Args:
        ra_deg: Right ascension of the image centre [deg, ICRS].
        dec_deg: Declination of the image centre [deg, ICRS].
        shape: Image shape (H, W) [px].
        pixel_scale: [arcsec/px].
    """
    # Attributes are set one by one: going through a FITS header takes ten times as long.
    cards: Mapping[str, Any] = tan_cards(ra_deg, dec_deg, shape, pixel_scale)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = cards["CTYPE1"], cards["CTYPE2"]
    wcs.wcs.cunit = cards["CUNIT1"], cards["CUNIT2"]
    wcs.wcs.crval = cards["CRVAL1"], cards["CRVAL2"]
    wcs.wcs.crpix = cards["CRPIX1"], cards["CRPIX2"]
    wcs.wcs.cd = [[cards["CD1_1"], cards["CD1_2"]], [cards["CD2_1"], cards["CD2_2"]]]
    wcs.wcs.radesys = cards["RADESYS"]
    wcs.wcs.set()
    return wcs


def tan_cards(
    ra_deg: float, dec_deg: float, shape: tuple[int, int], pixel_scale: float
) -> dict[str, Card]:
    """Return the header cards of `tan_wcs` as plain values."""
    height, width = shape
    step_deg = pixel_scale / 3600.0
    return {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRVAL1": float(ra_deg),
        "CRVAL2": float(dec_deg),
        "CRPIX1": (width + 1) / 2.0,
        "CRPIX2": (height + 1) / 2.0,
        "CD1_1": -step_deg,
        "CD1_2": 0.0,
        "CD2_1": 0.0,
        "CD2_2": step_deg,
        "RADESYS": "ICRS",
    }


def sky_to_pixel(
    wcs: WCS, ra_deg: ArrayLike, dec_deg: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return 0-based pixel positions (x, y), each shape (n,), of sky positions [deg]."""
    x, y = wcs.wcs_world2pix(np.atleast_1d(ra_deg), np.atleast_1d(dec_deg), 0)
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


def pixel_to_sky(
    wcs: WCS, x: ArrayLike, y: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sky positions (ra, dec) [deg], each shape (n,), of 0-based pixel positions."""
    ra, dec = wcs.wcs_pix2world(np.atleast_1d(x), np.atleast_1d(y), 0)
    return np.asarray(ra, np.float64), np.asarray(dec, np.float64)


def north_angle(wcs: WCS, ra_deg: ArrayLike, dec_deg: ArrayLike) -> NDArray[np.float64]:
    """Return the direction of north [rad, from +x counter-clockwise], shape (n,).

    Away from the reference point of a TAN projection north is not exactly up; an orientation that
    is moved from one projection to another turns by the difference of the two angles.
    """
    step_deg = 1e-4
    dec = np.atleast_1d(np.asarray(dec_deg, np.float64))
    # Half a step to either side, so that the pole itself is not crossed by a source at the pole.
    x0, y0 = sky_to_pixel(wcs, ra_deg, dec - step_deg / 2)
    x1, y1 = sky_to_pixel(wcs, ra_deg, np.minimum(dec + step_deg / 2, 90.0))
    return np.arctan2(y1 - y0, x1 - x0)


def turn_shear(
    g1: ArrayLike, g2: ArrayLike, angle_rad: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn shears counter-clockwise by an angle: g exp(2i angle)."""
    turned = (np.asarray(g1) + 1j * np.asarray(g2)) * np.exp(2j * np.asarray(angle_rad))
    return turned.real, turned.imag
