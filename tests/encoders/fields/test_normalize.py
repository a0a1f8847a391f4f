"""Background and noise from images with sources."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from encoders.fields.normalize import estimate_background, normalize


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(5.0, 3.0, (1024, 1024)).astype(np.float32)


def test_pure_noise(noise: np.ndarray) -> None:
    background, sigma = estimate_background(noise)
    assert background == pytest.approx(5.0, abs=0.05)
    assert sigma == pytest.approx(3.0, rel=0.01)


def test_sources_hardly_matter(noise: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    bright = rng.random(noise.shape) < 0.05
    background, sigma = estimate_background(np.where(bright, noise + 100.0, noise))
    assert background == pytest.approx(5.0, abs=0.25)
    assert sigma == pytest.approx(3.0, rel=0.03)


def test_tensor_and_array_give_the_same(noise: np.ndarray) -> None:
    assert estimate_background(torch.from_numpy(noise)) == estimate_background(noise)


def test_bad_pixels_are_left_out(noise: np.ndarray) -> None:
    image = noise.copy()
    image[:200] = np.nan
    valid = np.ones(image.shape, bool)
    image[200:400] = 1e6
    valid[200:400] = False
    background, sigma = estimate_background(image, valid)
    assert background == pytest.approx(5.0, abs=0.05)
    assert sigma == pytest.approx(3.0, rel=0.01)


def test_images_without_noise_stay_finite() -> None:
    assert estimate_background(np.full((8, 8), 7.0, np.float32)) == (7.0, 1.0)
    assert estimate_background(np.full((8, 8), np.nan, np.float32)) == (0.0, 1.0)
    assert estimate_background(np.zeros((1, 1), np.float32)) == (0.0, 1.0)


def test_normalise_per_image_and_band() -> None:
    images = torch.tensor([10.0, 20.0]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4).clone()
    images[0, 0, 0, 0], images[0, 1, 1, 1] = torch.nan, torch.inf
    before = images.clone()
    out = normalize(images, torch.tensor([[4.0, 0.0]]), torch.tensor([[2.0, 10.0]]))
    assert out[0, 0, 2, 2] == pytest.approx(3.0)
    assert out[0, 1, 2, 2] == pytest.approx(2.0)
    assert out[0, 0, 0, 0] == 0.0
    assert out[0, 1, 1, 1] == 0.0
    assert torch.equal(images.nan_to_num(), before.nan_to_num())


def test_empty_sky_is_zero() -> None:
    images = torch.full((2, 1, 3, 3), 6.0)
    assert not normalize(images, torch.full((2, 1), 6.0), torch.ones(2, 1)).any()
