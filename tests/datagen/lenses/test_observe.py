from __future__ import annotations

import galsim
import numpy as np
import pytest
import torch
from scipy import stats

from datagen.lenses.observe import (
    add_noise,
    poisson,
    psf_kernel,
    variance_map,
)
from datagen.lenses.render import convolve

RNG = torch.Generator().manual_seed(3)


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_kernels_have_their_width_and_unit_sum() -> None:
    kernel = psf_kernel(0.2, 1.0, 0.02)
    assert kernel.shape == (101, 101)
    assert kernel.sum().item() == pytest.approx(1.0)
    torch.testing.assert_close(kernel, kernel.flip(0, 1), rtol=0.0, atol=1e-8)
    profile = kernel[50] / kernel[50, 50]
    assert np.interp(0.5, profile[50:].flip(0), np.arange(50, -1, -1) * 0.02) == pytest.approx(
        0.1, rel=0.02
    )


def test_kernels_are_integrated_over_pixels_with_and_without_supersampling() -> None:
    expected = galsim.Gaussian(fwhm=0.15).drawImage(nx=15, ny=15, scale=0.1, dtype=float).array
    np.testing.assert_allclose(
        psf_kernel(0.15, 0.75, 0.1)[1:-1, 1:-1], expected, rtol=1e-4, atol=2e-6
    )
    # a point at the centre of a pixel, with three rays per axis
    fine = torch.zeros(1, 45, 45, dtype=torch.float64)
    fine[0, 22, 22] = 1.0
    blurred = convolve(fine, psf_kernel(0.15, 0.75, 0.1 / 3.0))
    coarse = torch.nn.functional.avg_pool2d(blurred[None], 3)[0, 0] * 9.0
    np.testing.assert_allclose(coarse, expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("rate", [0.0, 0.01, 1.0, 7.5, 15.9])
def test_small_poisson_numbers_are_exact_quantiles(rate: float) -> None:
    uniform = torch.rand(20_000, generator=RNG, dtype=torch.float64)
    ours = poisson(torch.full_like(uniform, rate), uniform)
    np.testing.assert_array_equal(ours, np.maximum(stats.poisson.ppf(uniform, rate), 0.0))


@pytest.mark.parametrize("rate", [16.0, 40.0, 1e3, 1e6])
def test_large_poisson_numbers_are_quantiles_within_one(rate: float) -> None:
    uniform = torch.rand(20_000, generator=RNG, dtype=torch.float64)
    wrong = np.abs(
        poisson(torch.full_like(uniform, rate), uniform) - stats.poisson.ppf(uniform, rate)
    )
    assert wrong.max() <= 1.0
    assert wrong.mean() < 1e-3


def test_noise_has_the_variance_of_the_map() -> None:
    image = numbers(0.0, 3.0, 50.0)[:, None, None, None].expand(3, 1, 200, 200)
    sigma, gain = numbers(0.5, 1.0, 2.0), numbers(1.0, 2.0, 0.5)
    normal = torch.randn(image.shape, generator=RNG, dtype=torch.float64)
    uniform = torch.rand(image.shape, generator=RNG, dtype=torch.float64)
    noise = add_noise(image, sigma, gain, normal, uniform) - image
    variance = variance_map(image, sigma, gain)
    np.testing.assert_allclose(variance[:, 0, 0, 0], [0.25, 2.5, 104.0])
    np.testing.assert_allclose(noise.var((1, 2, 3)), variance[:, 0, 0, 0], rtol=0.03)
    np.testing.assert_allclose(noise.mean((1, 2, 3)), 0.0, atol=0.25)
    without = add_noise(image, sigma, gain, normal)
    torch.testing.assert_close(without, image + sigma[:, None, None, None] * normal)
