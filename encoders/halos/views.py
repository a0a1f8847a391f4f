"""What a map looks like without a trained encoder: rings about its centre."""

from __future__ import annotations

import torch
from torch import Tensor

N_RINGS = 8
# Least scatter that is told from none [deviations of the transformed pixels].
LEAST = 1e-4


def ring_view(maps: Tensor) -> Tensor:
    """Return mean, and logarithms of scatter and roughness, of rings about the centre of maps.

    An encoder that was trained on halos may see one in noise; its pixels tell the difference. The
    roughness is the rms difference between neighbours in a row. Logarithms make little noise as
    striking as much noise.

    Args:
        maps: Transformed (B, C, H, H).

    Returns:
        (B, 3 C N_RINGS), float32.
    """
    pixels = maps.float()
    rough = torch.zeros_like(pixels)
    rough[..., 1:] = pixels[..., 1:] - pixels[..., :-1]
    rings = ring_weights(maps.shape[-1]).to(pixels.device)
    mean, square, difference = (
        plane.flatten(2) @ rings.T for plane in (pixels, pixels.square(), rough.square())
    )
    spreads = (0.5 * x.clamp_min(LEAST**2).log() for x in (square - mean.square(), difference))
    return torch.cat((mean, *spreads), dim=1).flatten(1)


def ring_weights(side: int) -> Tensor:
    """Return the weight of each pixel in the mean over each ring (N_RINGS, side^2).

    Rings are equally wide, out to half the side; small maps leave inner ones empty.
    """
    x = (torch.arange(side) - 0.5 * (side - 1)) / (0.5 * side)
    radius = (x.square() + x.square()[:, None]).sqrt().flatten()
    number = (radius * N_RINGS).long()
    is_in = (number == torch.arange(N_RINGS)[:, None]).float()
    return is_in / is_in.sum(dim=1, keepdim=True).clamp_min(1.0)
