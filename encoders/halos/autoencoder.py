"""A variational autoencoder of maps: to compare with, and to look at what latents mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.halos.bottleneck import keep_first
from encoders.halos.network import Outputs, build_encoder, check_sizes, dense
from encoders.layers import check_images

# Logarithms of variances beyond this would overflow in single precision.
WIDEST = 20.0


class Autoencoder(nn.Module):
    """Encoder -> normal distribution of latents -> ordered bottleneck -> decoder.

    In training the decoder sees latents drawn from their distributions, at evaluation their means.

    Args:
        in_channels: Channels of the maps.
        n_classes: Number of classes, which it does not tell apart.
        side: Side of the maps [px].
        encoder: `_target_` and options of an `Encoder`.
        n_hidden: Features between encoder and latents.
        n_latent: Axes of the latent space.
        decoder: Channels of the decoder; each layer doubles the side.
        dropout: Share of the features before the latents that is left out in training.

    Raises:
        ConfigError: A number is out of range, or the encoder does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        side: int,
        encoder: Mapping[str, Any],
        n_hidden: int,
        n_latent: int,
        decoder: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        check_sizes(n_hidden=n_hidden, n_latent=n_latent)
        self.in_channels, self.side, self.n_latent = in_channels, side, n_latent
        self.encoder = build_encoder(encoder, in_channels, side)
        self.to_latent = nn.Sequential(
            *dense(self.encoder.n_features, n_hidden, dropout), nn.Linear(n_hidden, 2 * n_latent)
        )
        self.decoder = Decoder(n_latent, in_channels, side, decoder)

    def forward(self, maps: Tensor, n_kept: Tensor | None = None) -> Outputs:
        """Return means and variances of latents, and decoded maps.

        Args:
            maps: Transformed (B, C, side, side).
            n_kept: Latents that the decoder sees (B,); None shows it all.

        Raises:
            ConfigError: The maps have another shape.
        """
        check_images(maps, self.in_channels, self.side, "maps")
        features = self.to_latent[:-1](self.encoder(maps))
        z, log_variance = self.to_latent[-1](features).chunk(2, dim=1)
        log_variance = log_variance.clamp(-WIDEST, WIDEST)
        seen = z
        if self.training:
            seen = z + torch.randn_like(z) * (0.5 * log_variance).exp()
        decoded = self.decoder(keep_first(seen, n_kept))
        return Outputs(z, None, decoded, log_variance, features)


class Decoder(nn.Module):
    """Latents -> maps: a dense layer, and convolutions between doublings of the side.

    Args:
        n_latent: Axes of the latent space.
        out_channels: Channels of the maps.
        side: Side of the maps [px].
        channels: Of each layer.

    Raises:
        ConfigError: There is no layer, or the first one would be smaller than a pixel.
    """

    def __init__(
        self, n_latent: int, out_channels: int, side: int, channels: Sequence[int]
    ) -> None:
        super().__init__()
        if not channels or side < 2 ** len(channels):
            raise ConfigError(
                f"expected 1 to {side.bit_length() - 1} layers of model.network.decoder for maps "
                f"of {side} px, but got decoder = {list(channels)}",
                list(channels),
            )
        # Doubled so often it covers the map; what lies beyond is cut.
        self.side, first = side, -(-side // 2 ** len(channels))
        layers: list[nn.Module] = [
            nn.Linear(n_latent, channels[0] * first**2),
            nn.Unflatten(1, (channels[0], first, first)),
        ]
        for n_in, n_out in zip(channels, [*channels[1:], channels[-1]], strict=True):
            layers += [
                nn.SELU(),
                nn.Upsample(scale_factor=2.0),
                nn.Conv2d(n_in, n_out, 3, padding=1),
            ]
        self.layers = nn.Sequential(
            *layers, nn.SELU(), nn.Conv2d(channels[-1], out_channels, 3, padding=1)
        )

    def forward(self, z: Tensor) -> Tensor:
        """Return maps (B, out_channels, side, side) for latents (B, n_latent)."""
        maps: Tensor = self.layers(z)
        start = (maps.shape[-1] - self.side) // 2
        return maps[..., start : start + self.side, start : start + self.side]
