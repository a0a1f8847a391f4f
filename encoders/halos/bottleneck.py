"""Orders the axes of a latent space by what they tell (Ho et al. 2023, arXiv:2305.11213)."""

from __future__ import annotations

import torch
from torch import Tensor

from encoders.augment import random_fractions

COMPONENT = "bottleneck"


def draw_kept(seed: int, epoch: int, index: Tensor, n_latent: int) -> Tensor:
    """Draw for each map how many axes stay, 1 to `n_latent`, all equally likely.

    Args:
        seed: Of the draws.
        epoch: Number of the epoch.
        index: Numbers of the maps (B,), int64; nothing else counts.
        n_latent: Axes of the latent space.

    Returns:
        (B,), int64.
    """
    fraction = random_fractions(seed, epoch, index, COMPONENT)
    return 1 + (fraction * n_latent).long()


def keep_first(z: Tensor, n_kept: Tensor | None) -> Tensor:
    """Return `z_j` for j < n_kept and 0 for the others; None keeps all.

    Args:
        z: Latents (B, L).
        n_kept: Axes that stay (B,).
    """
    if n_kept is None:
        return z
    axes = torch.arange(z.shape[1], device=z.device)
    return z * (axes < n_kept[:, None])
