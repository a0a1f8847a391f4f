"""Splines agree with scipy, and the noise that they leave with a sum over every pixel."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from encoders.augment import turning
from encoders.galaxies.splines import noise_basis, noise_left, prefilter, sampled

SIDE, INNER = 24, 11


def coefficients_of(images: Tensor, order: int, kernel: Tensor | None = None) -> Tensor:
    along_y, along_x = torch.fft.fftfreq(SIDE), torch.fft.rfftfreq(SIDE)
    filters = torch.outer(prefilter(along_y, order), prefilter(along_x, order))
    filters = filters if kernel is None else filters * kernel
    return torch.fft.irfft2(torch.fft.rfft2(images) * filters, s=(SIDE, SIDE))


def places_of(angle: float, size: float, shift: float) -> tuple[Tensor, Tensor, Tensor]:
    matrix = turning(torch.tensor([angle]), torch.tensor([False])) / size
    centre = torch.tensor([[shift, 0.3 * shift]]) + 0.5 * (SIDE - 1)
    step = torch.arange(INNER) - 0.5 * (INNER - 1)
    y, x = torch.meshgrid(step, step, indexing="ij")
    offsets = torch.einsum("nij,jhw->nihw", matrix, torch.stack((x, y)))
    return matrix, centre, centre[..., None, None] + offsets


def test_splines_are_those_of_scipy() -> None:
    images = torch.randn(1, 2, SIDE, SIDE)
    places = 8.0 + 8.0 * torch.rand(1, 2, 9, 9)
    found = sampled(coefficients_of(images, 3), places, 3)
    x, y = places[0].double().numpy()
    for band in range(2):
        wanted = map_coordinates(images[0, band].double(), [y, x], order=3, mode="grid-wrap")
        torch.testing.assert_close(
            found[0, band].double(), torch.from_numpy(wanted), atol=1e-4, rtol=0
        )


@pytest.mark.parametrize(("order", "blur"), [(3, 0.0), (3, 0.8), (1, 0.0), (1, 0.8)])
@pytest.mark.parametrize(
    ("angle", "size", "shift"),
    [
        (0.0, 1.0, 0.0),
        (0.0, 1.0, 0.5),
        (math.pi / 2, 1.0, 0.25),
        (0.02, 1.0, 0.5),
        (0.7, 1.0, 0.2),
        (2.0, 1.1, 0.4),
        (0.0, 0.9, 0.1),
        (math.pi / 4, 1.0, 0.5),
        (0.0, 2.0, 0.3),
    ],
)
def test_noise_that_is_left(
    angle: float, size: float, shift: float, order: int, blur: float
) -> None:
    frequency = torch.arange(SIDE // 2 + 1) / SIDE
    radius = torch.hypot(frequency, frequency[:, None])
    gauss = torch.exp(-2.0 * (math.pi * blur * radius) ** 2)
    rows = (torch.fft.fftfreq(SIDE) * SIDE).abs().round().long()
    # What each pixel of white noise adds to each pixel of the result.
    impulses = torch.eye(SIDE * SIDE).view(1, -1, SIDE, SIDE)
    matrix, centre, places = places_of(angle, size, shift)
    weights = sampled(coefficients_of(impulses, order, gauss[rows]), places, order)
    wanted = weights.square().sum(dim=1).mean()
    found = noise_left(
        gauss.square()[None], noise_basis(SIDE, order).float(), matrix, centre, INNER
    )
    # Of the standard deviation half as much. Linear ones have more harmonics, which turns average.
    is_close = order == 3 or math.sin(2.0 * angle) > 0.1
    assert found.item() == pytest.approx(wanted.item(), rel=0.015 if is_close else 0.16)
