"""Noise is what was drawn, measured after all that happens to stamps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from datagen.errors import ConfigError
from encoders.galaxies.blurring import Blur
from encoders.galaxies.draws import Spread
from encoders.galaxies.geometry import Geometry, Resampling
from encoders.galaxies.noising import Noise
from tests.encoders.galaxies.skies import about_of, draw_of, spread

POSES = {
    "any": {
        "turns": True,
        "flips": True,
        "jitter": 2.0,
        "size": [0.9, 1.1],
        "order": 3,
        "hides": [],
    },
    "shifts": {
        "turns": False,
        "flips": True,
        "jitter": 2.0,
        "size": [1.0, 1.0],
        "order": 3,
        "hides": [],
    },
}


@pytest.mark.parametrize("target", [0.5, 1.4])
@pytest.mark.parametrize("fwhm", [None, 0.8, 1.1])
@pytest.mark.parametrize("pose", list(POSES))
def test_noise_reaches_its_target(pose: str, fwhm: float | None, target: float) -> None:
    n_stamps = 96
    blur = None if fwhm is None else Blur(spread(fwhm), 3.5, [])
    resampling = Resampling(72, 48, Geometry(**POSES[pose]), blur, None)
    noise = Noise({"r": spread(target)}, "r", ["skysigma"])
    stamps = torch.randn(n_stamps, 1, 72, 72, generator=torch.Generator().manual_seed(1))
    draw = draw_of(n_stamps)
    left, about = resampling(stamps, about_of(n_stamps), draw)
    found, after = noise(left, about, draw)
    # Where less was left than drawn, what is known is the target, elsewhere what was left.
    wanted = torch.maximum(about.sigma, torch.tensor(target))
    torch.testing.assert_close(after.sigma, wanted)
    scaled = found / after.sigma[..., None, None]
    assert scaled.square().mean().sqrt().item() == pytest.approx(1.0, abs=0.01)
    if target > 1.0:
        assert found.std().item() == pytest.approx(target, rel=0.02)


def test_bands_and_stamps_have_noise_of_their_own() -> None:
    op = Noise({"r": spread(2.0, 0.3), "g": spread(1.0)}, ["g", "r"], [])
    about = about_of(500, sigma=0.0, bands=2)
    found, after = op(torch.zeros(500, 2, 16, 16), about, draw_of(500))
    assert (after.sigma[:, 0] == 1.0).all()
    assert after.sigma[:, 1].log().mean().item() == pytest.approx(math.log(2.0), abs=0.06)
    assert after.sigma[:, 1].log().std().item() == pytest.approx(0.3, rel=0.1)
    normal = (found / after.sigma[..., None, None]).flatten(2)
    assert normal.std().item() == pytest.approx(1.0, abs=0.01)
    assert abs((normal[:, 0] * normal[:, 1]).mean().item()) < 0.02
    assert abs((normal[1:] * normal[:-1]).mean().item()) < 0.02


def test_unknown_noise_stays() -> None:
    about = replace(about_of(1), sigma=torch.tensor([[math.nan]]))
    stamps = torch.randn(1, 1, 8, 8)
    found, after = Noise({"r": spread(3.0)}, "r", [])(stamps, about, draw_of(1))
    assert torch.equal(found, stamps)
    assert after.sigma.isnan().all()


def test_spreads_are_log_normal_within_limits() -> None:
    found = Spread(0.5, 1.0, 0.4, 0.8, 2.0).drawn(draw_of(4000), "x")
    assert found.min() == pytest.approx(0.8)
    assert found.max() == pytest.approx(2.0)
    assert found.median().item() == pytest.approx(1.5, rel=0.02)
    inside = ((found > 0.8) & (found < 2.0)).float().mean().item()
    normal = torch.distributions.Normal(0.0, 0.4)
    wanted = normal.cdf(torch.tensor(1.5).log()) - normal.cdf(torch.tensor(0.3).log())
    assert inside == pytest.approx(wanted.item(), abs=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scatter": -0.1}, "scatter=-0.1"),
        ({"low": 3.0, "high": 2.0}, "low=3.0"),
        ({"median": math.inf}, "median=inf"),
    ],
)
def test_spreads_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Spread(**(spread(1.0) | change))


def test_every_band_needs_a_target() -> None:
    with pytest.raises(
        ConfigError, match=r"target of noise for the bands g, r, but got none for g"
    ):
        Noise({"r": spread(1.0)}, ["g", "r"], [])
