"""Building blocks of convolutional networks, what they accept, and how far they see."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from datagen.errors import ConfigError


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch normalisation, SiLU.

    Batch normalisation uses the statistics of the batch in training and fixed ones at evaluation,
    so that a prediction depends neither on its batch-mates nor on where a window was cut.

    Args:
        n_in: Input channels.
        n_out: Output channels.
        kernel: Kernel size [px of its input].
        stride: Stride [px of its input].
        padding: Zero padding on each side [px of its input].
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__(
            nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(n_out),
            nn.SiLU(inplace=True),
        )


def pointwise(n_in: int, n_out: int) -> ConvNormAct:
    """Return a block that treats every place on its own: kernel 1."""
    return ConvNormAct(n_in, n_out, 1, 1, 0)


def check_images(images: Tensor, in_channels: int, side: int, name: str = "images") -> None:
    """Raise `ConfigError` unless images are (B, in_channels, side, side).

    Args:
        images: Any tensor.
        in_channels: Channels that a network was built for.
        side: Likewise [px].
        name: What the images are called.
    """
    if images.ndim != 4 or images.shape[1:] != (in_channels, side, side):
        raise ConfigError(
            f"expected {name} of shape (B, channels, side, side) = (B, {in_channels}, {side}, "
            f"{side}), for which the network was built, but got {tuple(images.shape)}",
            tuple(images.shape),
            (in_channels, side, side),
        )


def input_span(layers: Iterable[nn.Module], first: int, last: int) -> tuple[int, int]:
    """Return which input rows the output rows `first` to `last` depend on.

    Walks backwards: a convolution or pooling with kernel k, stride s, padding p and dilation d
    reads the rows i s - p to i s - p + d (k - 1) for its output row i. Columns behave alike.

    Args:
        layers: Modules in the order of the forward pass; only convolutions and poolings count.
        first: First output row.
        last: Last output row (included).

    Returns:
        First and last input row (included); rows outside the image are padding.
    """
    steps = [m for layer in layers for m in layer.modules() if isinstance(m, _WINDOWED)]
    for step in reversed(steps):
        kernel, stride, padding = (_last(x) for x in (step.kernel_size, step.stride, step.padding))
        dilation = _last(getattr(step, "dilation", 1))
        first = first * stride - padding
        last = last * stride - padding + dilation * (kernel - 1)
    return first, last


_WINDOWED = (nn.Conv2d, nn.Conv3d, nn.AvgPool2d)


def _last(setting: Any) -> int:  # noqa: ANN401 - torch allows a number or a tuple of them
    """Return the entry of the last axis, which is a column axis."""
    return int(setting if isinstance(setting, int) else setting[-1])
