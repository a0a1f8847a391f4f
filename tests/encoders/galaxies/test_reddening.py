"""Dust dims bands by their coefficients, and their noise with them."""

from __future__ import annotations

import pytest
import torch

from datagen.errors import ConfigError
from encoders.galaxies.reddening import Reddening
from tests.encoders.galaxies.skies import about_of, draw_of

K = {"g": 1.2856, "r": 0.866, "z": 0.4844}


def test_bands_are_dimmed_by_their_extinction() -> None:
    stamps = torch.rand(400, 3, 4, 4) + 1.0
    op = Reddening([0.0, 0.3], K, ["g", "r", "z"], ["g_r"])
    found, about = op(stamps, about_of(400, bands=3), draw_of(400))
    dimming = (found / stamps)[..., 0, 0]
    excess = -dimming.log10() / torch.tensor(list(K.values()))
    torch.testing.assert_close(excess[:, 0], excess[:, 2], atol=1e-5, rtol=1e-4)
    assert excess[:, 1].min() >= -1e-6
    assert excess[:, 1].mean().item() == pytest.approx(0.15, abs=0.015)
    torch.testing.assert_close(about.sigma, dimming)
    # A_g / E(B-V) and so on of the Legacy Surveys, in magnitudes.
    assert [2.5 * k for k in K.values()] == pytest.approx([3.214, 2.165, 1.211], abs=1e-3)


def test_every_band_needs_a_coefficient() -> None:
    with pytest.raises(ConfigError, match=r"coefficients of reddening .* got none for y"):
        Reddening([0.0, 0.1], K, ["g", "y"], [])


@pytest.mark.parametrize("excess", [[0.2, 0.1], [0.0, 1.5], [0.1]])
def test_excesses_that_cannot_be(excess: list[float]) -> None:
    with pytest.raises(ConfigError, match="excess"):
        Reddening(excess, K, ["g"], [])
