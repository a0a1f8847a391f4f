"""Aperture maps against a literal sum over pixels."""

from __future__ import annotations

import math

import pytest
import torch

from encoders.fields.photometry import APERTURES_PX, STEP_PX, aperture_maps, source_maps


def test_maps_are_sums_in_squares_around_every_fourth_pixel() -> None:
    signal = torch.randn(1, 2, 32, 24, generator=torch.Generator().manual_seed(0))
    maps = aperture_maps(signal)
    assert maps.shape == (1, 2 * len(APERTURES_PX), 8, 6)
    for k, side in enumerate(APERTURES_PX):
        for row, column in ((0, 0), (3, 2), (7, 5)):
            margin = (side - STEP_PX) // 2
            top, left = STEP_PX * row - margin, STEP_PX * column - margin
            square = signal[0, 1, max(top, 0) : top + side, max(left, 0) : left + side]
            expected = math.asinh(float(square.sum()) / side)
            assert float(maps[0, 2 * k + 1, row, column]) == pytest.approx(expected, abs=1e-5)


def test_noise_has_unit_variance_in_every_aperture() -> None:
    signal = torch.randn(1, 1, 512, 512, generator=torch.Generator().manual_seed(1))
    ratio = torch.sinh(aperture_maps(signal))[..., 4:-4, 4:-4]
    assert ratio.std((0, 2, 3)).tolist() == pytest.approx([1.0] * 3, rel=0.05)


def test_flips_and_turns_commute_with_the_maps() -> None:
    signal = torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(2))
    for turned in (lambda x: x.flip(-1), lambda x: x.rot90(1, (-2, -1))):
        assert torch.allclose(
            aperture_maps(turned(signal)), turned(aperture_maps(signal)), atol=1e-5
        )


def test_colours_do_not_depend_on_the_seeing_in_wide_apertures() -> None:
    """The same flux in two bands of different seeing: pixels differ, wide apertures hardly."""
    grid = torch.arange(64.0)
    square = (grid[:, None] - 33.5) ** 2 + (grid[None, :] - 33.5) ** 2
    stars = [torch.exp(-square / (2 * s**2)) / (2 * math.pi * s**2) for s in (1.3, 1.8)]
    maps = aperture_maps(1e4 * torch.stack(stars)[None])
    peak = maps[0].amax((1, 2))
    colours = [float(peak[2 * k] - peak[2 * k + 1]) for k in range(len(APERTURES_PX))]
    assert colours[0] > 0.25
    assert abs(colours[2]) < 0.01


def test_source_maps_are_the_apertures_at_the_brightest_sample_of_each_square() -> None:
    signal = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(3))
    maps, found = aperture_maps(signal), source_maps(signal)
    assert found.shape == (2, 10, 4, 3)
    brightness = maps[:, 3:6].mean(1)
    for row in range(4):
        for column in range(3):
            square = brightness[1, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            y, x = divmod(int(square.argmax()), 4)
            y, x = y + 4 * row, x + 4 * column
            assert torch.equal(found[1, :9, row, column], maps[1, :, y, x])
            around = brightness[1, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            assert found[1, 9, row, column] == around.max() - brightness[1, y, x]


def test_the_flank_of_a_source_in_the_next_square_is_told_from_a_peak() -> None:
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    star = 300 * torch.exp(-((y - 29.5) ** 2 + (x - 21.5) ** 2) / (2 * 1.5**2))
    contrast = source_maps(star[None, None])[0, -1]
    assert contrast[1, 1] == 0.0
    assert contrast[2, 1] > 0.1
