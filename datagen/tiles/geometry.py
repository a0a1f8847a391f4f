"""World coordinates of survey tiles and of their score maps, and vectors on the sphere."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from numpy.typing import ArrayLike, NDArray

from datagen.errors import DataFormatError

_CARDS = re.compile(
    r"WCSAXES|C(TYPE|UNIT|RVAL|RPIX|DELT|ROTA)[12]|(CD|PC)[12]_[12]|PV[12]_\d+|L(ON|AT)POLE"
    r"|RADEC?SYS|EQUINOX|(A|B|AP|BP)_(ORDER|\d_\d)"
)
# Cards that a CD matrix replaces, and an old name of RADESYS.
_LINEAR = re.compile(r"WCSAXES|CDELT|CROTA|PC[12]_|RADECSYS")
_SIP = re.compile(r"(?P<name>A|B|AP|BP)_(?P<p>\d)_(?P<q>\d)")

# Precession moves 0.02 years by 1 arcsec.
EQUINOX_TOLERANCE_YR = 0.01

Cards = dict[str, str | int | float]


def wcs_cards(header: fits.Header) -> Cards:
    """Return the header cards that make up the celestial WCS, TPV and SIP terms included."""
    return {key: header[key] for key in header if _CARDS.fullmatch(key)}


def celestial_wcs(cards: Mapping[str, str | int | float], source: str) -> WCS:
    """Return the WCS of header cards.

    Args:
        cards: What `wcs_cards` gave.
        source: Name of the file, for messages.

    Raises:
        DataFormatError: The cards hold no two-dimensional celestial WCS, or not one in right
            ascension and declination (ICRS, or FK5 of 2000).
    """
    header = fits.Header()
    for key, value in cards.items():
        header[key] = value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            wcs = WCS(header)
            # Here wcslib finds out what cannot be inverted.
            wcs.wcs.set()
    except Exception as error:  # wcslib raises a dozen classes that share no base but this one
        reason = " ".join(str(error).split())
        raise DataFormatError(f"{source} has a broken WCS: {reason}", value=source) from error
    if not wcs.has_celestial:
        raise DataFormatError(
            f"{source} has no celestial WCS; its header needs CTYPE1, CTYPE2, CRVAL, CRPIX and CD "
            "or CDELT (survey.hdu says which one)",
            value=source,
        )
    _check_frame(wcs, source)
    return wcs


def rescaled_cards(cards: Cards, factor: float) -> Cards:
    """Return the WCS cards of an image whose pixels are `factor` x `factor` old ones.

    The factor 1 / s undoes the factor s.

    CRPIX' = (CRPIX - 0.5) / s + 0.5 and CD' = CD s (or CDELT' = CDELT s). TPV terms act on degrees
    and stay; SIP terms act on pixels: A'_pq = A_pq s^(p+q-1).
    """
    result = dict(cards)
    has_cd = any(key.startswith("CD") and "_" in key for key in cards)
    for key, value in cards.items():
        is_step = key.startswith("CD") and "_" in key if has_cd else key.startswith("CDELT")
        sip = _SIP.fullmatch(key)
        if key.startswith("CRPIX"):
            result[key] = (float(value) - 0.5) / factor + 0.5
        elif is_step:
            result[key] = float(value) * factor
        elif sip is not None:
            result[key] = float(value) * factor ** (int(sip["p"]) + int(sip["q"]) - 1)
    if not has_cd:
        # FITS takes a missing CDELT for 1.
        for axis in "12":
            result.setdefault(f"CDELT{axis}", factor)
    return result


def cutout_cards(cards: Cards, wcs: WCS, origin: tuple[int, int]) -> Cards:
    """Return the WCS cards of a piece of an image, whatever the image had, with a CD matrix.

    SIP and TPV terms refer to CRPIX and to degrees: they stay as they are.

    Args:
        cards: What `wcs_cards` gave.
        wcs: The same, parsed.
        origin: First (row, column) of the piece [px].
    """
    result = {key: value for key, value in cards.items() if not _LINEAR.match(key)}
    matrix, (ra, dec), pixel = wcs.pixel_scale_matrix, wcs.wcs.crval, wcs.wcs.crpix
    result |= {"CUNIT1": "deg", "CUNIT2": "deg", "CRVAL1": float(ra), "CRVAL2": float(dec)}
    result |= {f"CD{i + 1}_{j + 1}": float(matrix[i, j]) for i in (0, 1) for j in (0, 1)}
    result |= {"CRPIX1": float(pixel[0]) - origin[1], "CRPIX2": float(pixel[1]) - origin[0]}
    return result | {"RADESYS": str(wcs.wcs.radesys or "ICRS")}


def pixel_to_sky(
    wcs: WCS, x: ArrayLike, y: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (ra, dec) [deg] of 0-based pixel positions, all distortions included."""
    ra, dec = wcs.all_pix2world(np.asarray(x, np.float64), np.asarray(y, np.float64), 0)
    return np.asarray(ra, np.float64), np.asarray(dec, np.float64)


def sky_to_pixel(
    wcs: WCS, ra: ArrayLike, dec: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return 0-based pixel positions (x, y) of sky positions [deg]; NaN on the far side."""
    ra, dec = np.atleast_1d(np.asarray(ra, np.float64)), np.atleast_1d(np.asarray(dec, np.float64))
    # Without SIP terms wcslib inverts exactly; the iterative solver would only cost time.
    if wcs.sip is None:
        x, y = wcs.wcs_world2pix(ra, dec, 0)
    else:
        x, y = wcs.all_world2pix(ra, dec, 0, quiet=True)
    centre = unit_vectors(*(np.atleast_1d(c) for c in wcs.wcs.crval))[0]
    behind = unit_vectors(ra, dec) @ centre <= 0
    return np.where(behind, np.nan, x), np.where(behind, np.nan, y)


def pixel_scale_arcsec(wcs: WCS, shape: tuple[int, int]) -> float:
    """Return the geometric-mean pixel scale at the image centre [arcsec/px]."""
    y, x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    ra, dec = pixel_to_sky(wcs, [x - 0.5, x + 0.5, x, x], [y, y, y - 0.5, y + 0.5])
    v = unit_vectors(ra, dec)
    area = np.linalg.norm(np.cross(v[1] - v[0], v[3] - v[2]))
    return float(np.degrees(np.sqrt(area)) * 3600)


def _check_frame(wcs: WCS, source: str) -> None:
    """Raise unless the axes of a WCS are right ascension and declination, ICRS or FK5 of 2000."""
    axes = f"{wcs.wcs.ctype[0]}, {wcs.wcs.ctype[1]}"
    if (wcs.wcs.lng, wcs.wcs.lat, wcs.wcs.lngtyp, wcs.wcs.lattyp) != (0, 1, "RA", "DEC"):
        raise DataFormatError(
            f"expected the axes of {source} to be right ascension and declination in this order, "
            f"but got CTYPE1, CTYPE2 = {axes}",
            value=axes,
            allowed="RA---TAN, DEC--TAN",
        )
    # wcslib fills in what the standard says where RADESYS is missing.
    frame = wcs.wcs.radesys or "ICRS"
    if frame != "ICRS" and (frame != "FK5" or abs(wcs.wcs.equinox - 2000) > EQUINOX_TOLERANCE_YR):
        raise DataFormatError(
            f"expected the coordinates of {source} to be ICRS or FK5 of equinox 2000, but got "
            f"RADESYS = {frame}, EQUINOX = {wcs.wcs.equinox}",
            value=frame,
            allowed="ICRS, FK5",
        )


def unit_vectors(ra: ArrayLike, dec: ArrayLike) -> NDArray[np.float64]:
    """Return unit vectors, shape (n, 3), of sky positions [deg]."""
    a, d = np.radians(np.asarray(ra, np.float64)), np.radians(np.asarray(dec, np.float64))
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def chord(angle_rad: ArrayLike) -> NDArray[np.float64]:
    """Return the straight distance of two points on the unit sphere: 2 sin(angle / 2)."""
    return np.asarray(2 * np.sin(np.asarray(angle_rad, np.float64) / 2), np.float64)


def separation_rad(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the angles [rad] between unit vectors, shape (..., 3); exact for tiny angles."""
    half = np.linalg.norm(a - b, axis=-1) / 2
    return np.asarray(2 * np.arcsin(np.clip(half, 0, 1)), np.float64)
