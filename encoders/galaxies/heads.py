"""What is trained beside an encoder and left behind: heads, a slow copy, the scale of logits."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from datagen.errors import ConfigError


class Head(nn.Sequential):
    """Linear layers with batch normalisation and ReLU between them; the last one is plain.

    A projector takes embeddings to where the loss looks at them, a predictor what is projected to
    what another view projects.

    Args:
        n_in: Numbers for each stamp.
        widths: Of each layer; the last one is the number of outputs.

    Raises:
        ConfigError: There is no layer, or one of width below 1.
    """

    def __init__(self, n_in: int, widths: Sequence[int]) -> None:
        if not widths or min(widths) < 1:
            raise ConfigError(
                f"expected one width or more of a head, each >= 1, but got widths = {list(widths)}",
                list(widths),
            )
        *inner, last = pairwise((n_in, *widths))
        layers: list[nn.Module] = []
        for n, width in inner:
            # The normalisation has an offset of its own.
            layers += [nn.Linear(n, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        super().__init__(*layers, nn.Linear(*last))
        self.n_out = widths[-1]


class MovingAverage(nn.Module):
    """A copy of a network whose weights follow it slowly, and get no gradient.

    `theta' <- m theta' + (1 - m) theta` after each step of the optimiser (Grill et al. 2020,
    arXiv:2006.07733, eq. 1). Statistics of batches follow in the same way; counters are taken over.

    Args:
        network: What is followed.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, momentum: float) -> None:
        """Follow a network, where momentum 1 stays and 0 takes it over."""
        mine = self.network.state_dict()
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                mine[name].lerp_(value, 1.0 - momentum)
            else:
                mine[name].copy_(value)

    @torch.no_grad()
    def forward(self, *args: Tensor) -> Tensor:
        """Return what the copy says, without gradient."""
        found: Tensor = self.network(*args)
        return found


def momentum_at(step: int, n_steps: int, start: float) -> float:
    """Return how slowly a copy follows: `1 - (1 - m_0) (1 + cos(pi step / n_steps)) / 2`.

    It rises from m_0 to 1 (Grill et al. 2020, arXiv:2006.07733, section 3.3).

    Args:
        step: Steps of the optimiser so far.
        n_steps: Of the whole training.
        start: m_0, published .996 for 1000 epochs; .97 for short trainings.
    """
    done = min(1.0, step / max(1, n_steps))
    return 1.0 - (1.0 - start) * (1.0 + math.cos(math.pi * done)) / 2.0


class SigmoidScale(nn.Module):
    """Scale and bias of the logits of `siglip`, which are learned.

    Zhai et al. (2023, arXiv:2303.15343, section 3.2): the scale is learned as its logarithm, so
    that it stays positive; both begin so that the many negatives weigh little.

    Args:
        scale: First scale, published 10.
        bias: First bias, published -10.

    Raises:
        ConfigError: The scale is not positive.
    """

    def __init__(self, scale: float, bias: float) -> None:
        super().__init__()
        if not scale > 0:
            raise ConfigError(f"expected scale of logits > 0, but got scale = {scale}", scale)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return scale and bias, scalars."""
        return self.log_scale.exp(), self.bias
