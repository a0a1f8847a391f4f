"""One stretch for a data set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from datagen.errors import ConfigError
from encoders.lenses.stretch import Stretch, bands_of, fit_side, fit_stretch, noise_of

PLAIN: dict[str, Any] = {"kind": "asinh", "softening": None, "scales": []}
PLAIN |= {"steps": [], "threshold": 0.1}


def sky(n_bands: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    images = 3.0 * torch.randn(50, n_bands, 20, 20, generator=generator)
    images[:, :, 8:12, 8:12] += 200.0
    return images


@pytest.mark.parametrize("kind", ["sqrt", "asinh", "linear"])
@pytest.mark.parametrize("scales", [[], [0.5, 1.5, 3.0]])
@pytest.mark.parametrize("steps", [[], ["min_max"]])
def test_training_images_get_mean_0_and_spread_1(
    kind: str, scales: list[float], steps: list[str]
) -> None:
    fitted = fit_stretch(
        sky(), PLAIN | {"kind": kind, "scales": scales, "steps": steps}, noise=3.0, gain=None
    )
    stretch = Stretch(20, **fitted)
    out = stretch(sky())
    assert out.shape[1] == stretch.n_channels == 2 * max(len(scales), 1)
    for band in range(stretch.n_channels):
        assert out[:, band].mean() == pytest.approx(0.0, abs=1e-4)
        assert out[:, band].std() == pytest.approx(1.0, abs=1e-3)


def test_the_formula() -> None:
    image, steps = sky(1), {"steps": [], "threshold": 0.1}
    counts = image.double().numpy() / 2.0
    roots = np.sign(counts) * (np.sqrt(1.0 + np.abs(counts)) - 1.0)
    for kind, values in (("asinh", np.arcsinh(counts)), ("sqrt", roots), ("linear", counts)):
        stretch = Stretch(20, kind, [2.0], [], [0.5], [4.0], **steps)
        np.testing.assert_allclose(stretch(image), (values - 0.5) / 4.0, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(stretch.bright(image), values, rtol=1e-4, atol=1e-5)
        assert not stretch.state_dict()


def test_bands_are_differences_of_scipys_gaussians_and_sum_up() -> None:
    images, scales = sky().double(), [0.0, 0.8, 2.0]
    smooth = [ndimage.gaussian_filter(images.numpy(), (0, 0, s, s), mode="nearest") for s in scales]
    found = bands_of(images, scales).unflatten(1, (2, 3))
    for k, expected in enumerate((smooth[0] - smooth[1], smooth[1] - smooth[2], smooth[2])):
        np.testing.assert_allclose(found[:, :, k], expected, atol=1e-3 * 200.0)
    torch.testing.assert_close(found.sum(2), images)
    assert torch.equal(bands_of(images, []), images)


@pytest.mark.parametrize(("sigma", "gain"), [(1.0, 1.0), (20.0, 1.0), (3.0, 4.0)])
def test_a_root_makes_the_noise_of_photons_the_same_everywhere(sigma: float, gain: float) -> None:
    generator = torch.Generator().manual_seed(1)
    levels = sigma**2 * torch.tensor([0.0, 30.0, 3000.0]).view(3, 1, 1, 1)
    electrons = torch.poisson((levels * gain).expand(3, 1, 200, 200), generator)
    counts = electrons / gain + sigma * torch.randn(electrons.shape, generator=generator)
    fitted = fit_stretch(counts, PLAIN | {"kind": "sqrt"}, sigma, gain)
    assert fitted["softening"] == [sigma**2 * gain]
    plain = {"mean": [0.0], "std": [1.0]}
    spread = Stretch(200, **(fitted | plain))(counts).std((1, 2, 3))
    np.testing.assert_allclose(spread, 0.5 / (sigma * gain), rtol=0.25)
    # Without a gain, the noise of the sky is all that is known.
    assert fit_stretch(counts, PLAIN | {"kind": "sqrt"}, sigma, 0.0)["softening"] == [sigma]


def test_turned_and_mirrored_images_have_turned_and_mirrored_bands() -> None:
    images = sky().double()
    for turn in (lambda x: torch.rot90(x, 1, (-2, -1)), lambda x: x.flip(-1)):
        expected = turn(bands_of(images, [0.8, 1.6]))
        torch.testing.assert_close(bands_of(turn(images), [0.8, 1.6]), expected)


@pytest.mark.parametrize("scales", [[1.0, 1.0], [2.0, 1.0], [-1.0], [float("nan")], [float("inf")]])
def test_scales_that_do_not_rise_are_refused(scales: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"data\.stretch\.scales to rise from >= 0"):
        fit_stretch(sky(), PLAIN | {"scales": scales}, 1.0, None)


def test_noise_is_known_measured_or_given() -> None:
    assert fit_stretch(sky(), PLAIN, 2.5, None)["softening"] == [2.5, 2.5]
    assert fit_stretch(sky(), PLAIN, None, None)["softening"] == pytest.approx([3.0, 3.0], rel=0.1)
    # Images without noise have SKY_SIGMA 0 in their truth.
    assert fit_stretch(sky(), PLAIN, 0.0, 0.0) == fit_stretch(sky(), PLAIN, None, None)
    assert fit_stretch(sky(), PLAIN | {"softening": 7}, 2.5, None)["softening"] == [
        7.0,
        7.0,
    ]
    # Steps change the noise: what is known of the images before no longer holds.
    scaled = fit_stretch(sky(), PLAIN | {"steps": ["min_max"]}, 3.0, None)["softening"]
    assert scaled == pytest.approx([3.0 / 220.0] * 2, rel=0.1)


def test_flat_images_have_a_scale() -> None:
    assert noise_of(torch.zeros(2, 5, 5)) == 1.0
    assert noise_of(torch.arange(2.0)[:, None, None].expand(2, 5, 5)) == 0.5
    assert fit_stretch(torch.zeros(2, 1, 5, 5), PLAIN, None, None)["std"] == [1.0]


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
