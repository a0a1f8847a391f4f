"""Networks from maps to a small latent space, and from there to classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.factory import build_part
from encoders.halos.bottleneck import keep_first
from encoders.layers import check_images


class Outputs(NamedTuple):
    """What a network says of maps.

    Args:
        z: Latents (B, L); the first one is the scaled logarithm of the cross-section.
        logits: Of the classes (B, K); None without a head.
        maps: What a decoder makes of the latents (B, C, H, H); None without one.
        log_variance: Of the latents, where they are distributions (B, L); None elsewhere.
        features: What the latents are made of (B, F); None where z are features.
    """

    z: Tensor
    logits: Tensor | None = None
    maps: Tensor | None = None
    log_variance: Tensor | None = None
    features: Tensor | None = None


class Encoder(nn.Module, ABC):
    """Turns maps into features.

    Derived classes take `in_channels` and `side` besides their own options.
    """

    n_features: int

    @abstractmethod
    def forward(self, maps: Tensor) -> Tensor:
        """Return features (B, n_features) for transformed maps (B, C, side, side)."""


class CompactNetwork(nn.Module):
    """Encoder -> hidden layer -> latents -> ordered bottleneck -> hidden layer -> logits.

    Args:
        in_channels: Channels of the maps.
        n_classes: Number of classes.
        side: Side of the maps [px].
        encoder: `_target_` and options of an `Encoder`.
        n_hidden: Features between encoder and latents.
        n_latent: Axes of the latent space.
        n_head: Features between latents and logits.
        dropout: Share of the features of both hidden layers that is left out in training.

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
        n_head: int,
        dropout: float,
    ) -> None:
        super().__init__()
        check_sizes(n_hidden=n_hidden, n_latent=n_latent, n_head=n_head)
        self.in_channels, self.side, self.n_latent = in_channels, side, n_latent
        self.encoder = build_encoder(encoder, in_channels, side)
        self.to_latent = nn.Sequential(
            *dense(self.encoder.n_features, n_hidden, dropout), nn.Linear(n_hidden, n_latent)
        )
        self.head = nn.Sequential(*dense(n_latent, n_head, dropout), nn.Linear(n_head, n_classes))

    def forward(self, maps: Tensor, n_kept: Tensor | None = None) -> Outputs:
        """Return latents and logits for transformed maps.

        Args:
            maps: (B, C, side, side).
            n_kept: Latents that the head sees (B,); None shows it all.

        Raises:
            ConfigError: The maps have another shape.
        """
        check_images(maps, self.in_channels, self.side, "maps")
        features = self.to_latent[:-1](self.encoder(maps))
        z: Tensor = self.to_latent[-1](features)
        return Outputs(z, self.head(keep_first(z, n_kept)), features=features)


class EncoderOnly(nn.Module):
    """Encoder -> hidden layer -> target or logits, without a latent space: to compare with.

    Args:
        in_channels: Channels of the maps.
        n_classes: Number of classes.
        side: Side of the maps [px].
        encoder: `_target_` and options of an `Encoder`.
        n_hidden: Features between encoder and output.
        output: `target`: z is the scaled logarithm of the cross-section, and there are no logits;
            `classes`: there are logits, and z are the features before them.
        dropout: Share of the features that is left out in training.

    Raises:
        ConfigError: A value is out of range, or the encoder does not fit.
    """

    n_latent = 0

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        side: int,
        encoder: Mapping[str, Any],
        n_hidden: int,
        output: str,
        dropout: float,
    ) -> None:
        super().__init__()
        check_sizes(n_hidden=n_hidden)
        if output not in ("target", "classes"):
            raise ConfigError(
                f"expected model.network.output to be target or classes, but got output = {output}",
                output,
                ("target", "classes"),
            )
        self.in_channels, self.side, self.has_logits = in_channels, side, output == "classes"
        self.encoder = build_encoder(encoder, in_channels, side)
        self.hidden = nn.Sequential(*dense(self.encoder.n_features, n_hidden, dropout))
        self.last = nn.Linear(n_hidden, n_classes if self.has_logits else 1)

    def forward(self, maps: Tensor, n_kept: Tensor | None = None) -> Outputs:
        """Return features and logits, or targets (B, 1), for transformed maps."""
        check_images(maps, self.in_channels, self.side, "maps")
        features = self.hidden(self.encoder(maps))
        last = self.last(features)
        return Outputs(features, last) if self.has_logits else Outputs(last, features=features)


def dense(n_in: int, n_out: int, dropout: float) -> list[nn.Module]:
    """Return a linear layer, its activation, and dropout where it is more than 0.

    Raises:
        ConfigError: `dropout` is not in [0, 1).
    """
    layers: list[nn.Module] = [nn.Linear(n_in, n_out), nn.SELU(inplace=True)]
    return layers + dropped(dropout, nn.Dropout)


def dropped(share: float, kind: type[nn.Module]) -> list[nn.Module]:
    """Return a dropout layer, none for 0.

    Raises:
        ConfigError: The share is not in [0, 1).
    """
    if not 0.0 <= share < 1.0:
        raise ConfigError(f"expected 0 <= dropout < 1, but got dropout = {share}", share)
    return [kind(share)] if share else []


def build_encoder(spec: Mapping[str, Any], in_channels: int, side: int) -> Encoder:
    """Build an encoder for maps of some channels and side [px]."""
    return build_part(spec, Encoder, in_channels=in_channels, side=side)  # type: ignore[type-abstract]


def check_sizes(**sizes: int) -> None:
    """Raise `ConfigError` unless all sizes of `model.network` are >= 1."""
    for name, value in sizes.items():
        if value < 1:
            raise ConfigError(
                f"expected model.network.{name} >= 1, but got {name} = {value}", value
            )


def flat_size(layers: nn.Module, in_channels: int, side: int) -> int:
    """Return how many numbers layers make of a map."""
    with torch.no_grad():
        return int(layers(torch.zeros(1, in_channels, side, side)).numel())
