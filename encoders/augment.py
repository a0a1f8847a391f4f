"""Flips and quarter turns of images together with their cells, on the device of the batch."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

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
