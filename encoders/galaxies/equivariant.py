"""A backbone whose embeddings rotations and flips of a stamp leave alone."""

from __future__ import annotations

from torch import Tensor

from datagen.errors import ConfigError
from encoders.galaxies.backbones import Backbone, check_positive
from encoders.residual import ResidualNetwork, check_side
from encoders.symmetry import fields_of

# Channels of the stem, and of the stages before they are widened.
STEM, STAGES = 16, (16, 32, 64)
# The first stage keeps the side.
N_HALVINGS = 2


class EquivariantWideResNet(Backbone):
    """Wide residual network of steerable convolutions with invariant embeddings.

    Zagoruyko & Komodakis 2016, arXiv:1605.07146, on the fields of Weiler & Cesa 2019,
    arXiv:1911.08251: a stem of 5x5, three stages of `(depth - 4) / 6` blocks, whose activation
    stands after the sum, then what the group leaves alone, its mean and maximum over space, and a
    linear layer. For rotations by 90 degrees and for flips of the stamp the invariance is exact;
    other angles hold as far as pixels and the square edge allow.

    Args:
        in_channels: Bands of the stamps.
        side: Side of the stamps [px], a multiple of 4 plus 1: 61 or 65 for 64.
        group: `C8`: rotations by 45 degrees; `D8`: with flips; see `encoders.symmetry.fields_of`.
        depth: Convolutions one after the other, a multiple of 6 plus 4, >= 10.
        width: Channels over those of the residual network of that depth, >= 1. As many fields as
            come nearest: a field of D8 has 16 channels.
        n_features: Numbers of an embedding.

    Raises:
        ConfigError: The group is unknown, or the side or a number does not fit.
    """

    def __init__(
        self, in_channels: int, side: int, group: str, depth: int, width: int, n_features: int
    ) -> None:
        super().__init__(in_channels, side)
        check_positive(width=width, n_features=n_features)
        check_side(side, N_HALVINGS)
        if depth < 10 or depth % 6 != 4:
            raise ConfigError(
                "expected depth to be a multiple of 6 plus 4 and >= 10, as 16, 22 and 28, but got "
                f"depth = {depth}",
                depth,
            )
        fields = fields_of(group)
        channels = [STEM, *(width * n for n in STAGES)]
        n_more = [(depth - 4) // 6 - 1] * len(STAGES)
        self.network = ResidualNetwork(
            fields, in_channels, n_features, fields.nearest(channels), n_more, first_stride=1
        )
        self.n_features = n_features

    def embedded(self, stamps: Tensor) -> Tensor:
        """Return (B, n_features)."""
        features: Tensor = self.network(stamps)
        return features
