"""Distributions of one number, written in configs as `uniform(0.8, 1.6)`, `normal(0, 0.02)`, `1.2`.

Each is drawn by its quantile function from one uniform number, so that a setting never changes
which random numbers the others get. Normal distributions have tails: a setting cuts them off at
its limits.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from datagen.errors import ConfigError

# Name and number of parameters.
KINDS = {"fixed": 1, "uniform": 2, "log_uniform": 2, "normal": 2, "half_normal": 1}
ALLOWED = (
    "a number, uniform(low, high), log_uniform(low, high), normal(mean, sigma) or "
    "half_normal(sigma)"
)
NORMAL = ("normal", "half_normal")
_CALL = re.compile(r"^\s*(?P<kind>[a-z_]+)\s*\((?P<numbers>[^()]*)\)\s*$")


@dataclass(frozen=True)
class Distribution:
    """A distribution of one number.

    Args:
        kind: One of `KINDS`; `half_normal` is the absolute value of a normal number of mean 0.
        numbers: Its parameters.
        low: Normal distributions are cut off here: their values are drawn under the condition that
            they lie in [low, high].
        high: The same, above.
    """

    kind: str
    numbers: tuple[float, ...]
    low: float = -math.inf
    high: float = math.inf

    def within(self, low: float, high: float) -> Distribution:
        """Return the distribution, cut off at `low` and `high` if it is normal."""
        return dataclasses.replace(self, low=low, high=high)

    def quantile(self, u: Tensor) -> Tensor:
        """Return the value below which the distribution has the share `u`, any shape."""
        a, b = self.numbers[0], self.numbers[-1]
        if self.kind == "fixed":
            return torch.full_like(u, a)
        if self.kind == "uniform":
            return a + (b - a) * u
        if self.kind == "log_uniform":
            return a * torch.exp(math.log(b / a) * u)
        below, up_to = self._uncut(u.new_tensor([self.low, self.high]))
        u = below + (up_to - below) * u
        is_normal = self.kind == "normal"
        standard: Tensor = torch.special.ndtri(u if is_normal else 0.5 + 0.5 * u)
        value: Tensor = a + b * standard if is_normal else a * standard
        return value.clamp(self.low, self.high)

    def cdf(self, x: Tensor) -> Tensor:
        """Return the share of the distribution below `x`, any shape."""
        a, b = self.numbers[0], self.numbers[-1]
        if self.kind == "fixed":
            return (x > a).to(x)
        if self.kind == "uniform":
            return ((x - a) / (b - a)).clamp(0.0, 1.0)
        if self.kind == "log_uniform":
            return (torch.log(x.clamp_min(a) / a) / math.log(b / a)).clamp(0.0, 1.0)
        below, up_to = self._uncut(x.new_tensor([self.low, self.high]))
        share: Tensor = (self._uncut(x) - below) / (up_to - below)
        return share.clamp(0.0, 1.0)

    def _uncut(self, x: Tensor) -> Tensor:
        """Return the share below `x` of a normal distribution that is not cut off."""
        a, b = self.numbers[0], self.numbers[-1]
        is_normal = self.kind == "normal"
        below: Tensor = torch.special.ndtr((x - a) / b if is_normal else x / a)
        return below if is_normal else (2.0 * below - 1.0).clamp_min(0.0)

    def bounds(self) -> tuple[float, float]:
        """Return the smallest and largest value that may be drawn."""
        if self.kind == "normal":
            return self.low, self.high
        if self.kind == "half_normal":
            return max(0.0, self.low), self.high
        return self.numbers[0], self.numbers[-1]

    def is_zero(self) -> bool:
        """Tell whether nothing but 0 is drawn."""
        return self.bounds() == (0.0, 0.0)


@cache
def parse(text: str) -> Distribution:
    """Read a distribution.

    Raises:
        ConfigError: It is none of the allowed forms, or its parameters are out of range.
    """
    match = _CALL.match(str(text))
    kind, inside = (match["kind"], match["numbers"]) if match else ("fixed", str(text))
    try:
        numbers = tuple(float(part) for part in inside.split(","))
    except ValueError:
        numbers = ()
    if kind not in KINDS or len(numbers) != KINDS[kind] or not all(map(math.isfinite, numbers)):
        raise _error(text, ALLOWED)
    if kind in ("uniform", "log_uniform") and not numbers[0] < numbers[1]:
        raise _error(text, "low < high")
    if kind == "log_uniform" and not numbers[0] > 0.0:
        raise _error(text, "low > 0")
    if kind in NORMAL and not numbers[-1] > 0.0:
        raise _error(text, "sigma > 0")
    return Distribution(kind, numbers)


def check_distribution(name: str, text: str, low: float, high: float) -> None:
    """Raise `ConfigError` unless `text` is a distribution that lies within [low, high].

    Normal distributions are cut off there: of them the mean must lie within, of half-normal ones
    0 and sigma.
    """
    try:
        found = parse(text)
    except ConfigError as error:
        raise ConfigError(
            f"expected {name} to be {error.allowed}, but got {name} = {text}", text, error.allowed
        ) from error
    ends = (found.numbers[0], found.numbers[0]) if found.kind == "normal" else found.bounds()
    if found.kind == "half_normal":
        ends = (0.0, found.numbers[0])
    if not (low <= ends[0] and ends[1] <= high):
        raise ConfigError(
            f"expected {name} in [{low:g}, {high:g}], but got {name} = {text}",
            value=text,
            allowed=f"[{low:g}, {high:g}]",
        )


class Drawn:
    """Settings of which some are distributions."""

    NAME: ClassVar[str]  # of the settings, for messages

    def limits(self) -> dict[str, tuple[float, float]]:
        """Return the limits of each setting that is a distribution."""
        raise NotImplementedError

    def distribution(self, name: str, text: str | None = None) -> Distribution:
        """Return the distribution of a setting, or another one with its limits."""
        return parse(getattr(self, name) if text is None else text).within(*self.limits()[name])

    def check_distributions(self) -> None:
        """Raise `ConfigError` unless each distribution that is not null lies within its limits."""
        for name, limits in self.limits().items():
            if getattr(self, name) is not None:
                check_distribution(f"{self.NAME}.{name}", getattr(self, name), *limits)


def _error(text: str, allowed: str) -> ConfigError:
    return ConfigError(f"expected a distribution, {allowed}, but got {text}", text, allowed)
