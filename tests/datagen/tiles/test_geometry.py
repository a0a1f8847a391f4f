from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import DataFormatError
from datagen.tiles import geometry
from datagen.tiles.geometry import Cards, celestial_wcs, rescaled_cards, wcs_cards

TPV = {
    "CTYPE1": "RA---TPV",
    "CTYPE2": "DEC--TPV",
    "PV1_0": 5e-4,
    "PV1_1": 1.0076,
    "PV1_2": 7e-4,
    "PV1_4": 3e-3,
    "PV1_7": -1.8e-3,
    "PV2_1": 1.0058,
    "PV2_4": -8e-4,
    "PV2_6": -2.5e-3,
    "PV2_10": -1.2e-3,
}
SIP = {
    "CTYPE1": "RA---TAN-SIP",
    "CTYPE2": "DEC--TAN-SIP",
    "A_ORDER": 2,
    "B_ORDER": 2,
    "A_2_0": 2e-6,
    "A_1_1": -1e-6,
    "B_0_2": 3e-6,
}


def assert_same_places(cards: Cards, cell: int, shape: tuple[int, int]) -> None:
    """Cell centres mean the same sky in both WCS, to a tenth of a pixel of the image."""
    full = celestial_wcs(cards, "image")
    small = celestial_wcs(rescaled_cards(cards, cell), "cells")
    rows, columns = (np.arange(-(-n // cell)) for n in shape)
    y, x = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    ra, dec = geometry.pixel_to_sky(small, x, y)
    back_x, back_y = geometry.sky_to_pixel(full, ra, dec)
    assert np.abs(back_x - (x * cell + (cell - 1) / 2)).max() < 0.1
    assert np.abs(back_y - (y * cell + (cell - 1) / 2)).max() < 0.1
    again = rescaled_cards(rescaled_cards(cards, cell), 1 / cell)
    for key, value in cards.items():
        assert again[key] == pytest.approx(value), key


@pytest.mark.parametrize("terms", [{}, TPV, SIP], ids=["TAN", "TPV", "SIP"])
@pytest.mark.parametrize("cell", [16, 100, 256])
def test_score_maps_have_the_right_wcs(
    header: Callable[..., fits.Header], terms: dict[str, str | float], cell: int
) -> None:
    cards = wcs_cards(header((1500, 1111), ra=359.95, dec=60.0, **terms))
    assert_same_places(cards, cell, (1500, 1111))


def test_cdelt_headers_are_rescaled_too(header: Callable[..., fits.Header]) -> None:
    cards = wcs_cards(header((300, 300)))
    for key in ("CD1_1", "CD1_2", "CD2_1", "CD2_2"):
        del cards[key]
    assert_same_places({**cards, "CDELT1": -7e-5, "CDELT2": 7e-5}, 16, (300, 300))


@pytest.mark.real_data
def test_score_maps_of_real_exposures_have_the_right_wcs(shared_data: Path) -> None:
    found = sorted((shared_data / "images" / "decam").glob("*ooi*.fits"))
    found.append(shared_data / "images" / "mosaic2" / "tpv.fits")
    for path in found:
        with fits.open(path) as hdus:
            hdu = next(h for h in hdus if h.is_image and len(h.shape) == 2)
            assert_same_places(wcs_cards(hdu.header), 16, hdu.shape)


def test_a_header_without_sky_is_refused() -> None:
    with pytest.raises(DataFormatError, match=r"x.fits has no celestial WCS"):
        celestial_wcs({"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}, "x.fits")


def test_far_side_of_the_sky_is_no_pixel(header: Callable[..., fits.Header]) -> None:
    wcs = celestial_wcs(wcs_cards(header((100, 100), ra=10.0, dec=-5.0)), "x")
    x, _ = geometry.sky_to_pixel(wcs, [10.0, 190.0], [-5.0, 5.0])
    assert np.isfinite(x).tolist() == [True, False]


@pytest.mark.parametrize("dec", [-89.9, 0.0, 85.0])
def test_pixel_scale_is_measured_anywhere(header: Callable[..., fits.Header], dec: float) -> None:
    wcs = celestial_wcs(wcs_cards(header((100, 80), ra=0.0, dec=dec)), "x")
    assert geometry.pixel_scale_arcsec(wcs, (100, 80)) == pytest.approx(0.263, rel=1e-6)


sky = st.tuples(st.floats(0, 360), st.floats(-90, 90))


@given(sky, sky)
def test_separations_are_those_of_astropy(a: tuple[float, float], b: tuple[float, float]) -> None:
    ours = geometry.separation_rad(geometry.unit_vectors(*a), geometry.unit_vectors(*b))
    theirs = SkyCoord(*a, unit="deg").separation(SkyCoord(*b, unit="deg")).rad
    assert float(ours) == pytest.approx(theirs, abs=1e-7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}, "but got CTYPE1, CTYPE2 = GLON-TAN, GLAT"),
        ({"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN"}, "right ascension and declination in this"),
        ({"RADESYS": "FK4"}, r"ICRS or FK5 of equinox 2000, but got RADESYS = FK4"),
        ({"RADECSYS": "FK4"}, "but got RADESYS = FK4"),
        ({"EQUINOX": 1950.0}, "but got RADESYS = FK4, EQUINOX = 1950"),
        ({"RADESYS": "FK5", "EQUINOX": 2015.5}, "but got RADESYS = FK5, EQUINOX = 2015.5"),
        ({"RADESYS": "ICRS"}, None),
        ({"RADESYS": "FK5", "EQUINOX": 2000.0}, None),
        ({"EQUINOX": 2000.0}, None),
        ({}, None),
    ],
)
def test_only_right_ascension_and_declination_are_taken(
    header: Callable[..., fits.Header], change: dict[str, str | float], message: str | None
) -> None:
    cards = wcs_cards(header((20, 30), **change))
    if message is None:
        assert celestial_wcs(cards, "T_r.fits").has_celestial
        return
    with pytest.raises(DataFormatError, match=rf"T_r\.fits.*{message}"):
        celestial_wcs(cards, "T_r.fits")
