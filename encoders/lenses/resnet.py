"""Residual networks: ResNet-18 and the pre-activation ResNet-101.

Modules of ResNet-18 bear the names that its widely used weights files have.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import relu

from encoders.layers import check_images
from encoders.lenses.inputs import check_inputs
from encoders.residual import BasicBlock, Pairs, start_he

# Channels of the four stages, before the expansion of bottlenecks.
WIDTHS = (64, 128, 256, 512)
BOTTLENECKS = (3, 4, 23, 3)
EXPANSION = 4


class ResNet18(nn.Module):
    """ResNet-18: four stages of two blocks `relu(x + f(x))`, global mean, one linear layer.

    He et al. 2016, CVPR, doi:10.1109/CVPR.2016.90.

    Example:
        >>> ResNet18(in_channels=1, n_classes=3, side=65)(torch.zeros(2, 1, 65, 65)).shape
        torch.Size([2, 3])

    Args:
        in_channels: Bands of an image.
        n_classes: Classes.
        side: Side of an image [px]; the weights do not depend on it.

    Raises:
        ConfigError: A number is too small.
    """

    # Where weights files of other bands and classes differ, see `encoders.lenses.weights`.
    stem_name: ClassVar[str] = "conv1"
    head_name: ClassVar[str] = "fc"
    # See `encoders.lenses.export.plain`.
    foldable: ClassVar[Pairs] = (("conv1", "bn1"),)

    def __init__(self, in_channels: int, n_classes: int, side: int) -> None:
        super().__init__()
        check_inputs(in_channels, n_classes, side)
        self.in_channels, self.side = in_channels, side
        self.conv1 = nn.Conv2d(in_channels, WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], stride=1)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], stride=2)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], stride=2)
        self.layer4 = _stage(WIDTHS[2], WIDTHS[3], stride=2)
        self.fc = nn.Linear(WIDTHS[-1], n_classes)
        start_he(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, n_classes) for stretched images (B, C, side, side).

        Raises:
            ConfigError: The images have another shape.
        """
        check_images(images, self.in_channels, self.side)
        x = self.maxpool(relu(self.bn1(self.conv1(images)), inplace=True))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        logits: Tensor = self.fc(x.mean(dim=(-2, -1)))
        return logits


class ResNet101(nn.Module):
    """ResNet-101 V2: 3, 4, 23 and 3 bottlenecks `x + f(x)` with normalisation in front.

    He et al. 2016, ECCV, doi:10.1007/978-3-319-46493-0_38, as users know it from Keras
    (`ResNet101V2`): the last block of a stage takes the stride, and the last stage has none.

    Args:
        in_channels: Bands of an image.
        n_classes: Classes.
        side: Side of an image [px]; the weights do not depend on it.

    Raises:
        ConfigError: A number is too small.
    """

    stem_name: ClassVar[str] = "conv"
    head_name: ClassVar[str] = "fc"

    def __init__(self, in_channels: int, n_classes: int, side: int) -> None:
        super().__init__()
        check_inputs(in_channels, n_classes, side)
        self.in_channels, self.side = in_channels, side
        self.conv = nn.Conv2d(in_channels, WIDTHS[0], 7, stride=2, padding=3)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        n_in, blocks = WIDTHS[0], []
        for width, n_blocks in zip(WIDTHS, BOTTLENECKS, strict=True):
            last_stride = 1 if width == WIDTHS[-1] else 2
            for stride in [1] * (n_blocks - 1) + [last_stride]:
                blocks.append(Bottleneck(n_in, width, stride))
                n_in = EXPANSION * width
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(n_in)
        self.fc = nn.Linear(n_in, n_classes)
        start_he(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, n_classes) for stretched images (B, C, side, side).

        Raises:
            ConfigError: The images have another shape.
        """
        check_images(images, self.in_channels, self.side)
        x = self.blocks(self.maxpool(self.conv(images)))
        x = relu(self.norm(x), inplace=True)
        logits: Tensor = self.fc(x.mean(dim=(-2, -1)))
        return logits


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1, each after normalisation and ReLU, beside a shortcut.

    Args:
        n_in: Input channels.
        width: Channels of the 3x3 convolution; the block returns four times as many.
        stride: Stride of the 3x3 convolution [px of its input].
    """

    foldable: ClassVar[Pairs] = (("conv1", "norm2"), ("conv2", "norm3"))

    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        n_out = EXPANSION * width
        self.norm1 = nn.BatchNorm2d(n_in)
        self.conv1 = nn.Conv2d(n_in, width, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, n_out, 1)
        self.shortcut = nn.Conv2d(n_in, n_out, 1, stride) if n_in != n_out else None
        self.subsample = nn.MaxPool2d(1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 4 width, ceil(H / stride), ceil(W / stride)) for (B, n_in, H, W)."""
        normed = relu(self.norm1(x), inplace=True)
        short = self.subsample(x) if self.shortcut is None else self.shortcut(normed)
        y = relu(self.norm2(self.conv1(normed)), inplace=True)
        y = relu(self.norm3(self.conv2(y)), inplace=True)
        out: Tensor = short + self.conv3(y)
        return out


def _stage(n_in: int, n_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(n_in, n_out, stride), BasicBlock(n_out, n_out, 1))
