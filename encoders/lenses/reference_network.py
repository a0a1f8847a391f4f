"""The comparison network: the steerable CNN of the e2cnn examples, as public lens studies use it.

Six convolutions of 24, 48, 48, 96, 96 and 64 regular fields with blurred pooling between. Its
convolutions are equivariant, but the map is flattened into a dense layer, which learns places:
the logits change when the image is rotated.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from datagen.errors import ConfigError
from encoders.lenses.inputs import SIDE
from encoders.residual import ConvNorm, check_side
from encoders.symmetry import GroupPool, RegularFields, fields_of

# Regular fields, kernel [px] and zero padding [px] of each convolution; stride and padding [px] of
# the pooling after it.
LAYERS: tuple[tuple[int, int, int, tuple[int, int] | None], ...] = (
    (24, 7, 1, None),
    (48, 5, 2, (2, 2)),
    (48, 5, 2, None),
    (96, 5, 2, (2, 2)),
    (96, 5, 2, None),
    (64, 5, 1, (1, 0)),
)
N_HALVINGS, LEAST_SIDE = 2, 29
# Standard deviation of the Gaussian that blurs before pooling, and where its kernel ends [px].
SIGMA, REACH = 0.66, 2
N_HIDDEN = 64


class ReferenceNetwork(nn.Module):
    """Images -> logits that depend on the orientation of the image.

    Args:
        in_channels: Channels of the images, all scalars.
        n_classes: Number of classes.
        side: Side of the images [px], a multiple of 4 plus 1, >= 29.
        group: A finite group, see `EquivariantNetwork`.

    Raises:
        ConfigError: The group or the side does not fit.
    """

    def __init__(self, in_channels: int, n_classes: int, side: int, group: str) -> None:
        super().__init__()
        check_side(side, N_HALVINGS, LEAST_SIDE, SIDE)
        fields = fields_of(group, "model.network.group")
        if not isinstance(fields, RegularFields):
            raise ConfigError(f"expected a finite group such as C8, but got {group}", group, "C, D")
        layers: list[nn.Module] = []
        n_in = in_channels
        for n, kernel, padding, pool in LAYERS:
            make = fields.conv if layers else fields.lift
            conv = make(n_in, n, kernel, padding=padding)
            layers += [ConvNorm(conv, fields.norm(n)), fields.activation(n)]
            side += 2 * padding + 1 - kernel
            if pool is not None:
                layers.append(Blur(n * fields.size, *pool))
                side = (side + 2 * (pool[1] - REACH) - 1) // pool[0] + 1
            n_in = n
        self.layers = nn.Sequential(*layers, GroupPool(fields.size))
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(n_in * side**2, N_HIDDEN),
            nn.BatchNorm1d(N_HIDDEN),
            nn.ELU(inplace=True),
            nn.Linear(N_HIDDEN, n_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, n_classes) for images (B, in_channels, side, side)."""
        logits: Tensor = self.head(self.layers(images))
        return logits


class Blur(nn.Module):
    """Blurs each channel with a Gaussian and takes every `stride`-th pixel (Zhang 2019).

    Args:
        channels: Channels of the maps.
        stride: Stride [px].
        padding: Zeros around the maps [px].
    """

    kernel: Tensor

    def __init__(self, channels: int, stride: int, padding: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        x = torch.arange(-REACH, REACH + 1.0)
        profile = torch.exp(-(x**2) / (2 * SIGMA**2))
        kernel = torch.outer(profile, profile) / profile.sum() ** 2
        self.register_buffer("kernel", kernel.repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, C, H', W') for (B, C, H, W)."""
        n = maps.shape[1]
        return conv2d(maps, self.kernel, None, self.stride, self.padding, groups=n)
