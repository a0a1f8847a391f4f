"""An encoder of log-polar maps, which turns of a map only shift."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.halos.network import Encoder
from encoders.polar import unwrap

# Kernel along radius and along azimuth [points].
KERNEL = (3, 5)


class PolarEncoder(Encoder):
    """Convolutions on circles about the centre of a map, whose radii grow by a constant factor.

    A turn shifts the circles, for which convolutions are padded in a circle; the mean over azimuth
    forgets the shift, but for what halving the azimuths leaves of it. What is left are channels at
    some radii: a profile.

    Args:
        in_channels: Channels of the maps.
        side: Side of the maps [px].
        n_radii: Circles, from `inner` to the largest that fits.
        n_azimuths: Points on a circle.
        inner: Radius of the smallest circle [px].
        channels: Of the convolutions; after each both axes are halved.

    Raises:
        ConfigError: The axes cannot be halved so often, or `inner` is out of range.
    """

    radii: Tensor

    def __init__(
        self,
        in_channels: int,
        side: int,
        n_radii: int,
        n_azimuths: int,
        inner: float,
        channels: Sequence[int],
    ) -> None:
        super().__init__()
        outer, step = (side - 1) / 2, 2 ** len(channels)
        if not 0 < inner < outer:
            raise ConfigError(
                f"expected 0 < inner < {outer:g} px for maps of {side} px, but got inner = {inner}",
                inner,
            )
        if n_radii % step or n_azimuths % step or min(n_radii, n_azimuths) < step:
            raise ConfigError(
                f"expected n_radii and n_azimuths to be multiples of {step} for {len(channels)} "
                f"halvings, but got n_radii = {n_radii}, n_azimuths = {n_azimuths}",
                (n_radii, n_azimuths),
                step,
            )
        self.middle, self.n_azimuths = outer, n_azimuths
        radii = torch.logspace(math.log10(inner), math.log10(outer), n_radii)
        # The last one may else lie a rounding outside of the map.
        self.register_buffer("radii", radii.clamp_max(outer), persistent=False)
        layers: list[nn.Module] = []
        n = in_channels
        for n_out in channels:
            layers += [CircularConv(n, n_out), nn.AvgPool2d(2)]
            n = n_out
        self.layers = nn.Sequential(*layers)
        self.n_features = n * (n_radii // step)

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, n_features)."""
        n = len(maps)
        centre = maps.new_full((n, 2), self.middle)
        circles = unwrap(maps, centre, self.radii.expand(n, -1), self.n_azimuths)
        features: Tensor = self.layers(circles).mean(dim=3).flatten(1)
        return features


class CircularConv(nn.Module):
    """Convolution on (radius, azimuth), batch normalisation, SiLU; azimuths have no end.

    Args:
        n_in: Input channels.
        n_out: Output channels.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, KERNEL, bias=False)
        self.norm = nn.BatchNorm2d(n_out)

    def forward(self, circles: Tensor) -> Tensor:
        """Return (B, n_out, R, A) for (B, n_in, R, A)."""
        rows, columns = (k // 2 for k in KERNEL)
        around = nn.functional.pad(circles, (columns, columns, 0, 0), mode="circular")
        padded = nn.functional.pad(around, (0, 0, rows, rows), mode="replicate")
        return nn.functional.silu(self.norm(self.conv(padded)))
