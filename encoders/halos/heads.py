"""Heads that say how sure they are of a target: moments, or a mixture of normal distributions.

Losses leave out maps whose target is NaN, which is not known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, softplus

# Halvings of the interval in which a quantile lies.
N_HALVINGS = 60
# Standard deviations beyond which a component holds nothing.
REACH = 12.0


@dataclass(frozen=True)
class Mixture:
    """A mixture of K normal distributions for each of B maps.

    Args:
        log_weight: Logarithms of the weights, whose sum is 1 (B, K).
        mean: (B, K).
        scale: Standard deviations (B, K).
    """

    log_weight: Tensor
    mean: Tensor
    scale: Tensor

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the logarithms of the density at values (B,) or, for a grid, (B, G)."""
        x = value[..., None]
        mean, scale, log_weight = self._like(value)
        log_normal = -0.5 * ((x - mean) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)
        log_prob: Tensor = (log_weight + log_normal).logsumexp(dim=-1)
        return log_prob

    def cdf(self, value: Tensor) -> Tensor:
        """Return the probabilities of smaller values, (B,) or (B, G)."""
        mean, scale, log_weight = self._like(value)
        below: Tensor = torch.special.ndtr((value[..., None] - mean) / scale)
        return (below * log_weight.exp()).sum(dim=-1)

    def quantile(self, levels: Tensor) -> Tensor:
        """Return the values below which shares (L,) of the distributions lie (B, L)."""
        reach = REACH * self.scale
        low = (self.mean - reach).amin(dim=1, keepdim=True).expand(-1, len(levels))
        high = (self.mean + reach).amax(dim=1, keepdim=True).expand(-1, len(levels))
        for _ in range(N_HALVINGS):
            middle = 0.5 * (low + high)
            is_below = self.cdf(middle) < levels
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        return 0.5 * (low + high)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (B,)."""
        weight = self.log_weight.exp()
        mean = (weight * self.mean).sum(dim=1)
        second = (weight * (self.scale**2 + (self.mean - mean[:, None]) ** 2)).sum(dim=1)
        return mean, second.sqrt()

    def _like(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = (self.mean, self.scale, self.log_weight)
        if value.ndim == 1:
            return parts
        mean, scale, log_weight = (part[:, None] for part in parts)
        return mean, scale, log_weight


class MixtureHead(nn.Module):
    """Turns features into a mixture (Bishop 1994, Mixture Density Networks).

    Args:
        n_in: Features.
        n_hidden: Width of the hidden layer.
        n_components: Normal distributions in a mixture.
        min_scale: Least standard deviation. Targets that take few values, as known cross-sections
            do, would otherwise be met by spikes.
    """

    def __init__(self, n_in: int, n_hidden: int, n_components: int, min_scale: float) -> None:
        super().__init__()
        self.min_scale = min_scale
        self.layers = nn.Sequential(
            nn.Linear(n_in, n_hidden), nn.SiLU(), nn.Linear(n_hidden, 3 * n_components)
        )

    def forward(self, features: Tensor) -> Mixture:
        """Return the mixtures of features (B, n_in)."""
        logits, mean, raw = self.layers(features).float().chunk(3, dim=1)
        return Mixture(log_softmax(logits, dim=1), mean, self.min_scale + softplus(raw))


class MomentHead(nn.Module):
    """Turns features into mean and variance of the target.

    Args:
        n_in: Features.
        n_hidden: Width of the hidden layer.
        min_scale: Least standard deviation.
    """

    def __init__(self, n_in: int, n_hidden: int, min_scale: float) -> None:
        super().__init__()
        self.min_variance = min_scale**2
        self.layers = nn.Sequential(nn.Linear(n_in, n_hidden), nn.SiLU(), nn.Linear(n_hidden, 2))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance (B,) of features (B, n_in)."""
        mean, raw = self.layers(features).float().unbind(dim=1)
        return mean, self.min_variance + softplus(raw)


def mixture_loss(mixture: Mixture, target: Tensor) -> Tensor:
    """Return the mean of -ln p(target) over known targets (B,); 0 without any."""
    is_known = torch.isfinite(target)
    log_prob = mixture.log_prob(torch.where(is_known, target, 0.0))
    return -torch.where(is_known, log_prob, 0.0).sum() / is_known.sum().clamp_min(1)


def moment_loss(mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
    """Return the loss whose minimum has mean and variance of the posterior; 0 without targets.

    `<(t - m)^2> + <((t - m)^2 - v)^2>`, the second term without gradient to m, so that the variance
    does not pull at the mean (Jeffrey & Wandelt 2020, arXiv:2011.05991, eq. 5 and 6).

    Args:
        mean: m (B,).
        variance: v (B,).
        target: t (B,).
    """
    is_known = torch.isfinite(target)
    square = (torch.where(is_known, target, 0.0) - mean) ** 2
    each = square + (square.detach() - variance) ** 2
    return torch.where(is_known, each, 0.0).sum() / is_known.sum().clamp_min(1)
