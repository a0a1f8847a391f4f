"""ConvNeXt (Liu et al. 2022, arXiv:2201.03545) as an encoder of maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.halos.network import Encoder

# As published: stem of 4 px, kernel 7, first weight of what a block adds, epsilon of the norms.
PATCH, KERNEL, FIRST_SCALE, EPSILON = 4, 7, 1e-6, 1e-6


class ConvNeXtEncoder(Encoder):
    """Stages of depthwise convolutions between halvings; the mean over the last map.

    Args:
        in_channels: Channels of the maps.
        side: Side of the maps [px].
        channels: Of the stages.
        depths: Blocks of each stage.
        drop_path: Chance of the last block to be left out for a map in training; it grows from 0
            (Huang et al. 2016, arXiv:1603.09382).

    Raises:
        ConfigError: The maps are too small, or the options do not fit one another.
    """

    def __init__(
        self,
        in_channels: int,
        side: int,
        channels: Sequence[int],
        depths: Sequence[int],
        drop_path: float,
    ) -> None:
        super().__init__()
        _check(side, channels, depths, drop_path)
        chances = torch.linspace(0.0, drop_path, sum(depths)).tolist()
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, channels[0], PATCH, PATCH),
            ChannelNorm(channels[0]),
        ]
        n = channels[0]
        for number, (n_out, depth) in enumerate(zip(channels, depths, strict=True)):
            layers += [ChannelNorm(n), nn.Conv2d(n, n_out, 2, 2)] if number else []
            layers += [Block(n_out, chances.pop(0)) for _ in range(depth)]
            n = n_out
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(n, eps=EPSILON)
        self.n_features = n
        self.apply(_initialise)

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, n_features)."""
        features: Tensor = self.norm(self.layers(maps).mean(dim=(2, 3)))
        return features


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each place.

    Args:
        n: Channels.
    """

    def __init__(self, n: int) -> None:
        super().__init__(n, eps=EPSILON)

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, n, H, W) for (B, n, H, W)."""
        return super().forward(maps.movedim(1, -1)).movedim(-1, 1)


class Block(nn.Module):
    """Depthwise convolution, normalisation, and two dense layers at each place, added to the maps.

    Args:
        n: Channels.
        drop: Chance to be left out for a map in training.
    """

    def __init__(self, n: int, drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.depthwise = nn.Conv2d(n, n, KERNEL, padding=KERNEL // 2, groups=n)
        self.layers = nn.Sequential(
            nn.LayerNorm(n, eps=EPSILON), nn.Linear(n, 4 * n), nn.GELU(), nn.Linear(4 * n, n)
        )
        self.scale = nn.Parameter(torch.full((n,), FIRST_SCALE))

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, n, H, W) for (B, n, H, W)."""
        change = self.scale * self.layers(self.depthwise(maps).movedim(1, -1))
        if self.training and self.drop:
            is_kept = torch.rand(len(maps), 1, 1, 1, device=maps.device) >= self.drop
            change = change * is_kept / (1.0 - self.drop)
        added: Tensor = maps + change.movedim(-1, 1)
        return added


def _initialise(part: nn.Module) -> None:
    if isinstance(part, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(part.weight, std=0.02)
        assert part.bias is not None
        nn.init.zeros_(part.bias)


def _check(side: int, channels: Sequence[int], depths: Sequence[int], drop_path: float) -> None:
    least = PATCH * 2 ** (len(channels) - 1)
    if not channels or len(channels) != len(depths) or min(*channels, *depths) < 1:
        raise ConfigError(
            "expected channels and depths >= 1 for as many stages, but got channels = "
            f"{list(channels)}, depths = {list(depths)}",
            (list(channels), list(depths)),
        )
    if side < least:
        raise ConfigError(
            f"expected side >= {least} px for {len(channels)} stages, but got side = {side}", side
        )
    if not 0.0 <= drop_path < 1.0:
        raise ConfigError(
            f"expected 0 <= drop_path < 1, but got drop_path = {drop_path}", drop_path
        )
