"""The twin of the equivariant network with ordinary convolutions, to compare with."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from encoders.lenses.inputs import SIDE
from encoders.residual import ConvNorm, Fields, ResidualNetwork, check_layout, check_side


class PlainFields(Fields):
    """Channels that mean nothing to a group."""

    def lift(self, n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Module:
        """Return a convolution of the images."""
        return self.conv(n_in, n_out, kernel, stride)

    def conv(self, n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Module:
        """Return a convolution from `n_in` to `n_out` channels."""
        return nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False)

    def norm(self, n: int) -> nn.Module:
        """Return the batch normalisation of `n` channels."""
        return nn.BatchNorm2d(n)

    def activation(self, n: int) -> nn.Module:
        """Return the nonlinearity."""
        return nn.ReLU(inplace=True)

    def invariants(self, n: int) -> nn.Module:
        """Return the layer that mixes the channels of a pixel, as the twin's does."""
        return nn.Sequential(ConvNorm(self.conv(n, n, 1), self.norm(n)), self.activation(n))

    def n_invariants(self, n: int) -> int:
        """Return `n`."""
        return n


class PlainNetwork(ResidualNetwork):
    """The same layers, channels, normalisation and pooling as `EquivariantNetwork`.

    It holds about as many times more weights as the group has elements, at the same cost.

    Args:
        in_channels: Channels of the images.
        n_classes: Number of classes.
        side: Side of the images [px], `m 2^k + 1` for k stages, as for its twin.
        channels: Channels of the stem and of each stage.
        n_blocks: Residual blocks of each stage after the one that halves the side.

    Raises:
        ConfigError: The side or a number does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        side: int,
        channels: Sequence[int],
        n_blocks: Sequence[int],
    ) -> None:
        check_layout(in_channels, channels, n_blocks)
        check_side(side, len(n_blocks), name=SIDE)
        super().__init__(PlainFields(), in_channels, n_classes, channels, n_blocks)
