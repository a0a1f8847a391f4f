"""An encoder of log-polar maps whose answer turns and mirrors of a map leave as it is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.halos.network import Encoder
from encoders.polar import unwrap

# Azimuths for which quarter turns of a map take points of a circle to its points.
QUARTERS = 4


class PolarEncoder(Encoder):
    """Waves along circles about the centre of a map, whose radii grow by a constant factor.

    The mean over a circle and the amplitudes of waves with m = 1 to M periods,

    `a_m(r) = |1 / n sum_k map(r, 2 pi k / n) exp(-2 pi i m k / n)|`,

    do not know how a map is turned or mirrored. a_0 is the profile of a halo, a_2 its ellipticity,
    which self-interaction takes from the core; others see what is off the centre. Each is brought
    to mean 0 and deviation 1 over the training maps.

    Args:
        in_channels: Channels of the maps.
        side: Side of the maps [px].
        n_radii: Circles, from `inner` to the largest that fits.
        n_azimuths: n, points on a circle, a multiple of 4.
        inner: Radius of the smallest circle [px].
        n_waves: M, below n / 2; 0 leaves the profile.

    Raises:
        ConfigError: A number is out of range.
    """

    radii: Tensor

    def __init__(
        self,
        in_channels: int,
        side: int,
        n_radii: int,
        n_azimuths: int,
        inner: float,
        n_waves: int,
    ) -> None:
        super().__init__()
        outer = (side - 1) / 2
        if not 0 < inner < outer:
            raise ConfigError(
                f"expected 0 < inner < {outer:g} px for maps of {side} px, but got inner = {inner}",
                inner,
            )
        if n_radii < 2 or n_azimuths < QUARTERS or n_azimuths % QUARTERS:
            raise ConfigError(
                f"expected n_radii >= 2 and n_azimuths to be a multiple of {QUARTERS}, but got "
                f"n_radii = {n_radii}, n_azimuths = {n_azimuths}",
                (n_radii, n_azimuths),
            )
        if not 0 <= n_waves < n_azimuths / 2:
            raise ConfigError(
                f"expected 0 <= n_waves < {n_azimuths // 2}, half of n_azimuths, but got n_waves = "
                f"{n_waves}",
                n_waves,
            )
        self.middle, self.n_azimuths, self.n_waves = outer, n_azimuths, n_waves
        radii = torch.logspace(math.log10(inner), math.log10(outer), n_radii)
        # The last one may else lie a rounding outside of the map.
        self.register_buffer("radii", radii.clamp_max(outer), persistent=False)
        self.n_features = in_channels * n_radii * (n_waves + 1)
        self.norm = nn.BatchNorm1d(self.n_features, affine=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, n_features)."""
        n = len(maps)
        centre = maps.new_full((n, 2), self.middle)
        circles = unwrap(maps, centre, self.radii.expand(n, -1), self.n_azimuths)
        features: Tensor = self.norm(amplitudes(circles, self.n_waves).flatten(1))
        return features


def amplitudes(circles: Tensor, n_waves: int) -> Tensor:
    """Return the mean of circles and the amplitudes of waves along them (..., n_waves + 1).

    Args:
        circles: Values at equal steps of azimuth (..., n), n > 2 n_waves.
        n_waves: Largest number of periods.
    """
    waves = torch.fft.rfft(circles.float(), dim=-1, norm="forward")[..., : n_waves + 1]
    return torch.cat((waves[..., :1].real, waves[..., 1:].abs()), dim=-1)
