"""The equivariant classifier: logits that rotations and flips of the images leave alone."""

from __future__ import annotations

from collections.abc import Sequence

from encoders.lenses.inputs import SIDE
from encoders.residual import ResidualNetwork, check_layout, check_side
from encoders.symmetry import fields_of


class EquivariantNetwork(ResidualNetwork):
    """A residual network of steerable convolutions with invariant logits.

    Fields of the group carry each feature in all its orientations; at the end the maximum over them
    and the mean and maximum over space leave no orientation and no place. For rotations by 90
    degrees and for flips that is exact; other angles hold as far as pixels allow.

    Example:
        >>> network = EquivariantNetwork(1, 3, 65, group="D4", channels=[16, 32], n_blocks=[1])
        >>> network(torch.zeros(2, 1, 65, 65)).shape
        torch.Size([2, 3])

    Args:
        in_channels: Channels of the images, all scalars.
        n_classes: Number of classes.
        side: Side of the images [px], `m 2^k + 1` for k stages.
        group: `C4`: rotations by 90 degrees; `D4`: with flips; likewise `C8`, `D8`, ...; all
            rotations: `SO2`, and with flips: `O2`.
        channels: Channels of the stem and of each stage: as many fields as come nearest.
        n_blocks: Residual blocks of each stage after the one that halves the side.

    Raises:
        ConfigError: The group is unknown, or the side or a number does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        side: int,
        group: str,
        channels: Sequence[int],
        n_blocks: Sequence[int],
    ) -> None:
        check_layout(in_channels, channels, n_blocks)
        check_side(side, len(n_blocks), name=SIDE)
        fields = fields_of(group, "model.network.group")
        super().__init__(fields, in_channels, n_classes, fields.nearest(channels), n_blocks)
