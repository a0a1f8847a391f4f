"""Networks from stretched stamps to embeddings, which heads and probes read."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.layers import check_images
from encoders.residual import BasicBlock, check_layout, start_he


class Backbone(nn.Module):
    """Turns stamps into embeddings, before any head.

    Derived classes take `in_channels` and `side` besides their own options, plain values all, and
    set `n_features`.

    Args:
        in_channels: Bands of the stamps.
        side: Side of the stamps [px].

    Raises:
        ConfigError: A number is below 1.
    """

    n_features: int

    def __init__(self, in_channels: int, side: int) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, side=side)
        self.in_channels, self.side = in_channels, side

    def forward(self, stamps: Tensor) -> Tensor:
        """Return embeddings (B, n_features) for stretched stamps (B, in_channels, side, side).

        Raises:
            ConfigError: The stamps have other bands or another side.
        """
        check_images(stamps, self.in_channels, self.side, "stamps")
        return self.embedded(stamps)

    def embedded(self, stamps: Tensor) -> Tensor:
        """Return embeddings of stamps whose shape is right."""
        raise NotImplementedError


class ResNet(Backbone):
    """Ordinary residual network: a 3x3 stem, stages of basic blocks, the mean over the last maps.

    He et al. 2016, CVPR, doi:10.1109/CVPR.2016.90. The stem is that for small images, without
    pooling after it (Chen et al. 2020, arXiv:2002.05709, appendix B.9).

    Example:
        >>> small = ResNet(3, 64, stem_stride=1, channels=[16, 16, 32], n_blocks=[0, 0])
        >>> small(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 32])

    Args:
        in_channels: Bands of the stamps.
        side: Side of the stamps [px]; the weights do not depend on it.
        stem_stride: 1 keeps the side; 2 halves it, for a quarter of the work.
        channels: Channels of the stem and of each stage; the last are the features.
        n_blocks: Residual blocks of each stage after its first one. From the second stage on, the
            first one halves the side.

    Raises:
        ConfigError: A number is too small, or there are not as many as stages.
    """

    def __init__(
        self,
        in_channels: int,
        side: int,
        stem_stride: int,
        channels: Sequence[int],
        n_blocks: Sequence[int],
    ) -> None:
        super().__init__(in_channels, side)
        check_positive(stem_stride=stem_stride)
        check_layout(in_channels, channels, n_blocks)
        n, stride = channels[0], 1
        stem = nn.Conv2d(in_channels, n, 3, stem_stride, padding=1, bias=False)
        layers: list[nn.Module] = [stem, nn.BatchNorm2d(n), nn.ReLU(inplace=True)]
        for n_out, n_more in zip(channels[1:], n_blocks, strict=True):
            layers.append(BasicBlock(n, n_out, stride))
            layers += [BasicBlock(n_out, n_out, 1) for _ in range(n_more)]
            n, stride = n_out, 2
        self.layers = nn.Sequential(*layers)
        self.n_features = n
        start_he(self)

    def embedded(self, stamps: Tensor) -> Tensor:
        """Return (B, n_features)."""
        features: Tensor = self.layers(stamps).mean(dim=(2, 3))
        return features


def check_positive(**numbers: int) -> None:
    """Raise `ConfigError` unless all numbers of a backbone are >= 1."""
    for name, value in numbers.items():
        if value < 1:
            raise ConfigError(
                f"expected {name} >= 1 of a backbone, but got {name} = {value}", value, ">= 1"
            )
