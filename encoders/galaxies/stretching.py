"""One stretch of brightness for a whole survey."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from datagen.errors import ConfigError
from encoders.galaxies.draws import About, Draw, Op


class Stretch(Op):
    """`asinh(x / softening)`: linear in the noise, logarithmic where it is bright.

    Softening is the same for all stamps and bands, so that fluxes and colours keep their meaning
    (Lupton, Gunn & Szalay 1999, doi:10.1086/301004).

    Args:
        softening: About twice the noise of the sky [unit of the pixels].

    Raises:
        ConfigError: It is not positive.
    """

    def __init__(self, softening: float) -> None:
        super().__init__(())
        if not 0.0 < softening < math.inf:
            raise ConfigError(
                f"expected softening > 0, but got softening = {softening}", softening, "> 0"
            )
        self.softening = softening

    def forward(self, stamps: Tensor, about: About, draw: Draw) -> tuple[Tensor, About]:
        """Return stretched stamps; what is known of them stays in the unit that they had."""
        return self.bright(stamps), about

    def bright(self, stamps: Tensor) -> Tensor:
        """Return stretched stamps (B, bands, H, H)."""
        return asinh(stamps / self.softening)


def asinh(x: Tensor) -> Tensor:
    """Return the inverse of sinh; on CPUs several times as fast as torch's.

    For |x| < 1e-3 the error is that of 1 + |x| in single precision, 6e-8.
    """
    return torch.copysign((x.square().add_(1.0).sqrt_().add_(x.abs())).log_(), x)
