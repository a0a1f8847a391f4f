"""What the first latent of a map says about its cross-section."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datagen.errors import ConfigError
from datagen.seeds import stream
from encoders.halos.conformal import shifted

Numbers = NDArray[np.float64]
# Cross-sections are looked for so far beyond the known ones, on the axis where these are 0 to 1.
MARGIN = 0.25
N_GRID = 301
# Least standard deviation of a class, a few steps of the grid.
NARROWEST = 0.01
# Of a likelihood: enough for the error of its calibration to a tenth.
N_REFITS = 50
# Of a normal distribution: one standard deviation below the median, the median, one above.
LEVELS = (0.158655, 0.5, 0.841345)


def grid() -> Numbers:
    """Return the places at which likelihoods are computed (G,)."""
    return np.linspace(-MARGIN, 1.0 + MARGIN, N_GRID)


@dataclass(frozen=True)
class Likelihood:
    """`p(z_0 | t)`: normal, with mean and width interpolated between the known cross-sections.

    Inverse regression: what an encoder makes of maps of each known t is measured, so that its pull
    towards the middle of the axis is undone, and t between the known ones have their place. Beyond
    them the mean goes on as a straight line, the width stays.

    Args:
        places: Known t, rising (K,).
        means: Of z_0 (K,).
        widths: Its standard deviations (K,).
    """

    places: Numbers
    means: Numbers
    widths: Numbers

    @classmethod
    def fit(cls, first: Numbers, targets: Numbers, weights: Numbers | None = None) -> Likelihood:
        """Learn from maps that trained nothing.

        Args:
            first: z_0 (n,).
            targets: t, NaN where unknown (n,).
            weights: How much each map counts, > 0 (n,); None: all the same.

        Raises:
            ConfigError: There are maps of fewer than two known t.
        """
        places = np.unique(targets[np.isfinite(targets)])
        if len(places) < 2:
            raise ConfigError(
                "expected validation maps of two known cross-sections or more, but got those of "
                f"{len(places)}; train with more halos (data_gen.nfiles)",
                len(places),
            )
        counts = np.ones(len(first)) if weights is None else weights
        groups = [targets == place for place in places]
        means = [np.average(first[of], weights=counts[of]) for of in groups]
        squares = [np.average((first[of] - mean) ** 2, weights=counts[of])
                   for of, mean in zip(groups, means, strict=True)]  # fmt: skip
        return cls(places, np.array(means), np.maximum(np.sqrt(squares), NARROWEST))

    def log(self, first: Numbers) -> Numbers:
        """Return ln p(z_0 | t) on the grid for z_0 (n,): (n, G)."""
        places = grid()
        mean, width = self._mean(places), np.exp(self._interpolated(np.log(self.widths), places))
        return np.asarray(-0.5 * ((first[:, None] - mean) / width) ** 2 - np.log(width))

    def log_prior(self) -> Numbers:
        """Return ln p(t) on the grid, up to a constant (G,).

        t lies between any two neighbouring known cross-sections equally likely, as the classes are,
        and evenly there; beyond the last ones as within their gap. What stands for no
        cross-section, a convention, so hardly changes what is found of others.
        """
        gaps = np.searchsorted(self.places, grid()).clip(1, len(self.places) - 1) - 1
        return np.asarray(-np.log(np.diff(self.places)[gaps]))

    def log_posterior(self, first: Numbers) -> Numbers:
        """Return ln p(t | z_0) on the grid, up to a constant, for z_0 (n,): (n, G)."""
        return self.log(first) + self.log_prior()

    def _interpolated(self, values: Numbers, places: Numbers) -> Numbers:
        return np.asarray(np.interp(places, self.places, values))

    def _mean(self, places: Numbers) -> Numbers:
        inside = self._interpolated(self.means, places)
        slopes = np.diff(self.means) / np.diff(self.places)
        below = np.minimum(places - self.places[0], 0.0) * slopes[0]
        above = np.maximum(places - self.places[-1], 0.0) * slopes[-1]
        return np.asarray(inside + below + above)


def refits(first: Numbers, targets: Numbers, clusters: NDArray[np.int64]) -> tuple[Likelihood, ...]:
    """Return likelihoods as other validation clusters could have given them.

    Bayesian bootstrap (Rubin 1981, doi:10.1214/aos/1176345338) of clusters: each counts with a
    weight from an exponential distribution, the same for all its maps. The same clusters have the
    same weights in any encoder, whose errors they share.

    Args:
        first: z_0 (n,).
        targets: t, NaN where unknown (n,).
        clusters: Of the maps (n,).

    Raises:
        ConfigError: There are maps of fewer than two known t.
    """
    names, place = np.unique(clusters, return_inverse=True)
    weights = stream(0, 0, "refits").exponential(size=(N_REFITS, len(names)))
    return tuple(Likelihood.fit(first, targets, one[place.reshape(-1)]) for one in weights)


def quantiles(log_posterior: Numbers, levels: Sequence[float] = LEVELS) -> Numbers:
    """Return quantiles of t.

    Args:
        log_posterior: On the grid, up to a constant (n, G).
        levels: In (0, 1) (L,).

    Returns:
        (n, L).
    """
    density = np.exp(log_posterior - log_posterior.max(axis=1, keepdims=True))
    steps = 0.5 * (density[:, 1:] + density[:, :-1])
    below = np.concatenate([np.zeros((len(density), 1)), np.cumsum(steps, axis=1)], axis=1)
    places = grid()
    found = [np.interp(levels, row / row[-1], places) for row in below]
    return np.array(found).reshape(len(density), len(levels))


def interval(log_posterior: Numbers, shift: float) -> Numbers:
    """Return lower end, median and upper end of t (n, 3).

    Args:
        log_posterior: On the grid, up to a constant (n, G).
        shift: By how much to widen the quantiles, see `conformal.quantile_shift`; inf gives the
            whole axis.
    """
    low, middle, high = quantiles(log_posterior).T
    low, high = shifted(low, high, shift)
    low, high = np.maximum(low, -MARGIN), np.minimum(high, 1.0 + MARGIN)
    return np.stack((low, np.clip(middle, low, high), high), axis=1)
