from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor

from datagen.errors import ConfigError
from encoders.lenses import preprocessing
from encoders.lenses.preprocessing import STEPS, Preprocessing, cut, dilate, equalise, erode

CROSS = ndimage.generate_binary_structure(2, 1)


@pytest.fixture
def images() -> Tensor:
    """Return images (3, 2, 11, 14) with ties."""
    return torch.from_numpy(np.random.default_rng(8).normal(size=(3, 2, 11, 14)).round(1)).float()


def each(images: Tensor) -> list[np.ndarray]:
    return [plane.numpy() for plane in images.flatten(0, 1)]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("dilate", "grey_dilation"), ("erode", "grey_erosion"), ("opening", "grey_opening")],
)
def test_morphology_is_that_of_scipy(images: Tensor, ours: str, theirs: str) -> None:
    """The elliptic 3x3 kernel of OpenCV is a cross; neither looks beyond the border."""
    found = getattr(preprocessing, ours)(images)
    for a, b in zip(each(found), each(images), strict=True):
        expected = getattr(ndimage, theirs)(b, footprint=CROSS, mode="nearest")
        np.testing.assert_array_equal(a, expected)


def test_equalisation_is_the_rank_of_scipy(images: Tensor) -> None:
    for a, b in zip(each(equalise(images)), each(images), strict=True):
        ranks = stats.rankdata(b, method="max") / b.size
        np.testing.assert_allclose(a.ravel(), ranks, rtol=1e-6)


def test_equalisation_is_that_of_scikit_image() -> None:
    """It takes bins, here 1000, and so agrees within the few pixels of one bin."""
    exposure = pytest.importorskip("skimage.exposure")
    plane = torch.from_numpy(np.random.default_rng(10).normal(size=(40, 50))).float()
    expected = exposure.equalize_hist(plane.numpy(), nbins=1000)
    np.testing.assert_allclose(equalise(plane).numpy(), expected, atol=10 / plane.numel())


def test_equalised_images_have_a_flat_histogram() -> None:
    plane = torch.from_numpy(np.random.default_rng(9).lognormal(size=(40, 50))).float()
    counts = torch.histc(equalise(plane), bins=10, min=0, max=1 + 1e-6)
    assert (counts - 200).abs().max() <= 2


def test_the_threshold_is_a_fraction_of_the_range() -> None:
    image = torch.tensor([[[[-1.0, -0.81, -0.79, 1.0]], [[0.0, 0.5, 9.0, 10.0]]]])
    expected = torch.tensor([[[[-1.0, -1.0, -0.79, 1.0]], [[0.0, 0.0, 9.0, 10.0]]]])
    torch.testing.assert_close(cut(image, 0.1), expected)


def test_steps_are_applied_in_order_image_by_image(images: Tensor) -> None:
    apply = Preprocessing(["threshold", "erode", "dilate", "min_max"], threshold=0.1)
    found = apply(images)
    expected = preprocessing.min_max(dilate(erode(cut(images, 0.1))))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(apply(images[1:2]), found[1:2], rtol=0, atol=0)
    assert found.amin(dim=(-2, -1)).eq(0).all()
    assert found.amax(dim=(-2, -1)).eq(1).all()
    assert not torch.equal(found, Preprocessing(STEPS, threshold=0.1)(images))


def test_without_steps_images_stay_as_they_are(images: Tensor) -> None:
    assert Preprocessing([], threshold=0.1)(images) is images


@pytest.mark.parametrize("step", STEPS)
def test_an_image_of_one_value_stays_finite(step: str) -> None:
    found = Preprocessing([step], threshold=0.1)(torch.full((1, 1, 4, 4), 3.0))
    assert found.shape == (1, 1, 4, 4)
    assert torch.isfinite(found).all()


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"threshold, min_max, .* but got 'sharpen'"):
        Preprocessing(["sharpen"], threshold=0.1)
    with pytest.raises(ConfigError, match=r"threshold = 1\.5"):
        Preprocessing(["threshold"], threshold=1.5)
