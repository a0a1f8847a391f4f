"""The check of what a network is built for."""

from __future__ import annotations

from datagen.errors import ConfigError

# What users know the side of the images as.
SIDE = "data.side"


def check_inputs(in_channels: int, n_classes: int, side: int, least_side: int = 1) -> None:
    """Raise `ConfigError` unless a network can be built for these images and classes.

    Args:
        in_channels: Bands of an image, >= 1.
        n_classes: Classes to tell apart, >= 2.
        side: Side of an image [px].
        least_side: The smallest side of which something is left at the network's end [px].
    """
    given = {"in_channels": in_channels, "n_classes": n_classes, "side": side}
    least = {"in_channels": 1, "n_classes": 2, "side": least_side}
    for name, value in given.items():
        known = SIDE if name == "side" else name
        if value < least[name]:
            raise ConfigError(
                f"expected {known} >= {least[name]} for this network, but got {known} = {value}",
                value,
                f">= {least[name]}",
            )
