"""An encoder whose features rotations and flips of a map leave alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import avg_pool2d

from datagen.errors import ConfigError
from encoders.halos.network import Encoder
from encoders.residual import ResidualNetwork, check_layout, check_side
from encoders.symmetry import fields_of


class EquivariantEncoder(Encoder):
    """The residual network of steerable convolutions of the lens task, with features for logits.

    It wants a side of `m 2^k + 1` for k stages. Of maps with an even side the means over 2 x 2
    pixels are taken, which leaves an odd side and the centre where it is; then the edge is cut.

    Args:
        in_channels: Channels of the maps.
        side: Side of the maps [px].
        group: A group of rotations and flips, see `EquivariantNetwork`.
        channels: Channels of the stem and of each stage.
        n_blocks: Residual blocks of each stage after the one that halves the side.
        n_features: Features.

    Raises:
        ConfigError: The group is unknown, or the side or a number does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        side: int,
        group: str,
        channels: Sequence[int],
        n_blocks: Sequence[int],
        n_features: int,
    ) -> None:
        super().__init__()
        check_layout(in_channels, channels, n_blocks)
        if n_features < 1:
            raise ConfigError(f"expected n_features >= 1, but got n_features = {n_features}", 0)
        step = 2 ** len(n_blocks)
        self.is_even = side % 2 == 0
        self.cut = (side - 1) % step // 2 if side % 2 else (side - 2) % step // 2
        check_side(side - self.is_even - 2 * self.cut, len(n_blocks))
        fields = fields_of(group)
        widths = fields.nearest(channels)
        self.network = ResidualNetwork(fields, in_channels, n_features, widths, n_blocks)
        self.n_features = n_features

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, n_features)."""
        if self.is_even:
            maps = avg_pool2d(maps, 2, stride=1)
        end = maps.shape[-1] - self.cut
        features: Tensor = self.network(maps[..., self.cut : end, self.cut : end])
        return features
