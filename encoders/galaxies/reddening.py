"""Dust of the Milky Way in front of galaxies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from encoders.galaxies.draws import About, Draw, Op, checked_range, in_order


class Reddening(Op):
    """Multiplies bands with `10^(-k dE(B-V))`, with dE(B-V) drawn for each stamp.

    k is 0.4 times the extinction in magnitudes per E(B-V) (Schlafly & Finkbeiner 2011,
    doi:10.1088/0004-637X/737/2/103).

    Args:
        excess: Limits of dE(B-V) [mag]; negative ones take dust away.
        coefficients: k of each band [1/mag].
        bands: In the order of the stamps.
        hides: See `Op`.

    Raises:
        ConfigError: The limits are not within -1 and 1 mag, or a band has no coefficient.
    """

    coefficients: Tensor

    def __init__(
        self,
        excess: Sequence[float],
        coefficients: Mapping[str, float],
        bands: Sequence[str],
        hides: Sequence[str],
    ) -> None:
        super().__init__(hides)
        self.excess = checked_range(excess, "excess", -1.0, 1.0)
        known = in_order(bands, coefficients, "coefficients of reddening")
        self.register_buffer("coefficients", torch.tensor(known), persistent=False)

    def forward(self, stamps: Tensor, about: About, draw: Draw) -> tuple[Tensor, About]:
        """Return stamps (B, bands, H, H) and their noise behind other dust."""
        excess = draw.between(*self.excess, "excess")
        gain = torch.pow(10.0, -self.coefficients * excess[:, None])
        return stamps * gain[..., None, None], replace(about, sigma=about.sigma * gain)
