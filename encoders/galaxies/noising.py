"""Noise of shallower exposures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from encoders.galaxies.draws import About, Draw, Op, Spread, in_order


class Noise(Op):
    """Adds white noise, so that the noise in a pixel is what was drawn for stamp and band.

    What is added makes up the difference in quadrature to the noise that other steps have left.
    Stamps with more noise, or an unknown one, stay as they are.

    Args:
        target: Arguments of `Spread` of each band: noise [unit of the pixels].
        bands: In the order of the stamps.
        hides: See `Op`.

    Raises:
        ConfigError: A band has no target, or one is out of range.
    """

    def __init__(
        self,
        target: Mapping[str, Mapping[str, float]],
        bands: Sequence[str],
        hides: Sequence[str],
    ) -> None:
        super().__init__(hides)
        known = in_order(bands, target, "target of noise")
        self.target = {band: Spread(**spread) for band, spread in zip(bands, known, strict=True)}

    def forward(self, stamps: Tensor, about: About, draw: Draw) -> tuple[Tensor, About]:
        """Return stamps (B, bands, H, H) with more noise."""
        drawn = [spread.drawn(draw, f"sigma/{band}") for band, spread in self.target.items()]
        sigma = torch.maximum(torch.stack(drawn, dim=1), about.sigma)
        missing = (sigma.square() - about.sigma.square()).clamp_min(0.0).sqrt().nan_to_num(nan=0.0)
        noise = draw.normals(stamps.shape[1:], "noise")
        return torch.addcmul(stamps, noise, missing[..., None, None]), replace(about, sigma=sigma)
