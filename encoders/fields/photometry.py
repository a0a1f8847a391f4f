"""Aperture photometry on a grid: what the membership network sees instead of pixels.

A network that compresses pixels first cannot add up the light of a galaxy afterwards, and sees
colours through the seeing of each band. Fluxes in apertures are added up linearly and compressed
then, so that differences between bands are colours.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from encoders.fields.normalize import compress

# Sides of the square apertures [px]: a core, one seeing disc, and a galaxy with its surroundings.
APERTURES_PX = (4, 8, 16)
STEP_PX = 4


def aperture_maps(signal: Tensor) -> Tensor:
    """Measure signal-to-noise ratios in square apertures around every fourth pixel.

    `asinh(sum(signal) / k)` for a k x k aperture: in pure noise the ratio has unit variance.

    Args:
        signal: Images in units of the noise (B, C, H, W); H and W multiples of 4.

    Returns:
        (B, 3 C, H / 4, W / 4): all bands in the smallest aperture, then in the larger ones; the
        sky beyond the edge counts as empty.
    """
    maps = [
        avg_pool2d(signal, side, STEP_PX, padding=(side - STEP_PX) // 2) * side
        for side in APERTURES_PX
    ]
    return compress(torch.cat(maps, dim=1))
