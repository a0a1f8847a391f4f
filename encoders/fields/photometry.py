"""Aperture photometry of the brightest source of each square: what the membership network sees.

A network that compresses pixels first cannot add up the light of a galaxy afterwards, and sees
colours through the seeing of each band. Fluxes in apertures are added up linearly and compressed
then, so that differences between bands are colours.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, pad

from encoders.fields.normalize import compress

# Sides of the square apertures [px]: a core, one seeing disc, and a galaxy with its surroundings.
APERTURES_PX = (4, 8, 16)
STEP_PX = 4
# Side of the squares of which the brightest source is taken [px], and how far beyond its square
# a source is measured [px].
SQUARE_PX = 16
REACH_PX = (max(APERTURES_PX) - STEP_PX) // 2
# The aperture in which sources are sought: one seeing disc.
_SOUGHT = 1


def n_channels(n_bands: int) -> int:
    """Return the number of channels of `source_maps`."""
    return len(APERTURES_PX) * n_bands + 1


def source_maps(signal: Tensor) -> Tensor:
    """Measure the brightest source of each square of 16 px.

    It lies at the sample of `aperture_maps` with the largest mean over the bands in the middle
    aperture.

    Args:
        signal: Images in units of the noise (B, C, H, W); H and W multiples of 16.

    Returns:
        (B, 3 C + 1, H / 16, W / 16): the aperture maps at the source, and how much brighter than
        it its brightest neighbouring sample is: 0 for a peak, more on the flank of a source in
        the next square.
    """
    maps = aperture_maps(signal)
    n_bands, side = signal.shape[1], SQUARE_PX // STEP_PX
    found = slice(_SOUGHT * n_bands, (_SOUGHT + 1) * n_bands)
    brightness = maps[:, found].mean(dim=1, keepdim=True)
    peak, place = max_pool2d(brightness, side, return_indices=True)
    measured = _take(torch.cat((maps, max_pool2d(brightness, 3, 1, 1)), dim=1), place)
    measured[:, -1:] -= peak
    return measured


def _take(maps: Tensor, place: Tensor) -> Tensor:
    """Return the values of maps (B, C, H, W) at flat places (B, 1, h, w), shape (B, C, h, w)."""
    batch, channels = maps.shape[:2]
    index = place.flatten(2).expand(batch, channels, -1)
    return maps.flatten(2).gather(2, index).reshape(batch, channels, *place.shape[-2:])


def aperture_maps(signal: Tensor) -> Tensor:
    """Measure signal-to-noise ratios in square apertures around every fourth pixel.

    `asinh(sum(signal) / k)` for a k x k aperture: in pure noise the ratio has unit variance.

    Args:
        signal: Images in units of the noise (B, C, H, W); H and W multiples of 4.

    Returns:
        (B, 3 C, H / 4, W / 4): all bands in the smallest aperture, then in the larger ones; the
        sky beyond the edge counts as empty.
    """
    # Each aperture adds up parts of the next smaller one; the widest joins four of the middle.
    pairs = avg_pool2d(signal, 2) * 4.0
    core = avg_pool2d(pairs, 2) * 4.0
    beyond = avg_pool2d(pad(pairs, (3, 3, 3, 3)), 4, 2) * 16.0  # from one sample outside the edge
    rows = beyond[..., :-2, :] + beyond[..., 2:, :]
    sums = (core, beyond[..., 1:-1, 1:-1], rows[..., :-2] + rows[..., 2:])
    maps = [total / side for total, side in zip(sums, APERTURES_PX, strict=True)]
    return compress(torch.cat(maps, dim=1))
