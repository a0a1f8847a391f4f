"""Images on circles about a centre."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def unwrap(images: Tensor, centre: Tensor, radii: Tensor, n_azimuths: int) -> Tensor:
    """Return the images on circles, by bilinear interpolation; 0 outside of the images.

    `map[r, k] = image(x_c + r cos(2 pi k / n), y_c + r sin(2 pi k / n))`

    Args:
        images: (B, C, H, W).
        centre: Of the circles, column and row (B, 2) [px].
        radii: Of the circles (B, R) [px].
        n_azimuths: n, points on each circle.

    Returns:
        (B, C, R, n).
    """
    steps = torch.arange(n_azimuths, device=images.device, dtype=radii.dtype)
    azimuth = steps * (2 * math.pi / n_azimuths)
    circle = torch.stack((azimuth.cos(), azimuth.sin()), dim=-1)
    points = centre[:, None, None] + radii[:, :, None, None] * circle
    height, width = images.shape[-2:]
    last = torch.tensor((width - 1, height - 1)).to(points)
    grid = (2 * points / last - 1).to(images.dtype)
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
