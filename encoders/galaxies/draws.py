"""What views know of stamps, how they draw numbers, and what all their steps have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.augment import random_fractions, random_normals

T = TypeVar("T")


@dataclass(frozen=True)
class About:
    """What is known of a batch of stamps, and what steps keep up to date; NaN: not known.

    Args:
        fwhm: Of the PSF (B,) [arcsec].
        sigma: Noise of the sky in a pixel, now (B, bands) [unit of the pixels].
        scale: Pixel scale (B,) [arcsec/px].
        redshift: (B,).
    """

    fwhm: Tensor
    sigma: Tensor
    scale: Tensor
    redshift: Tensor


@dataclass(frozen=True)
class Draw:
    """Random numbers of a batch of stamps in one view; nothing but its fields decides.

    Args:
        seed: Of the views.
        epoch: Number of the epoch.
        index: Numbers of the stamps (B,), int64.
        view: Number of the view.
    """

    seed: int
    epoch: int
    index: Tensor
    view: int

    def fractions(self, component: str) -> Tensor:
        """Return a number from [0, 1) for each stamp (B,)."""
        return random_fractions(self.seed, self.epoch, self.index, f"{self.view}/{component}")

    def between(self, low: float, high: float, component: str) -> Tensor:
        """Return a number from [low, high) for each stamp (B,)."""
        return low + (high - low) * self.fractions(component)

    def normals(self, shape: Sequence[int], component: str) -> Tensor:
        """Return normal numbers for each stamp (B, *shape)."""
        flat = random_normals(
            self.seed, self.epoch, self.index, f"{self.view}/{component}", math.prod(shape)
        )
        return flat.view(-1, *shape)


@dataclass(frozen=True)
class Spread:
    """A shifted log-normal distribution: `shift + median exp(scatter n)`, n normal, within limits.

    Args:
        shift: Added to all values.
        median: Of what is added to it.
        scatter: Standard deviation of the natural logarithm.
        low: Smaller values become this one.
        high: Larger values become this one.

    Raises:
        ConfigError: A number is not finite, the scatter is negative, or low is above high.
    """

    shift: float
    median: float
    scatter: float
    low: float
    high: float

    def __post_init__(self) -> None:
        numbers = (self.shift, self.median, self.scatter, self.low, self.high)
        if not (all(map(math.isfinite, numbers)) and self.scatter >= 0 and self.low <= self.high):
            raise ConfigError(
                f"expected finite numbers, scatter >= 0 and low <= high, but got {self}", self
            )

    def drawn(self, draw: Draw, component: str) -> Tensor:
        """Return a value for each stamp (B,)."""
        # Half of the smallest step away from 0, where the normal number would be infinite.
        normal: Tensor = torch.special.ndtri(draw.fractions(component) + 2.0**-25)
        return (self.shift + self.median * (self.scatter * normal).exp()).clamp(self.low, self.high)


class Op(nn.Module):
    """A step of a view: `op(stamps, about, draw)` returns stamps and what is known of them then.

    Args:
        hides: Labels that cannot be told any more, or less well, from what the step returns.
    """

    def __init__(self, hides: Sequence[str]) -> None:
        super().__init__()
        self.hides = tuple(hides)

    def forward(self, stamps: Tensor, about: About, draw: Draw) -> tuple[Tensor, About]:
        """Apply the step to stamps (B, bands, H, H)."""
        raise NotImplementedError


def in_order(bands: Sequence[str], values: Mapping[str, T], name: str) -> list[T]:
    """Return the values of bands in the order of the bands.

    Raises:
        ConfigError: A band has no value.
    """
    missing = [band for band in bands if band not in values]
    if missing:
        raise ConfigError(
            f"expected {name} for the bands {', '.join(bands)}, but got none for "
            f"{', '.join(missing)}; give it, or leave the step out with null",
            missing,
            sorted(values),
        )
    return [values[band] for band in bands]


def checked_range(
    limits: Sequence[float], name: str, lowest: float, highest: float
) -> tuple[float, float]:
    """Return two limits [low, high].

    Raises:
        ConfigError: They are not two rising numbers within `lowest` and `highest`.
    """
    values = tuple(float(limit) for limit in limits)
    if len(values) != 2 or not lowest <= values[0] <= values[1] <= highest:
        raise ConfigError(
            f"expected {name} = [low, high] with {lowest} <= low <= high <= {highest}, "
            f"but got {name} = {list(values)}",
            values,
            (lowest, highest),
        )
    return values
