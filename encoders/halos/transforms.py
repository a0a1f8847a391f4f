"""Transforms of targets that can be undone, and that carry errors along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datagen.errors import ConfigError

Numbers = NDArray[np.float64]


class Transform(Protocol):
    """A rising function of one number."""

    def forward(self, x: ArrayLike) -> Numbers:
        """Return t for x, in the shape of x; NaN stays NaN."""

    def inverse(self, t: ArrayLike) -> Numbers:
        """Return x for t, in the shape of t."""

    def slope(self, x: ArrayLike) -> Numbers:
        """Return dt / dx, in the shape of x."""


@dataclass(frozen=True)
class Log10:
    """`t = log10 max(x, zero)`.

    Args:
        zero: What stands for 0, in the unit of x; smaller values, too, come back as `zero`.

    Raises:
        ConfigError: `zero` is not positive.
    """

    zero: float

    def __post_init__(self) -> None:
        if not 0 < self.zero < np.inf:
            raise ConfigError(f"expected zero > 0, but got zero = {self.zero}", self.zero, "> 0")

    def forward(self, x: ArrayLike) -> Numbers:
        """Return the logarithm."""
        return np.asarray(np.log10(np.maximum(np.asarray(x, np.float64), self.zero)))

    def inverse(self, t: ArrayLike) -> Numbers:
        """Return 10^t."""
        return np.asarray(10.0 ** np.asarray(t, np.float64))

    def slope(self, x: ArrayLike) -> Numbers:
        """Return 1 / (x ln 10), at `zero` for smaller values."""
        return np.asarray(1.0 / (np.maximum(np.asarray(x, np.float64), self.zero) * np.log(10.0)))


@dataclass(frozen=True)
class MinMax:
    """`t = (x - low) / (high - low)`.

    Args:
        low: Where t is 0.
        high: Where t is 1.

    Raises:
        ConfigError: `high` is not above `low`.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not -np.inf < self.low < self.high < np.inf:
            raise ConfigError(
                f"expected low < high, but got low = {self.low}, high = {self.high}",
                (self.low, self.high),
                "low < high",
            )

    def forward(self, x: ArrayLike) -> Numbers:
        """Return the place between low and high."""
        return np.asarray((np.asarray(x, np.float64) - self.low) / (self.high - self.low))

    def inverse(self, t: ArrayLike) -> Numbers:
        """Return the value at a place."""
        return np.asarray(self.low + np.asarray(t, np.float64) * (self.high - self.low))

    def slope(self, x: ArrayLike) -> Numbers:
        """Return 1 / (high - low)."""
        return np.full(np.shape(x), 1.0 / (self.high - self.low))


@dataclass(frozen=True)
class Chain:
    """Transforms one after another.

    Args:
        steps: The first one is applied first.
    """

    steps: tuple[Transform, ...]

    def forward(self, x: ArrayLike) -> Numbers:
        """Apply all steps."""
        value = np.asarray(x, np.float64)
        for step in self.steps:
            value = step.forward(value)
        return value

    def inverse(self, t: ArrayLike) -> Numbers:
        """Undo all steps, the last one first."""
        value = np.asarray(t, np.float64)
        for step in reversed(self.steps):
            value = step.inverse(value)
        return value

    def slope(self, x: ArrayLike) -> Numbers:
        """Return the product of the slopes of the steps."""
        value, product = np.asarray(x, np.float64), np.ones(np.shape(x))
        for step in self.steps:
            product, value = product * step.slope(value), step.forward(value)
        return product


def forward_error(transform: Transform, x: ArrayLike, error: ArrayLike) -> Numbers:
    """Return the standard error of t for that of x, to first order: |dt / dx| error."""
    return np.asarray(np.abs(transform.slope(x)) * error)


def inverse_error(transform: Transform, t: ArrayLike, error: ArrayLike) -> Numbers:
    """Return the standard error of x for that of t, to first order: error / |dt / dx|.

    Of a skew distribution, as that of 10^t with an error of more than 0.1, quantiles say more: the
    inverse of a quantile is the quantile.
    """
    return np.asarray(error / np.abs(transform.slope(transform.inverse(t))))
