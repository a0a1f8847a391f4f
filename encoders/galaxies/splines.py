"""Interpolation of images by cubic B-splines, and what it leaves of their noise.

Unser 1999, IEEE Signal Processing Magazine 16(6), 22 (doi:10.1109/79.799930). A spline suppresses
the copies of a spectrum around whole frequencies by the fourth power of sinc: where it is sampled
does not change the flux of a source, as it does with linear interpolation, by percents at unlucky
angles.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

# Copies of a spectrum, on each side, that count.
N_COPIES = 3


def prefilter(frequency: Tensor) -> Tensor:
    """Return what turns the spectrum of pixels into that of coefficients: 3 / (2 + cos 2 pi f).

    Args:
        frequency: [cycles/px].
    """
    return 3.0 / (2.0 + torch.cos(2.0 * math.pi * frequency))


def sampled(coefficients: Tensor, places: Tensor) -> Tensor:
    """Evaluate splines; what lies outside of an image is its mirror image at the edge.

    Four coefficients along each axis count, with weights that are positive: two of them, times the
    sum of their weights, are one linear interpolation between them (Sigg & Hadwiger 2005, GPU Gems
    2, chapter 20). So four bilinear interpolations do.

    Args:
        coefficients: (B, C, H, H).
        places: x and y, from the centre of the first pixel (B, 2, N, N) [px].

    Returns:
        (B, C, N, N).
    """
    first = places.floor()
    t = places - first
    square = t * t
    cube = square * t / 6.0
    low = 2.0 * cube - 0.5 * (t + square) + 5.0 / 6.0  # weight of the first two coefficients
    before = first - 1.0 + (3.0 * cube - square + 2.0 / 3.0) / low
    after = first + 1.0 + cube / (1.0 - low)
    # To the coordinates of grid_sample: -1 and 1 at the edges of the image.
    side = coefficients.shape[-1]
    planes = torch.stack((before, after), dim=2).flatten(1, 2)  # x, x, y, y
    planes = planes.mul_(2.0 / side).add_(1.0 / side - 1.0)

    def linear(pair: Tensor) -> Tensor:
        grid = pair.permute(0, 2, 3, 1)
        return grid_sample(coefficients, grid, padding_mode="reflection", align_corners=False)

    low_x, low_y = low[:, None, 0], low[:, None, 1]
    top = torch.lerp(linear(planes[:, 1:3]), linear(planes[:, 0::2]), low_x)
    bottom = torch.lerp(linear(planes[:, 1::2]), linear(planes[:, 0::3]), low_x)
    return torch.lerp(bottom, top, low_y)


def noise_basis(side: int) -> Tensor:
    """Return what `noise_left` multiplies power spectra with.

    Args:
        side: Of the image [px].

    Returns:
        Of the mean and of the harmonics (1, 0), (0, 1), (1, 1), (1, -1) of the variance in the
        place within a pixel, per frequency of a quadrant (5, K, K), K = side // 2 + 1.
    """
    frequency = torch.arange(side // 2 + 1, dtype=torch.float64) / side
    copies = frequency + torch.arange(-N_COPIES, N_COPIES + 1)[:, None]
    response = torch.sinc(copies) ** 4 * prefilter(frequency)
    mean = response.square().sum(dim=0)
    first = 2.0 * (response[1:] * response[:-1]).sum(dim=0)
    # All frequencies of the whole plane occur twice on an axis, but 0 and Nyquist's.
    counts = torch.full_like(frequency, 2.0)
    counts[0] = 1.0
    if side % 2 == 0:
        counts[-1] = 1.0
    mean, first = mean * counts / side, first * counts / side
    both = torch.outer(first, first) / 2.0
    products = (torch.outer(mean, mean), torch.outer(mean, first), torch.outer(first, mean))
    return torch.stack((*products, both, both))


def noise_left(power: Tensor, basis: Tensor, matrix: Tensor, centre: Tensor, side: int) -> Tensor:
    """Return the mean variance of interpolated noise, for white noise of variance 1 before.

    Interpolated with a spline, noise depends on the place within a pixel, as a Fourier series of
    which the first harmonics count; those of the places on a turned grid average to kernels of
    Dirichlet.

    Args:
        power: Squares of what images were filtered with (B, K, K), rows along y.
        basis: See `noise_basis`.
        matrix: From steps of the grid to steps in the image (B, 2, 2), x before y.
        centre: x and y of the centre of the grid (B, 2) [px].
        side: Of the grid.

    Returns:
        (B,).
    """
    harmonics = centre.new_tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    step = harmonics @ matrix
    whole = step.round()
    rest = step - whole
    dirichlet = torch.sinc(side * rest) / torch.sinc(rest)
    dirichlet = (dirichlet * torch.cos(math.pi * (side - 1) * whole)).prod(dim=-1)
    phase = torch.cos(2.0 * math.pi * centre @ harmonics.T) * dirichlet
    return (power.flatten(1) @ basis.flatten(1).T * phase).sum(dim=1)
