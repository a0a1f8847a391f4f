"""The residual network that steerable and ordinary convolutions share, and parts of others."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from datagen.errors import ConfigError

STEM_KERNEL = 5

# Names of convolutions and of the normalisations after them.
Pairs = tuple[tuple[str, str], ...]


@runtime_checkable
class HasPlain(Protocol):
    """A module that is the same function as an ordinary one at evaluation."""

    def plain(self) -> nn.Module:
        """Return that ordinary module, which shares nothing with this one."""


class RunningNorm(nn.Module, ABC):
    """A normalisation of our own that keeps statistics of what it has seen, as torch's do."""

    @abstractmethod
    def affine(self) -> tuple[Tensor, Tensor]:
        """Return the scale and shift of every channel at evaluation (C,)."""


class Fields(ABC):
    """What stands between the layers: how fields are convolved, normalised and made invariant."""

    @abstractmethod
    def lift(self, n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Module:
        """Return a convolution from `n_in` scalar channels to `n_out` fields."""

    @abstractmethod
    def conv(self, n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Module:
        """Return a convolution from `n_in` to `n_out` fields."""

    @abstractmethod
    def norm(self, n: int) -> nn.Module:
        """Return the batch normalisation of `n` fields."""

    @abstractmethod
    def activation(self, n: int) -> nn.Module:
        """Return the nonlinearity of `n` fields."""

    @abstractmethod
    def invariants(self, n: int) -> nn.Module:
        """Return what makes channels that the group leaves alone out of `n` fields."""

    @abstractmethod
    def n_invariants(self, n: int) -> int:
        """Return how many channels `invariants` makes."""


class ConvNorm(nn.Module):
    """A convolution and the normalisation of its output.

    Args:
        conv: Convolution without bias.
        norm: Batch normalisation, or a module whose `affine()` says what it does at evaluation.
    """

    def __init__(self, conv: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, C_out, H', W') for (B, C_in, H, W)."""
        normed: Tensor = self.norm(self.conv(images))
        return normed

    @torch.no_grad()
    def plain(self) -> nn.Conv2d:
        """Return what both do at evaluation as one convolution, `s conv(x) + t`."""
        conv = self.conv.plain() if isinstance(self.conv, HasPlain) else copy.deepcopy(self.conv)
        assert isinstance(conv, nn.Conv2d)
        scale, shift = affine_of(self.norm)
        conv.weight.mul_(scale[:, None, None, None])
        conv.bias = nn.Parameter(shift)
        return conv


class ResidualBlock(nn.Module):
    """`activation(shortcut(x) + norm(conv(activation(norm(conv(x))))))` (He et al. 2016).

    Args:
        fields: What the layers are made of.
        n_in: Fields of the input.
        n_out: Fields of the output.
        stride: 2 halves the side, and the shortcut averages over 3 x 3 pixels.
    """

    def __init__(self, fields: Fields, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(fields.conv(n_in, n_out, 3, stride=stride), fields.norm(n_out))
        self.inner = fields.activation(n_out)
        self.second = ConvNorm(fields.conv(n_out, n_out, 3), fields.norm(n_out))
        self.outer = fields.activation(n_out)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(nn.AvgPool2d(3, stride, 1))
        if stride > 1 or n_in != n_out:
            self.shortcut.append(ConvNorm(fields.conv(n_in, n_out, 1), fields.norm(n_out)))

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, C_out, H', W') for (B, C_in, H, W)."""
        branch = self.second(self.inner(self.first(images)))
        activated: Tensor = self.outer(branch + self.shortcut(images))
        return activated


class ResidualNetwork(nn.Module):
    """Images -> logits: a stem at full resolution, residual stages, means and maxima over space.

    Args:
        fields: What the layers are made of.
        in_channels: Channels of the images.
        n_classes: Number of classes, or of features.
        widths: Fields of the stem and of every stage.
        n_blocks: Residual blocks of every stage after the one that halves the side.
        first_stride: 1: the first stage leaves the side as it is.
    """

    def __init__(
        self,
        fields: Fields,
        in_channels: int,
        n_classes: int,
        widths: Sequence[int],
        n_blocks: Sequence[int],
        first_stride: int = 2,
    ) -> None:
        super().__init__()
        n, stride = widths[0], first_stride
        lift = ConvNorm(fields.lift(in_channels, n, STEM_KERNEL), fields.norm(n))
        layers: list[nn.Module] = [lift, fields.activation(n)]
        for n_out, n_more in zip(widths[1:], n_blocks, strict=True):
            layers.append(ResidualBlock(fields, n, n_out, stride))
            layers += [ResidualBlock(fields, n_out, n_out, stride=1) for _ in range(n_more)]
            n, stride = n_out, 2
        self.layers = nn.Sequential(*layers)
        self.invariants = fields.invariants(n)
        self.head = nn.Linear(2 * fields.n_invariants(n), n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, n_classes) for images (B, in_channels, side, side)."""
        maps = self.invariants(self.layers(images))
        # The mean says how much there is of something, the maximum whether it is anywhere.
        pooled = torch.cat((maps.mean((2, 3)), maps.amax((2, 3))), dim=1)
        logits: Tensor = self.head(pooled)
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is 1x1 where the shape changes.

    Args:
        n_in: Input channels.
        n_out: Output channels.
        stride: Stride of the first convolution [px of its input].
    """

    foldable: ClassVar[Pairs] = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, n_out, ceil(H / stride), ceil(W / stride)) for (B, n_in, H, W)."""
        y = relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return relu(y + self.downsample(x), inplace=True)


def check_side(side: int, n_halvings: int, least: int = 1, name: str = "side") -> None:
    """Raise `ConfigError` unless halvings leave the centre of the image on a pixel.

    A stride of 2 takes the pixels 0, 2, ..., which lie symmetric about the centre of an odd side
    only: the side must be `m 2^n_halvings + 1`. Messages call it `name`.
    """
    step = 2**n_halvings
    least = max(least, step + 1)
    if side >= least and side % step == 1 % step:
        return
    below = max((side - 1) // step * step + 1, least)
    good = [below] if side < below else [below, below + step]
    raise ConfigError(
        f"expected {name} to be a multiple of {step} plus 1, for halving breaks the symmetry of "
        f"others, and >= {least}, but got {name} = {side}; simulate, crop or pad images to "
        f"{' or '.join(map(str, good))} px",
        side,
        good,
    )


def check_layout(in_channels: int, channels: Sequence[int], n_blocks: Sequence[int]) -> None:
    """Raise `ConfigError` unless there are channels for a stem and for each of the stages."""
    if in_channels < 1 or min(channels, default=0) < 1 or min(n_blocks, default=0) < 0:
        raise ConfigError(
            f"expected in_channels and channels >= 1 and n_blocks >= 0, but got "
            f"in_channels = {in_channels}, channels = {channels}, n_blocks = {n_blocks}",
            (in_channels, channels, n_blocks),
        )
    if len(channels) != len(n_blocks) + 1:
        raise ConfigError(
            f"expected channels to name the stem and then each of the {len(n_blocks)} stages of "
            f"n_blocks, but got channels = {channels}",
            channels,
            len(n_blocks) + 1,
        )


def start_he(network: nn.Module) -> None:
    """Draw weights of convolutions so that ReLU layers keep the size of gradients; no biases.

    He et al. 2015, ICCV, doi:10.1109/ICCV.2015.123: variance 2 / (outputs that an input reaches).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def affine_of(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the scale and shift of every channel by a normalisation at evaluation (C,)."""
    if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
        scale, shift = norm.affine()  # type: ignore[operator]
        return scale, shift
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - scale * norm.running_mean
