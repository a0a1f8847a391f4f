from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from astropy.table import Table

from datagen.fields.config import ImageConfig
from datagen.fields.images import Exposure, draw_bands
from datagen.fields.noise import Depth, add_noise, noise_sigma

MakeSources = Callable[..., Table]

EXPECTED = {"g": 2.006, "r": 2.644, "i": 4.595, "z": 8.756}


@pytest.mark.parametrize("band", "griz")
def test_sigma_of_des_depth(band: str, image_config: ImageConfig) -> None:
    depth = Depth(image_config.depth_mag[band], 1.95, 10.0)
    assert noise_sigma(depth, 30.0, 0.263) == pytest.approx(EXPECTED[band], rel=1e-3)


def test_an_aperture_measurement_recovers_the_depth() -> None:
    sigma = noise_sigma(Depth(23.8, 1.95, 10.0), 30.0, 0.263)
    n_pixels = np.pi * (1.95 / 2 / 0.263) ** 2
    assert 10 ** (0.4 * 6.2) / (sigma * np.sqrt(n_pixels)) == pytest.approx(10.0)


def test_noise_has_the_depth_of_each_band_and_bands_are_independent(
    make_sources: MakeSources, image_config: ImageConfig
) -> None:
    exposure = Exposure(image_config, "galsim", 7, 0, "field", "hash")
    images = dict(draw_bands(make_sources([], []), (1280, 1280), "griz", exposure))
    for band, image in images.items():
        assert image.std() == pytest.approx(EXPECTED[band], rel=0.02)
        assert abs(image.mean()) < 0.01 * EXPECTED[band]
    for one, two in combinations(images, 2):
        correlation = np.corrcoef(images[one].ravel(), images[two].ravel())[0, 1]
        assert abs(correlation) < 0.01


def test_noise_of_neighbouring_pixels_and_of_other_fields_is_independent(
    make_sources: MakeSources, image_config: ImageConfig
) -> None:
    draws = [
        next(draw_bands(make_sources([], []), (512, 512), "r", Exposure(*parts)))[1]
        for parts in (
            (image_config, "galsim", 7, 0, "field", ""),
            (image_config, "galsim", 7, 1, "field", ""),
            (image_config, "galsim", 7, 0, "tile", ""),
        )
    ]
    for other in draws[1:]:
        assert abs(np.corrcoef(draws[0].ravel(), other.ravel())[0, 1]) < 0.01
    neighbours = np.corrcoef(draws[0][:, 1:].ravel(), draws[0][:, :-1].ravel())
    assert abs(neighbours[0, 1]) < 0.01


def test_noise_does_not_depend_on_the_row_by_row_loop() -> None:
    image = np.zeros((32, 48), np.float32)
    add_noise(image, 2.0, np.random.default_rng(5))
    at_once = np.random.default_rng(5).standard_normal((32, 48), dtype=np.float32)
    assert np.array_equal(image, np.float32(2.0) * at_once)
