"""Mirrored and turned maps, on the device of the batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from encoders.augment import random_fractions


def turn(maps: Tensor, angle: Tensor, is_mirrored: Tensor) -> Tensor:
    """Turn maps about their centre, after a mirror where wanted, by bilinear interpolation.

    What comes from outside of a map is its mirror image at the edge: a map has no border that tells
    by how much it was turned.

    Args:
        maps: (B, C, H, H).
        angle: From +x to +y, columns to rows (B,) [rad].
        is_mirrored: Whether columns are reversed before (B,), bool.

    Returns:
        (B, C, H, H).
    """
    sign = torch.where(is_mirrored, -1.0, 1.0)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # From places in the result to places in the map: turned back, then mirrored.
    rows = ((sign * cos, sign * sin, zero), (-sin, cos, zero))
    matrix = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    # With corners not aligned, the edge of a map is that of its outermost pixels.
    grid = affine_grid(matrix.to(maps), list(maps.shape), align_corners=False)
    return grid_sample(maps, grid, padding_mode="reflection", align_corners=False)


def augment(maps: Tensor, seed: int, epoch: int, index: Tensor, kinds: tuple[bool, bool]) -> Tensor:
    """Turn and mirror maps by chance; (seed, epoch, index) decides, nothing else.

    Args:
        maps: (B, C, H, H).
        seed: Of the augmentation.
        epoch: Number of the epoch.
        index: Numbers of the maps (B,), int64.
        kinds: Whether maps are turned by any angle, and whether half of them are mirrored.

    Returns:
        (B, C, H, H).
    """
    turns, flips = kinds
    if not (turns or flips):
        return maps
    angle = 2.0 * math.pi * random_fractions(seed, epoch, index, "angle") * turns
    is_mirrored = random_fractions(seed, epoch, index, "mirror") < 0.5 * flips
    return turn(maps, angle, is_mirrored)
