"""DenseNet-201: every layer sees the maps of all layers before it.

Modules bear the names that the network's widely used weights files have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import relu
from torch.utils.checkpoint import checkpoint

from datagen.errors import ConfigError
from encoders.layers import check_images
from encoders.lenses.inputs import check_inputs
from encoders.residual import Pairs, start_he

GROWTH = 32
BLOCKS = (6, 12, 48, 32)
STEM_WIDTH = 64
BOTTLENECK_WIDTH = 4 * GROWTH
# Strides of stem and transitions; a smaller image has no pixel left.
LEAST_SIDE = 32
# The head of the public code and the only images that it fits.
KNOWN_SIDE = 150
KNOWN_WIDTHS = (1024, 64)
HEADS = ("global", "known")


class DenseNet201(nn.Module):
    """DenseNet-201: 6, 12, 48 and 32 layers with growth 32, transitions that halve the maps.

    Huang et al. 2017, CVPR, doi:10.1109/CVPR.2017.243. The head is the mean over the map and one
    linear layer (`global`), or the flattened map and dense layers 30720-1024-64-classes (`known`),
    as in public classifiers of lenses, which fits images of 150 px only.

    Args:
        in_channels: Bands of an image.
        n_classes: Classes.
        side: Side of an image [px], >= 32.
        head: `global` or `known`.
        save_memory: Compute the maps of bottlenecks again in the backward pass instead of keeping
            them: less memory for more time, with the same result.

    Raises:
        ConfigError: A number is too small, or the head is unknown or does not fit the side.
    """

    stem_name: ClassVar[str] = "features.conv0"
    head_name: ClassVar[str] = "classifier"

    def __init__(
        self, in_channels: int, n_classes: int, side: int, head: str, save_memory: bool
    ) -> None:
        super().__init__()
        check_inputs(in_channels, n_classes, side, LEAST_SIDE)
        check_head(head, side)
        self.in_channels, self.side, self.head_kind = in_channels, side, head
        self.features, n_maps = _features(in_channels, save_memory)
        self.classifier: nn.Module = nn.Linear(n_maps, n_classes)
        if head == "known":
            self.classifier = _known_head(n_maps, n_classes)
        start_he(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, n_classes) for stretched images (B, C, side, side).

        Raises:
            ConfigError: The images have another shape.
        """
        check_images(images, self.in_channels, self.side)
        maps = relu(self.features(images), inplace=True)
        seen = maps.mean(dim=(-2, -1)) if self.head_kind == "global" else maps.flatten(1)
        logits: Tensor = self.classifier(seen)
        return logits


class DenseLayer(nn.Module):
    """A bottleneck 1x1 and a convolution 3x3, each after normalisation and ReLU.

    Args:
        n_in: Maps of the block's input and of all layers before.
        save_memory: See `DenseNet201`.
    """

    foldable: ClassVar[Pairs] = (("conv1", "norm2"),)

    def __init__(self, n_in: int, save_memory: bool) -> None:
        super().__init__()
        self.save_memory = save_memory
        self.norm1 = nn.BatchNorm2d(n_in)
        self.conv1 = nn.Conv2d(n_in, BOTTLENECK_WIDTH, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK_WIDTH)
        self.conv2 = nn.Conv2d(BOTTLENECK_WIDTH, GROWTH, 3, padding=1, bias=False)

    def forward(self, before: list[Tensor]) -> Tensor:
        """Return new maps (B, 32, H, W) for all maps before, each (B, n, H, W)."""
        if self.save_memory and torch.is_grad_enabled():
            narrow = checkpoint(
                self._narrow, *before, use_reentrant=False, context_fn=self._contexts
            )
        else:
            narrow = self._narrow(*before)
        maps: Tensor = self.conv2(relu(self.norm2(narrow), inplace=True))
        return maps

    def _narrow(self, *before: Tensor) -> Tensor:
        maps: Tensor = self.conv1(relu(self.norm1(torch.cat(before, 1)), inplace=True))
        return maps

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return the contexts of the forward pass and of its repetition."""
        return nullcontext(), _without_counting(self.norm1)


class DenseBlock(nn.ModuleDict):
    """Layers `denselayer1`, `denselayer2`, ..., each on all maps before it.

    Args:
        n_in: Input maps.
        n_layers: Layers; each adds 32 maps.
        save_memory: See `DenseNet201`.
    """

    def __init__(self, n_in: int, n_layers: int, save_memory: bool) -> None:
        layers = [DenseLayer(n_in + i * GROWTH, save_memory) for i in range(n_layers)]
        super().__init__({f"denselayer{i}": layer for i, layer in enumerate(layers, 1)})

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, n_in + 32 n_layers, H, W) for (B, n_in, H, W)."""
        maps = [x]
        for layer in self.values():
            maps.append(layer(maps))
        return torch.cat(maps, 1)


class Transition(nn.Sequential):
    """Normalisation, ReLU, a convolution 1x1 that halves the number of maps, 2x2 means.

    Args:
        n_in: Input maps.
    """

    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(n_in)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(n_in, n_in // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2)


def check_head(head: str, side: int) -> None:
    """Raise `ConfigError` if a head is unknown or does not fit images of this side [px]."""
    if head not in HEADS:
        raise ConfigError(
            f"expected head to be one of {', '.join(HEADS)}, but got head = {head}",
            head,
            HEADS,
        )
    if head == "known" and side != KNOWN_SIDE:
        raise ConfigError(
            f"expected images of {KNOWN_SIDE} px for head = known, whose first layer has one "
            f"weight per pixel of the last map, but got side = {side}; head = global fits any",
            side,
            KNOWN_SIDE,
        )


def _features(in_channels: int, save_memory: bool) -> tuple[nn.Sequential, int]:
    """Return the convolutional part and the number of its last maps."""
    features = nn.Sequential()
    features.add_module("conv0", nn.Conv2d(in_channels, STEM_WIDTH, 7, 2, padding=3, bias=False))
    features.add_module("norm0", nn.BatchNorm2d(STEM_WIDTH))
    features.add_module("relu0", nn.ReLU(inplace=True))
    features.add_module("pool0", nn.MaxPool2d(3, 2, padding=1))
    n_maps = STEM_WIDTH
    for number, n_layers in enumerate(BLOCKS, 1):
        features.add_module(f"denseblock{number}", DenseBlock(n_maps, n_layers, save_memory))
        n_maps += n_layers * GROWTH
        if number < len(BLOCKS):
            features.add_module(f"transition{number}", Transition(n_maps))
            n_maps //= 2
    features.add_module("norm5", nn.BatchNorm2d(n_maps))
    return features, n_maps


def _known_head(n_maps: int, n_classes: int) -> nn.Sequential:
    side = KNOWN_SIDE // LEAST_SIDE
    first, second = KNOWN_WIDTHS
    return nn.Sequential(
        nn.Linear(n_maps * side**2, first),
        nn.ReLU(inplace=True),
        nn.Linear(first, second),
        nn.ReLU(inplace=True),
        nn.Linear(second, n_classes),
    )


@contextmanager
def _without_counting(norm: nn.BatchNorm2d) -> Iterator[None]:
    """Give a pass copies of the running statistics: a repetition would count its batch again."""
    statistics = dict(norm.named_buffers())
    for name, value in statistics.items():
        setattr(norm, name, value.clone())
    try:
        yield
    finally:
        for name, value in statistics.items():
            setattr(norm, name, value)
