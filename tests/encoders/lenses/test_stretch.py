"""One stretch for a data set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from encoders.lenses.stretch import Stretch, fit_side, fit_stretch, noise_of

PLAIN: dict[str, Any] = {"kind": "asinh", "softening": None, "steps": [], "threshold": 0.1}


def sky(n_bands: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    images = 3.0 * torch.randn(50, n_bands, 20, 20, generator=generator)
    images[:, :, 8:12, 8:12] += 200.0
    return images


@pytest.mark.parametrize("kind", ["asinh", "linear"])
@pytest.mark.parametrize("steps", [[], ["min_max"]])
def test_training_images_get_mean_0_and_spread_1(kind: str, steps: list[str]) -> None:
    fitted = fit_stretch(sky(), PLAIN | {"kind": kind, "steps": steps}, noise=3.0)
    out = Stretch(20, **fitted)(sky())
    for band in range(2):
        assert out[:, band].mean() == pytest.approx(0.0, abs=1e-4)
        assert out[:, band].std() == pytest.approx(1.0, abs=1e-3)


def test_the_formula() -> None:
    stretch = Stretch(20, "asinh", [2.0], [0.5], [4.0], [], 0.1)
    image = sky(1)
    expected = (np.arcsinh(image.double().numpy() / 2.0) - 0.5) / 4.0
    np.testing.assert_allclose(stretch(image), expected, rtol=1e-4, atol=1e-5)
    assert not stretch.state_dict()


def test_noise_is_known_measured_or_given() -> None:
    assert fit_stretch(sky(), PLAIN, noise=2.5)["softening"] == [2.5, 2.5]
    assert fit_stretch(sky(), PLAIN, noise=None)["softening"] == pytest.approx([3.0, 3.0], rel=0.1)
    # Images without noise have SKY_SIGMA 0 in their truth.
    assert fit_stretch(sky(), PLAIN, 0.0) == fit_stretch(sky(), PLAIN, None)
    assert fit_stretch(sky(), PLAIN | {"softening": 7}, noise=2.5)["softening"] == [7.0, 7.0]
    # Steps change the noise: what is known of the images before no longer holds.
    scaled = fit_stretch(sky(), PLAIN | {"steps": ["min_max"]}, noise=3.0)["softening"]
    assert scaled == pytest.approx([3.0 / 220.0] * 2, rel=0.1)


def test_flat_images_have_a_scale() -> None:
    assert noise_of(torch.zeros(2, 5, 5)) == 1.0
    assert noise_of(torch.arange(2.0)[:, None, None].expand(2, 5, 5)) == 0.5
    assert fit_stretch(torch.zeros(2, 1, 5, 5), PLAIN, None)["std"] == [1.0]


@pytest.mark.parametrize(("side", "wanted"), [(9, 5), (9, 9), (5, 9)])
def test_sides_change_around_the_centre(side: int, wanted: int) -> None:
    image = torch.zeros(1, 1, side, side)
    image[..., side // 2, side // 2] = 1.0
    out = fit_side(image, wanted)
    assert out.shape == (1, 1, wanted, wanted)
    assert out[..., wanted // 2, wanted // 2] == 1.0
    turned = fit_side(torch.rot90(image, 1, (-2, -1)), wanted)
    assert torch.equal(turned, torch.rot90(out, 1, (-2, -1)))


def test_beyond_the_border_the_last_pixel_goes_on() -> None:
    out = fit_side(torch.full((1, 1, 4, 4), 2.5), 7)
    assert torch.equal(out, torch.full((1, 1, 7, 7), 2.5))
