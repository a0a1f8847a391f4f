from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

from datagen.fields.wcs import (
    north_angle,
    pixel_to_sky,
    sky_to_pixel,
    tan_cards,
    tan_wcs,
    turn_shear,
)

SCALE = 0.263


def test_centre_of_the_image_is_the_reference_point() -> None:
    wcs = tan_wcs(30.0, -45.0, (101, 201), SCALE)
    ra, dec = pixel_to_sky(wcs, 100.0, 50.0)
    assert ra[0] == pytest.approx(30.0, abs=1e-12)
    assert dec[0] == pytest.approx(-45.0, abs=1e-12)


def test_east_is_left_and_north_is_up() -> None:
    wcs = tan_wcs(30.0, -45.0, (100, 100), SCALE)
    ra, dec = pixel_to_sky(wcs, [40.0, 60.0], [50.0, 50.0])
    assert ra[0] > ra[1]
    _, dec = pixel_to_sky(wcs, [50.0, 50.0], [40.0, 60.0])
    assert dec[1] > dec[0]
    assert (dec[1] - dec[0]) * 3600 == pytest.approx(20 * SCALE, rel=1e-6)


@given(
    ra=st.floats(0, 359.999),
    dec=st.floats(-85, 85),
    x=st.floats(-500, 3000),
    y=st.floats(-500, 3000),
)
def test_round_trip(ra: float, dec: float, x: float, y: float) -> None:
    wcs = tan_wcs(ra, dec, (2560, 2560), SCALE)
    back_x, back_y = sky_to_pixel(wcs, *pixel_to_sky(wcs, x, y))
    assert back_x[0] == pytest.approx(x, abs=1e-6)
    assert back_y[0] == pytest.approx(y, abs=1e-6)


def test_cards_are_plain_values_and_rebuild_the_wcs() -> None:
    cards = tan_cards(10.0, 20.0, (64, 64), SCALE)
    assert {type(value) for value in cards.values()} <= {str, int, float}
    first, second = WCS(fits.Header(cards)), tan_wcs(10.0, 20.0, (64, 64), SCALE)
    assert np.array_equal(pixel_to_sky(first, 3.0, 5.0), pixel_to_sky(second, 3.0, 5.0))


def test_north_is_up_at_the_centre_and_tilts_towards_the_pole_side() -> None:
    wcs = tan_wcs(30.0, -50.0, (1000, 1000), SCALE)
    angle = north_angle(wcs, [30.0, 31.0], [-50.0, -50.0])
    assert angle[0] == pytest.approx(np.pi / 2, abs=1e-7)
    # Meridians converge: one degree of right ascension turns north by sin(dec) degrees.
    assert abs(angle[1] - np.pi / 2) == pytest.approx(np.deg2rad(np.sin(np.deg2rad(50))), rel=1e-2)


def test_shear_turns_twice_as_fast_as_the_axes() -> None:
    g1, g2 = turn_shear([0.2], [0.0], np.pi / 2)
    assert g1[0] == pytest.approx(-0.2)
    assert g2[0] == pytest.approx(0.0, abs=1e-12)
