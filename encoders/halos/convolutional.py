"""The two encoders of the public method: the reduced one, and the full one of inception blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.halos.network import Encoder, dropped, flat_size


class ReducedEncoder(Encoder):
    """Convolutions of 3 px with halvings between them, then all of the last map.

    Args:
        in_channels: Channels of the maps.
        side: Side of the maps [px].
        channels: Channels of each convolution.
        padding: Zeros around each map [px]: 0 as published, 1 for maps smaller than 78 px.

    Raises:
        ConfigError: The maps are too small.
    """

    def __init__(self, in_channels: int, side: int, channels: Sequence[int], padding: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        n, left = in_channels, side
        for n_out in channels:
            layers += [nn.MaxPool2d(2)] if layers else []
            left = (left // 2 if len(layers) > 1 else left) + 2 * padding - 2
            if left < 1:
                raise ConfigError(
                    f"expected larger maps for {len(channels)} convolutions, but got side = "
                    f"{side}; use model.network.encoder.padding=1, or fewer channels",
                    side,
                )
            layers += [nn.Conv2d(n, n_out, 3, padding=padding), nn.GELU()]
            n = n_out
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.n_features = n * left**2

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, n_features)."""
        features: Tensor = self.layers(maps)
        return features


class InceptionEncoder(Encoder):
    """Blocks of convolutions of 1, 3 and 5 px side by side (Szegedy et al. 2015).

    Args:
        in_channels: Channels of the maps.
        side: Side of the maps [px].
        stages: Channels of the blocks; between stages the side is halved.
        dropout: Share of the channels of each block that is left out in training.

    Raises:
        ConfigError: The maps are too small.
    """

    def __init__(
        self, in_channels: int, side: int, stages: Sequence[Sequence[int]], dropout: float
    ) -> None:
        super().__init__()
        if side < 2 ** (len(stages) - 1):
            raise ConfigError(
                f"expected side >= {2 ** (len(stages) - 1)} px for {len(stages)} stages, but got "
                f"side = {side}",
                side,
            )
        layers: list[nn.Module] = []
        n = in_channels
        for number, stage in enumerate(stages):
            layers += [nn.MaxPool2d(2)] if number else []
            for n_out in stage:
                layers += [InceptionBlock(n, n_out), *dropped(dropout, nn.Dropout2d)]
                n = n_out
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.n_features = flat_size(self.layers, in_channels, side)

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, n_features)."""
        features: Tensor = self.layers(maps)
        return features


class InceptionBlock(nn.Module):
    """Four branches of C outputs in all.

    `1x1 C/4 | 1x1 3C/8 -> 3x3 C/2 | 1x1 C/16 -> 5x5 C/8 | maximum over 3x3 -> 1x1 C/8`.

    Args:
        n_in: Input channels.
        n_out: C, a multiple of 16.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        if n_out < 16 or n_out % 16:
            raise ConfigError(
                f"expected channels of stages to be multiples of 16, but got {n_out}", n_out
            )
        self.branches = nn.ModuleList(
            (
                _conv(n_in, n_out // 4, 1),
                nn.Sequential(_conv(n_in, 3 * n_out // 8, 1), _conv(3 * n_out // 8, n_out // 2, 3)),
                nn.Sequential(_conv(n_in, n_out // 16, 1), _conv(n_out // 16, n_out // 8, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), _conv(n_in, n_out // 8, 1)),
            )
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, n_out, H, W) for (B, n_in, H, W)."""
        return torch.cat([branch(maps) for branch in self.branches], dim=1)


def _conv(n_in: int, n_out: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2), nn.ELU(inplace=True))
