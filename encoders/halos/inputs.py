"""From maps in physical units to what a network sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datagen.errors import ConfigError, DataFormatError

LOG, ASINH, MAX = "log10", "asinh", "max"
KINDS = (LOG, ASINH, MAX)
# Share of the positive pixels that lie below the floor of the logarithm.
FAINTEST = 1e-3
TINY = 1e-30


class Inputs(nn.Module):
    """Transforms each channel and brings it to mean 0 and deviation 1.

    `log10(max(x, scale))`, `asinh(x / scale)`, or `x / max(x)` of each map, which the public method
    takes; then `(y - mean) / std`.

    Args:
        kind: Of each channel.
        scale: Of each channel, in its unit; 1 for `max`.
        mean: Of each transformed channel; 0 for `max`.
        std: Of each transformed channel; 1 for `max`.
    """

    scale: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        kind: Sequence[str],
        scale: Sequence[float],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.kind = list(kind)
        for name, values in (("scale", scale), ("mean", mean), ("std", std)):
            # Not in checkpoints: the card has them.
            row = torch.tensor(values, dtype=torch.float32)[:, None, None]
            self.register_buffer(name, row, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, C, H, W) for maps (B, C, H, W)."""
        channels = [transformed(maps[:, k], kind, self.scale[k])
                    for k, kind in enumerate(self.kind)]  # fmt: skip
        return (torch.stack(channels, dim=1) - self.mean) / self.std


def transformed(maps: Tensor, kind: str, scale: Tensor | float) -> Tensor:
    """Return a channel (B, H, W), transformed."""
    scale = torch.as_tensor(scale, dtype=maps.dtype, device=maps.device)
    if kind == LOG:
        return torch.log10(torch.maximum(maps, scale))
    if kind == ASINH:
        return torch.asinh(maps / scale)
    return maps / maps.amax(dim=(-2, -1), keepdim=True).clamp_min(TINY)


def kinds_of(transform: str | Mapping[str, str], channels: Sequence[str]) -> list[str]:
    """Return the transform of each channel.

    Args:
        transform: One for all, or one for each by name.
        channels: Names of the channels.

    Raises:
        ConfigError: A word is not allowed, or a channel has none.
    """
    by_name = transform if isinstance(transform, Mapping) else dict.fromkeys(channels, transform)
    kinds = [str(by_name.get(name)) for name in channels]
    if not set(kinds) <= set(KINDS):
        raise ConfigError(
            f"expected data.transform to be one of {', '.join(KINDS)}, or one of them for each of "
            f"the channels {', '.join(channels)}, but got transform = {transform}",
            transform,
            KINDS,
        )
    return kinds


def fit_inputs(maps: Tensor, kinds: Sequence[str], channels: Sequence[str]) -> dict[str, Any]:
    """Fit the transforms to training maps.

    Args:
        maps: (n, C, H, W).
        kinds: Of each channel.
        channels: Names, for messages.

    Returns:
        Arguments of `Inputs`, plain values.

    Raises:
        DataFormatError: A channel has no positive pixel.
    """
    rows = []
    for k, (kind, name) in enumerate(zip(kinds, channels, strict=True)):
        if kind == MAX:
            rows.append((1.0, 0.0, 1.0))
            continue
        pixels = maps[:, k].numpy()
        positive = pixels[pixels > 0]
        if not len(positive):
            raise DataFormatError(f"expected positive pixels in channel {name}, but all are 0", 0)
        scale = float(np.quantile(positive, FAINTEST if kind == LOG else 0.5))
        values = transformed(maps[:, k], kind, scale).double()
        rows.append((scale, float(values.mean()), float(values.std()) or 1.0))
    scale_row, mean, std = (list(column) for column in zip(*rows, strict=True))
    return {"kind": list(kinds), "scale": scale_row, "mean": mean, "std": std}


def first_negative(maps: Tensor, kinds: Sequence[str]) -> int | None:
    """Return the number of the first of some maps that is negative where it must not be.

    Args:
        maps: (n, C, H, H).
        kinds: Of each channel.
    """
    is_negative = are_negative(maps, kinds)
    return int(is_negative.nonzero()[0, 0]) if is_negative.any() else None


def are_negative(maps: Tensor, kinds: Sequence[str]) -> Tensor:
    """Return which maps are negative where they must not be (n,).

    The logarithm and the maximum of a map take no negative pixels; asinh does.

    Args:
        maps: (n, C, H, H).
        kinds: Of each channel.
    """
    wrong = [k for k, kind in enumerate(kinds) if kind != ASINH]
    if not wrong or not len(maps):
        return torch.zeros(len(maps), dtype=torch.bool)
    return maps[:, wrong].flatten(1).amin(dim=1) < 0
