"""Cross-sections as places on an axis from 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from datagen.errors import ConfigError
from encoders.halos.transforms import Chain, Log10, MinMax, Numbers


@dataclass(frozen=True)
class LogScale:
    """`t = (log10 s - low) / (high - low)`; a cross-section of 0 stands at that of `zero`.

    A `Transform` that a card can hold.

    Args:
        low: Logarithm of the smallest known cross-section, log10 [cm^2/g].
        high: Logarithm of the largest one.
        zero: Cross-section that stands for none [cm^2/g].
    """

    low: float
    high: float
    zero: float

    @classmethod
    def fit(cls, known: Sequence[float], zero: float) -> LogScale | None:
        """Return the scale of known cross-sections [cm^2/g]; None for fewer than two.

        Raises:
            ConfigError: `zero` is not below all known cross-sections but 0.
        """
        positive = [value for value in known if value > 0]
        if not zero > 0 or any(value <= zero for value in positive):
            raise ConfigError(
                "expected 0 < data.zero_cross_section < the least known cross-section "
                f"{min(positive, default=float('inf')):g} cm2/g, but got zero_cross_section = "
                f"{zero}",
                zero,
            )
        logs = np.log10([max(value, zero) for value in known])
        if len(set(known)) < 2:
            return None
        return cls(float(logs.min()), float(logs.max()), float(zero))

    def forward(self, x: ArrayLike) -> Numbers:
        """Return t for cross-sections [cm^2/g]; NaN stays NaN."""
        return self._steps.forward(x)

    def inverse(self, t: ArrayLike) -> Numbers:
        """Return cross-sections [cm^2/g] for t; 0 comes back as `zero`."""
        return self._steps.inverse(t)

    def slope(self, x: ArrayLike) -> Numbers:
        """Return dt / dx [g/cm^2] for cross-sections [cm^2/g]."""
        return self._steps.slope(x)

    def plain(self) -> dict[str, Any]:
        """Return the arguments as plain values."""
        return asdict(self)

    @property
    def _steps(self) -> Chain:
        return Chain((Log10(self.zero), MinMax(self.low, self.high)))
