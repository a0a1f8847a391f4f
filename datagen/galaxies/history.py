"""Hidden merger histories, and how what merges is seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from datagen.galaxies.settings import MOST_MERGERS, MergerSettings
from datagen.galaxies.streams import Array, Numbers, Streams, quantile, rotation


@dataclass(frozen=True)
class History:
    """The mergers of an object before some moment, the last one first.

    Args:
        time: How long ago they began, (N,) [Gyr].
        ratio: Mass of the smaller over that of the larger partner, (N,).
        axes: Own axes of the smaller one; the third is also where it comes from, (N, 3, 3).
        window: Time that is looked back; of earlier mergers nothing is known [Gyr].
    """

    time: Array
    ratio: Array
    axes: Array
    window: float

    def before(self, gyr: float) -> History:
        """Return what had happened so much earlier [Gyr]."""
        past = self.time > gyr
        window = max(self.window - gyr, 0.0)
        return History(self.time[past] - gyr, self.ratio[past], self.axes[past], window)

    @property
    def last_time(self) -> float:
        """Return how long ago the last merger began; without one, the window [Gyr]."""
        return float(self.time[0]) if self.time.size else self.window

    @property
    def last_ratio(self) -> float:
        """Return the mass ratio of the last merger; 0 without one."""
        return float(self.ratio[0]) if self.time.size else 0.0

    def tidal(self, fading_time: float) -> float:
        """Return the sum of ratio x exp(-time / fading_time)."""
        return float((self.ratio * np.exp(-self.time / fading_time)).sum())

    def separation(self, settings: MergerSettings) -> Array | None:
        """Return where the partner of the last merger is seen, (3,) [of settings.distance's unit].

        It comes nearer at a constant speed; None once it has sunk, or without one.
        """
        left = 1.0 - self.last_time / settings.sinking_time
        if not self.time.size or left <= 0.0:
            return None
        place: Array = settings.distance * left * self.axes[0, :, 2]
        return place

    def columns(self) -> dict[str, float]:
        """Return what labels say of it."""
        return {
            "N_MERGERS": len(self.time),
            "MERGER_TIME": self.last_time,
            "MERGER_RATIO": self.last_ratio,
            "WINDOW": self.window,
        }


def draw_history(settings: MergerSettings, streams: Streams, number: int) -> History:
    """Draw the history of an object: a Poisson process that goes back from the last snapshot."""
    rng = streams(number, "mergers")
    u, v = rng.random((2, MOST_MERGERS))
    # Without mergers the first one lies beyond any window.
    time = np.cumsum(-np.log1p(-u)) / settings.rate if settings.rate else np.full(u.shape, math.inf)
    count = int((time < settings.window).sum())
    axes = np.stack([rotation(rng) for _ in range(count)]) if count else np.empty((0, 3, 3))
    ratio = quantile(settings.distribution("ratio"), v[:count])
    return History(time[:count], ratio, axes, settings.window)


@dataclass(frozen=True)
class Epoch:
    """Objects at one snapshot, (n,) each.

    Args:
        numbers: Their numbers.
        z: Redshifts at which they are seen.
        z_last: Those at the last snapshot.
        past: What had happened to them.
    """

    numbers: Numbers
    z: Array
    z_last: Array
    past: list[History]
