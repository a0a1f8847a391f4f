"""X-ray images as shorter exposures would have shown them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from datagen.errors import ConfigError
from encoders.galaxies.draws import About, Draw, Op, checked_range

# Where the variance of what stays is above it, a normal distribution takes the binomial's place.
MANY = 25.0


class Exposure(Op):
    """Keeps each photon with a drawn chance q, and divides by q.

    What is left of Poisson counts is Poisson, as in an exposure of q times the time. Division keeps
    brightness, so that stamps show counts in the time of the exposure that they come from. Pixels
    that hold no whole numbers, as after resizing, keep q times what is beyond the whole number.

    Args:
        fraction: Limits of q, above 0, up to 1.
        hides: See `Op`.

    Raises:
        ConfigError: The limits are not within 0 and 1, or the lower one is 0.
    """

    def __init__(self, fraction: Sequence[float], hides: Sequence[str]) -> None:
        super().__init__(hides)
        self.fraction = checked_range(fraction, "fraction", 0.0, 1.0)
        if not self.fraction[0] > 0.0:
            raise ConfigError(
                f"expected fraction = [low, high] with low > 0, but got fraction = {fraction}",
                fraction,
            )

    def forward(self, stamps: Tensor, about: About, draw: Draw) -> tuple[Tensor, About]:
        """Return stamps (B, bands, H, H) [counts] with the noise of shorter exposures."""
        kept = draw.between(*self.fraction, "exposure")
        share = kept[:, None, None, None]
        whole = stamps.floor().clamp_min(0.0)
        normal = draw.normals(stamps.shape[1:], "photons")
        thinned = binomial(whole, share.expand_as(whole), normal)
        stamps = (thinned + share * (stamps - whole)) / share
        return stamps, replace(about, sigma=about.sigma / kept.sqrt()[:, None])


def binomial(n: Tensor, share: Tensor, normal: Tensor) -> Tensor:
    """Return how many of n are kept, from a normal number each.

    Args:
        n: Whole numbers, in any shape.
        share: Chance that one is kept, in that shape.
        normal: In that shape.

    Returns:
        Where the variance is above `MANY` a rounded normal number with the binomial's mean and
        variance, elsewhere the quantile of the binomial that the normal number stands at.
    """
    variance = n * share * (1.0 - share)
    many = (n * share + variance.sqrt() * normal).round().clamp_min(0.0).minimum(n)
    is_few = variance <= MANY
    few = n[is_few]
    # The rarer of both outcomes is counted: less to count, and no 0 / 0 where all are kept.
    is_kept = share[is_few] <= 0.5
    chance = torch.where(is_kept, share[is_few], 1.0 - share[is_few]).double()
    level = torch.special.ndtr(normal[is_few].double())
    count = _quantile(few.double(), chance, level).to(n)
    many[is_few] = torch.where(is_kept, count, few - count)
    return many


def _quantile(n: Tensor, chance: Tensor, level: Tensor) -> Tensor:
    """Return the smallest k with P(K <= k) >= level, for chances up to 0.5, all in one shape."""
    odds = chance / (1.0 - chance)
    mass = torch.exp(n * torch.log1p(-chance))
    total, count = mass.clone(), torch.zeros_like(n)
    for k in range(_longest(n, chance)):
        is_beyond = (level > total) & (count < n)
        count += is_beyond
        mass = mass * odds * ((n - k) / (k + 1.0)).clamp_min(0.0)
        total = total + mass
    return count


def _longest(n: Tensor, chance: Tensor) -> int:
    """Return a number of photons that none of many draws exceeds by chance."""
    mean = n * chance
    return int((mean + 8.0 * mean.sqrt() + 8.0).minimum(n).amax().ceil()) if len(n) else 0
