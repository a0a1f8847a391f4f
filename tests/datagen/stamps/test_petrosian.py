"""Sizes of profiles whose growth curves are known, and crops and resizing that keep their flux."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import erf, gamma, gammainc, gammaincinv

from datagen.stamps.cropping import Box, box_about
from datagen.stamps.drops import DroppedError
from datagen.stamps.petrosian import central_source, petrosian, sky_of
from datagen.stamps.resizing import noise_factor, resize
from tests.datagen.stamps.raw import sersic


def analytic(n: float) -> tuple[float, float, float, float]:
    """Return Petrosian radius, r50, r90 [half-light radius] and share of flux of a profile.

    From the growth curve P(2n, b x^(1/n)) of Sersic profiles (Graham & Driver 2005,
    doi:10.1071/AS05001).
    """
    b = gammaincinv(2 * n, 0.5)
    total = 2 * np.pi * n * gamma(2 * n) / b ** (2 * n)

    def eta(x: float) -> float:
        mean = total * gammainc(2 * n, b * x ** (1 / n)) / (np.pi * x**2)
        return float(np.exp(-b * x ** (1 / n)) / mean)

    radius = brentq(lambda x: eta(x) - 0.2, 0.5, 5.0)
    share = gammainc(2 * n, b * (2 * radius) ** (1 / n))
    r50, r90 = ((gammaincinv(2 * n, f * share) / b) ** n for f in (0.5, 0.9))
    return radius, float(r50), float(r90), float(share)


def test_the_closed_form_gives_the_published_values() -> None:
    for n, expected in ((1, (2.158, 0.994, 2.29)), (4, (1.820, 0.829, 3.42))):
        radius, r50, r90, share = analytic(n)
        assert (radius, share, r90 / r50) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(
    ("n", "r_eff", "side", "centre"),
    [
        (1, 4.0, 64, None),
        (1, 8.0, 101, (50.3, 48.8)),
        (4, 6.0, 128, None),
        (4, 9.0, 161, (80.2, 79.6)),
    ],
)
def test_sizes_of_profiles_are_right_within_2_percent(
    n: float, r_eff: float, side: int, centre: tuple[float, float] | None
) -> None:
    image = sersic(n, r_eff, side, centre)
    source = central_source(image)
    assert source.centre == pytest.approx(centre or ((side - 1) / 2,) * 2, abs=0.05)
    found = petrosian(image, source)
    radius, r50, r90, share = analytic(n)
    b = gammaincinv(2 * n, 0.5)
    total = 2 * np.pi * n * gamma(2 * n) / b ** (2 * n) * np.exp(b) * r_eff**2
    assert found.radius == pytest.approx(radius * r_eff, rel=0.02)
    assert found.r50 == pytest.approx(r50 * r_eff, rel=0.02)
    assert found.r90 == pytest.approx(r90 * r_eff, rel=0.02)
    assert found.flux == pytest.approx(share * total, rel=0.02)


def test_neighbours_sky_and_noise_change_sizes_little() -> None:
    rng = np.random.default_rng(3)
    image = 10 * sersic(1, 5.0, 101)
    others = 40 * sersic(1, 2.0, 101, (50.0, 82.0)) + 30 * sersic(1, 2.0, 101, (20.0, 30.0))
    seen = image + others + 3.0 + rng.normal(0, 0.1, image.shape)
    sky, sigma = sky_of(seen)
    assert sigma == pytest.approx(0.1, rel=0.3)
    source = central_source(seen)
    assert source.centre == pytest.approx((50, 50), abs=0.1)
    assert source.others[50, 82]
    assert source.others[20, 30]
    assert not source.others[50, 50]
    found, alone = petrosian(seen - sky, source), petrosian(image, central_source(image))
    assert found.r50 == pytest.approx(alone.r50, rel=0.03)
    assert found.r90 == pytest.approx(alone.r90, rel=0.05)


def test_a_brighter_neighbour_that_touches_is_told_apart() -> None:
    image, other = sersic(1, 3.0, 81), 5 * sersic(1, 3.0, 81, (40.0, 57.0))
    source = central_source(image + other)
    assert source.centre == pytest.approx((40, 40), abs=0.3)
    assert source.others[40, 57]
    assert not source.others[40, 44]
    # A clump of the disc belongs to it.
    clumpy = image + 0.5 * sersic(1, 1.0, 81, (40.0, 44.0))
    assert not central_source(clumpy).others.any()


def test_images_without_a_central_source_are_dropped() -> None:
    noise = np.random.default_rng(1).normal(0, 1, (64, 64))
    aside = sersic(1, 1.5, 64, (8.0, 8.0))
    for image in (np.zeros((64, 64)), aside + 1e-4 * noise):
        with pytest.raises(DroppedError, match="no source in the middle"):
            central_source(image)
    flat = np.ones((32, 32))
    source = central_source(sersic(1, 3.0, 32))
    with pytest.raises(DroppedError, match=r"no radius where the surface brightness is 0\.2"):
        petrosian(flat, source)
    with pytest.raises(DroppedError, match="no radius"):
        petrosian(-flat, source)


def gaussian(side: int, sigma: float, extent: float) -> NDArray[np.float64]:
    """Return the exact flux in pixels that divide a square of a given extent about the middle."""
    edges = np.linspace(-extent / 2, extent / 2, side + 1)
    inside = np.diff(erf(edges / (np.sqrt(2) * sigma))) / 2
    return np.outer(inside, inside)


@pytest.mark.parametrize("side", [7, 16, 24, 40, 63, 96])
def test_crop_and_resize_keep_the_flux_and_the_profile(side: int) -> None:
    image = gaussian(80, 6.0, 80.0)
    box = box_about((39.5, 39.5), 48.2, image.shape, "drop")
    assert box == Box(16, 16, 48)
    cut = image[box.rows, box.columns]
    resized = resize(np.stack([cut, 2 * cut]), side)
    assert resized.shape == (2, side, side)
    assert resized[0].sum() == pytest.approx(cut.sum(), rel=1e-12)
    # Each pixel holds what the profile has there.
    exact = gaussian(side, 6.0, 48.0)
    assert np.abs(resized[0] - exact).max() < 1e-4 * exact.max()
    assert resized[1] == pytest.approx(2 * resized[0])


def test_flux_of_a_galaxy_survives_crop_and_resize() -> None:
    for n in (1, 4):
        image = sersic(n, 4.0, 90)
        for side in (30, 32, 64, 90, 128):
            assert resize(image, side).sum() == pytest.approx(image.sum(), rel=1e-10)
    assert np.array_equal(resize(image, 90), image)
    assert resize(image, 30) == pytest.approx(image.reshape(30, 3, 30, 3).sum((1, 3)), rel=1e-9)


@pytest.mark.parametrize("side", [16, 32, 40, 64, 100])
def test_noise_of_resized_images_is_told(side: int) -> None:
    noise = np.random.default_rng(side).normal(0, 1, (300, 64, 64))
    assert resize(noise, side).std() == pytest.approx(noise_factor(64, side), rel=0.01)


@pytest.mark.parametrize(
    ("centre", "side", "expected"),
    [
        ((9.5, 9.5), 20.0, Box(0, 0, 20)),
        ((9.5, 9.5), 10.4, Box(5, 5, 10)),
        ((9.6, 9.5), 20.0, Box(0, 0, 20)),
        ((4.0, 9.5), 12.0, Box(0, 5, 10, is_limited=True)),
        ((9.5, 9.5), 31.0, Box(0, 0, 20, is_limited=True)),
        ((14.0, 14.0), 9.0, Box(10, 10, 9)),
    ],
)
def test_boxes(centre: tuple[float, float], side: float, expected: Box) -> None:
    assert box_about(centre, side, (20, 20), "limit") == expected


def test_boxes_that_show_nothing_or_reach_beyond_are_dropped() -> None:
    for side in (0.0, 7.4, -3.0, float("nan"), float("inf")):
        with pytest.raises(DroppedError, match=r"a crop of .* px, less than 8"):
            box_about((9.5, 9.5), side, (20, 20), "limit")
    with pytest.raises(DroppedError, match="a crop of 21 px, but the image ends at 20"):
        box_about((9.5, 9.5), 21.0, (20, 20), "drop")
    with pytest.raises(DroppedError, match="at the border"):
        box_about((0.0, 9.5), 12.0, (20, 20), "limit")
