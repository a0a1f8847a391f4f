"""Counts in units of the noise, whose level is measured as `datagen.tiles.background` does."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from datagen.tiles.background import N_SAMPLES, estimate_background

__all__ = ["N_SAMPLES", "compress", "estimate_background", "normalize"]


def normalize(images: Tensor, background: Tensor, sigma: Tensor) -> Tensor:
    """Express counts in units of the noise: (x - background) / sigma.

    Args:
        images: Counts (B, C, H, W); not finite pixels become background.
        background: Background per image and band (B, C) [counts].
        sigma: Noise per image and band (B, C) [counts].

    Returns:
        (B, C, H, W) float32; the background is 0, so that zero padding looks like empty sky.
    """
    signal = images.float() - background[..., None, None]
    signal /= sigma[..., None, None]
    return torch.nan_to_num_(signal, nan=0.0, posinf=0.0, neginf=0.0)


def compress(signal: Tensor) -> Tensor:
    """Return asinh(signal): linear below the noise, logarithmic above."""
    if signal.device.type != "cpu" or signal.requires_grad:
        return torch.asinh(signal)
    # On the CPU numpy's vectorised version is 15 times faster than torch's.
    return torch.from_numpy(np.arcsinh(signal.numpy()))
