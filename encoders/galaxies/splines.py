"""Interpolation of images by B-splines, and what it leaves of their noise.

Unser 1999, IEEE Signal Processing Magazine 16(6), 22 (doi:10.1109/79.799930). A spline of order n
suppresses the copies of a spectrum around whole frequencies by sinc to the power of n + 1. Where a
cubic one is sampled hardly changes the flux of a source; with a linear one it may be a percent, at
unlucky angles.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

ORDERS = (1, 3)
# Copies of a spectrum, on each side, that count.
N_COPIES = 4
# Of the Fourier series of the variance in the place within a pixel, x before y; one of k and -k.
HARMONICS = ((0, 0), (0, 1), (0, 2), *itertools.product((1, 2), range(-2, 3)))


def prefilter(frequency: Tensor, order: int) -> Tensor:
    """Return what turns the spectrum of pixels into that of coefficients.

    A cubic spline goes through the pixels then: `3 / (2 + cos 2 pi f)`. One through pixels would
    blur them if it is linear; `1 / sinc^2 f` lets it keep the spectrum instead.

    Args:
        frequency: [cycles/px].
        order: One of `ORDERS`.
    """
    if order == 1:
        return torch.sinc(frequency) ** -2
    return 3.0 / (2.0 + torch.cos(2.0 * math.pi * frequency))


def sampled(coefficients: Tensor, places: Tensor, order: int) -> Tensor:
    """Evaluate splines; what lies outside of an image is its mirror image at the edge.

    Four coefficients of a cubic spline count along each axis, with weights that are positive: two
    of them, times the sum of their weights, are one linear interpolation between them (Sigg &
    Hadwiger 2005, GPU Gems 2, chapter 20). So four bilinear interpolations do.

    Args:
        coefficients: (B, C, H, H).
        places: x and y, from the centre of the first pixel (B, 2, N, N) [px].
        order: One of `ORDERS`.

    Returns:
        (B, C, N, N).
    """
    # To the coordinates of grid_sample: -1 and 1 at the edges of the image.
    side = coefficients.shape[-1]
    factor, offset = 2.0 / side, 1.0 / side - 1.0

    def linear(pair: Tensor) -> Tensor:
        grid = pair.permute(0, 2, 3, 1)
        return grid_sample(coefficients, grid, padding_mode="reflection", align_corners=False)

    if order == 1:
        return linear(places * factor + offset)
    first = places.floor()
    t = places - first
    low = polynomial(t, (5.0 / 6.0, -0.5, -0.5, 1.0 / 3.0))  # weight of the first two coefficients
    planes = torch.stack((first - 1.0, first + 1.0), dim=2)
    planes[:, :, 0] += polynomial(t, (2.0 / 3.0, 0.0, -1.0, 0.5)).div_(low)
    planes[:, :, 1] += polynomial(t, (0.0, 0.0, 0.0, 1.0 / 6.0)).div_(1.0 - low)
    planes = planes.flatten(1, 2).mul_(factor).add_(offset)  # x, x, y, y
    low_x, low_y = low[:, None, 0], low[:, None, 1]
    top = torch.lerp(linear(planes[:, 1:3]), linear(planes[:, 0::2]), low_x)
    bottom = torch.lerp(linear(planes[:, 1::2]), linear(planes[:, 0::3]), low_x)
    return torch.lerp(bottom, top, low_y)


def polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """Return `sum c_k x^k` for at least two coefficients, by Horner's rule."""
    *rest, last_but_one, last = coefficients
    total = (x * last).add_(last_but_one)
    for coefficient in reversed(rest):
        total.mul_(x).add_(coefficient)
    return total


def noise_basis(side: int, order: int) -> Tensor:
    """Return what `noise_left` multiplies power spectra with.

    Args:
        side: Of the image [px].
        order: One of `ORDERS`.

    Returns:
        Of each of `HARMONICS`, per frequency of a quadrant (13, K, K), K = side // 2 + 1.
    """
    frequency = torch.arange(side // 2 + 1, dtype=torch.float64) / side
    copies = frequency + torch.arange(-N_COPIES, N_COPIES + 1)[:, None]
    response = torch.sinc(copies) ** (order + 1) * prefilter(frequency, order)
    # All frequencies of the whole plane occur twice on an axis, but 0 and Nyquist's.
    counts = torch.full_like(frequency, 2.0)
    counts[0] = 1.0
    if side % 2 == 0:
        counts[-1] = 1.0
    products = [(response[k:] * response[: len(response) - k]).sum(dim=0) for k in range(3)]
    along = [product * counts / side for product in products]
    basis = torch.stack([torch.outer(along[abs(ky)], along[kx]) for kx, ky in HARMONICS])
    basis[1:] *= 2.0  # k and -k
    return basis


def noise_left(power: Tensor, basis: Tensor, matrix: Tensor, centre: Tensor, side: int) -> Tensor:
    """Return the mean variance of interpolated noise, for white noise of variance 1 before.

    The variance of interpolated noise is a Fourier series in the place within a pixel. The mean of
    a harmonic over the places of a turned grid is a product of kernels of Dirichlet.

    Args:
        power: Squares of what images were filtered with (B, K, K), rows along y.
        basis: See `noise_basis`.
        matrix: From steps of the grid to steps in the image (B, 2, 2), x before y.
        centre: x and y of the centre of the grid (B, 2) [px].
        side: Of the grid.

    Returns:
        (B,).
    """
    harmonics = centre.new_tensor(HARMONICS)
    step = harmonics @ matrix
    whole = step.round()
    rest = step - whole
    dirichlet = torch.sinc(side * rest) / torch.sinc(rest)
    dirichlet = (dirichlet * torch.cos(math.pi * (side - 1) * whole)).prod(dim=-1)
    phase = torch.cos(2.0 * math.pi * centre @ harmonics.T) * dirichlet
    return (power.flatten(1) @ basis.flatten(1).T * phase).sum(dim=1)
