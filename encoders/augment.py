"""Flips and turns of images, or of images together with their cells, on the batch's device."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from datagen.seeds import stream_seed

N_SYMMETRIES = 8


def symmetry_of(seed: int, epoch: int, identity: str) -> int:
    """Return which of the square's 8 symmetries a sample gets in an epoch.

    It depends on nothing else: not on the batch, the process or the order of the samples.
    """
    return stream_seed(seed, epoch, f"symmetry/{zlib.crc32(identity.encode())}") % N_SYMMETRIES


def apply_symmetry(image: Tensor, symmetry: int) -> Tensor:
    """Apply `symmetry % 4` quarter turns, after a mirror for 4 and above.

    Args:
        image: (..., H, W); odd quarter turns of an image that is not square become even ones, so
            that the shape stays.
        symmetry: 0 (none) to 7.

    Returns:
        (..., H, W), a view or a copy.
    """
    turns = symmetry % 4
    if image.shape[-1] != image.shape[-2]:
        turns -= turns % 2
    if symmetry >= 4:
        image = image.flip(-1)
    return torch.rot90(image, turns, dims=(-2, -1))


def augment(tensors: Sequence[Tensor], symmetries: Sequence[int]) -> list[Tensor]:
    """Apply one symmetry per sample to several tensors alike.

    Args:
        tensors: Each (B, ..., H, W): images and their cells.
        symmetries: One number per sample (B,).
    """
    return [
        torch.stack([apply_symmetry(x, s) for x, s in zip(tensor, symmetries, strict=True)])
        for tensor in tensors
    ]


def random_symmetries(seed: int, epoch: int, index: Tensor, n_symmetries: int) -> Tensor:
    """Draw a symmetry for each of many samples, on their device.

    (seed, epoch, index) decides: nothing else counts, as in `symmetry_of`.

    Args:
        seed: Of the augmentation.
        epoch: Number of the epoch.
        index: Numbers of the samples (B,), int64.
        n_symmetries: How many there are to choose from.

    Returns:
        Numbers from 0 to n_symmetries - 1 (B,), int64.
    """
    return _hashed(seed, epoch, index, "symmetries") % n_symmetries


def random_fractions(seed: int, epoch: int, index: Tensor, component: str) -> Tensor:
    """Draw a number from [0, 1) for each of many samples, on their device.

    Args:
        seed: Of the draws.
        epoch: Number of the epoch.
        index: Numbers of the samples (B,), int64.
        component: What is drawn; another word gives other numbers.

    Returns:
        (B,), float32.
    """
    # As many bits as float32 holds: more could round up to 1.
    return (_hashed(seed, epoch, index, component) >> 8).float() / 2.0**24


def random_normals(seed: int, epoch: int, index: Tensor, component: str, n_numbers: int) -> Tensor:
    """Draw many normal numbers for each of many samples, on their device.

    A hash of the place of a number, under two keys of 32 bits of its sample, gives uniform numbers,
    and the transform of Box & Muller (1958, doi:10.1214/aoms/1177706645) pairs of normal ones. None
    is beyond 5.9.

    Args:
        seed: Of the draws.
        epoch: Number of the epoch.
        index: Numbers of the samples (B,), int64.
        component: What is drawn; another word gives other numbers.
        n_numbers: How many for each sample.

    Returns:
        (B, n_numbers), float32.
    """
    n_pairs = (n_numbers + 1) // 2
    first, second = (
        _hashed(seed, epoch, index, f"{component}/{part}").to(torch.int32)[:, None]
        for part in ("first", "second")
    )
    place = torch.arange(2 * n_pairs, dtype=torch.int32, device=index.device)
    bits = _mixed(_mixed(place * _signed(0x9E3779B9, 32) ^ first) ^ second)
    # As many bits as float32 holds, and never 0, whose logarithm is infinite.
    uniform = ((bits >> 8) & 0xFFFFFF).float().add_(0.5).mul_(2.0**-24)
    radius = uniform[:, :n_pairs].log().mul_(-2.0).sqrt_()
    angle = uniform[:, n_pairs:].mul_(2.0 * math.pi)
    return torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)[:, :n_numbers]


def _mixed(value: Tensor) -> Tensor:
    """Return other 32 bits for each number, in place; by the finaliser of MurmurHash3 (Appleby)."""
    value ^= (value >> 16) & 0xFFFF
    value *= _signed(0x85EBCA6B, 32)
    value ^= (value >> 13) & 0x7FFFF
    value *= _signed(0xC2B2AE35, 32)
    value ^= (value >> 16) & 0xFFFF
    return value


def _hashed(seed: int, epoch: int, index: Tensor, component: str) -> Tensor:
    """Return 32 bits for each number, by the integer hash of SplitMix64.

    Steele, Lea & Flood (2014, doi:10.1145/2660193.2660195).
    """
    value = index * _signed(0x9E3779B97F4A7C15) + stream_seed(seed, epoch, component)
    value = (value ^ _shifted(value, 30)) * _signed(0xBF58476D1CE4E5B9)
    value = (value ^ _shifted(value, 27)) * _signed(0x94D049BB133111EB)
    return _shifted(value ^ _shifted(value, 31), 32)


def apply_symmetries(images: Tensor, symmetries: Tensor) -> Tensor:
    """Apply to each square image its own symmetry, without waiting for the device.

    Args:
        images: (B, C, H, H).
        symmetries: See `apply_symmetry` (B,), int64, on the same device.

    Returns:
        (B, C, H, H).
    """
    n_images, n_channels, side, _ = images.shape
    pixels = torch.arange(side * side, device=images.device).view(side, side)
    moved = torch.stack([apply_symmetry(pixels, s).flatten() for s in range(N_SYMMETRIES)])
    places = moved[symmetries][:, None].expand(n_images, n_channels, -1)
    return images.flatten(2).gather(2, places).view_as(images)


def turn(images: Tensor, angle: Tensor, is_mirrored: Tensor) -> Tensor:
    """Turn square images about their centre, after a mirror where wanted; bilinear interpolation.

    What comes from outside of an image is its mirror image at the edge: there is no border that
    tells by how much it was turned.

    Args:
        images: (B, C, H, H).
        angle: From +x to +y, columns to rows (B,) [rad].
        is_mirrored: Whether columns are reversed before (B,), bool.

    Returns:
        (B, C, H, H).
    """
    matrix = pad(turning(angle, is_mirrored), (0, 1))
    grid = affine_grid(matrix.to(images), list(images.shape), align_corners=False)
    # With corners not aligned, the edge of an image is that of its outermost pixels.
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def turning(angle: Tensor, is_mirrored: Tensor) -> Tensor:
    """Return what takes offsets (x, y) from the centre of a turned image to those in the image.

    Args:
        angle: See `turn` (B,) [rad].
        is_mirrored: See `turn` (B,), bool.

    Returns:
        (B, 2, 2).
    """
    sign = torch.where(is_mirrored, -1.0, 1.0)
    cos, sin = angle.cos(), angle.sin()
    # Turned back, then mirrored.
    return torch.stack((sign * cos, sign * sin, -sin, cos), dim=1).view(-1, 2, 2)


def randomly_turned(
    images: Tensor,
    seed: int,
    epoch: int,
    index: Tensor,
    *,
    turns: bool,
    flips: bool,
    exact: bool = False,
) -> Tensor:
    """Turn and mirror images by chance; (seed, epoch, index) decides, nothing else.

    Args:
        images: (B, C, H, H).
        seed: Of the augmentation.
        epoch: Number of the epoch.
        index: Numbers of the images (B,), int64.
        turns: Whether images are turned, by any angle.
        flips: Whether half of them are mirrored.
        exact: Whether turns are by quarters only. They take pixels to pixels, where interpolation
            blurs.

    Returns:
        (B, C, H, H).
    """
    if not (turns or flips):
        return images
    share = random_fractions(seed, epoch, index, "angle") * turns
    is_mirrored = random_fractions(seed, epoch, index, "mirror") < 0.5 * flips
    if exact:
        return apply_symmetries(images, (4.0 * share).long() + 4 * is_mirrored)
    angle = 2.0 * math.pi * share
    return turn(images, angle, is_mirrored)


def _signed(value: int, n_bits: int = 64) -> int:
    """Return bits as torch's signed integers, whose products wrap around in the same way."""
    return value - (1 << n_bits) if value >= 1 << (n_bits - 1) else value


def _shifted(value: Tensor, n_bits: int) -> Tensor:
    """Shift to the right and fill up with zeros; torch repeats the sign."""
    return (value >> n_bits) & ((1 << (64 - n_bits)) - 1)
