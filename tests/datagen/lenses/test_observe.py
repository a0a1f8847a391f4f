from __future__ import annotations

import math

import galsim
import numpy as np
import pytest
import torch
from scipy import stats

from datagen.errors import ConfigError
from datagen.lenses.observe import (
    Psf,
    add_noise,
    flux_factor,
    poisson,
    psf_kernel,
    sigma_factor,
    snr,
    variance_map,
)
from datagen.lenses.render import convolve

RNG = torch.Generator().manual_seed(3)


def arcs(n: int = 3, side: int = 24) -> torch.Tensor:
    return torch.rand(n, 1, side, side, generator=RNG, dtype=torch.float64) ** 4


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["gaussian", "moffat", "airy"])
def test_kernels_have_their_width_and_unit_sum(kind: str) -> None:
    psf = Psf(kind, 0.2, 1.0, 3.0)
    kernel = psf_kernel(psf, 0.02)
    assert kernel.shape == (101, 101)
    assert kernel.sum().item() == pytest.approx(1.0)
    torch.testing.assert_close(kernel, kernel.flip(0, 1), rtol=0.0, atol=1e-8)
    assert psf.galsim().calculateFWHM() == pytest.approx(0.2, rel=3e-3)
    profile = kernel[50] / kernel[50, 50]
    assert np.interp(0.5, profile[50:].flip(0), np.arange(50, -1, -1) * 0.02) == pytest.approx(
        0.1, rel=0.02
    )


def test_kernels_are_integrated_over_pixels_with_and_without_supersampling() -> None:
    psf = Psf("gaussian", 0.15, 0.75, 2.5)
    expected = galsim.Gaussian(fwhm=0.15).drawImage(nx=15, ny=15, scale=0.1, dtype=float).array
    np.testing.assert_allclose(psf_kernel(psf, 0.1)[1:-1, 1:-1], expected, rtol=1e-4, atol=2e-6)
    # a point at the centre of a pixel, with three rays per axis
    fine = torch.zeros(1, 45, 45, dtype=torch.float64)
    fine[0, 22, 22] = 1.0
    blurred = convolve(fine, psf_kernel(psf, 0.1 / 3.0))
    coarse = torch.nn.functional.avg_pool2d(blurred[None], 3)[0, 0] * 9.0
    np.testing.assert_allclose(coarse, expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "top hat"}, "kind = top hat, but a PSF must be one of gaussian, moffat, airy"),
        ({"fwhm_arcsec": 0.0}, "fwhm_arcsec = 0.0, but it must be positive"),
        ({"kind": "moffat", "beta": 1.0}, "beta = 1.0, but it must be > 1.1"),
    ],
)
def test_wrong_kernels_are_named(change: dict[str, object], message: str) -> None:
    good = {"kind": "gaussian", "fwhm_arcsec": 0.2, "radius_arcsec": 1.0, "beta": 2.5}
    with pytest.raises(ConfigError, match=message):
        Psf(**{**good, **change})


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


def test_the_snr_is_that_of_the_best_aperture() -> None:
    image, variance = arcs(1), 0.1 + arcs(1)
    order = np.argsort(-(image / variance.sqrt()).flatten().numpy())
    best, counts, noise = 0.0, 0.0, 0.0
    for pixel in order:
        counts += image.flatten()[pixel].item()
        noise += variance.flatten()[pixel].item()
        best = max(best, counts / math.sqrt(noise))
    assert snr(image, variance).item() == pytest.approx(best)


def test_flux_and_noise_are_set_to_the_wanted_snr() -> None:
    image, wanted = arcs(), numbers(20.0, 35.0, 60.0)
    sigma = numbers(0.1, 1.0, 3.0)
    for gain in (numbers(math.inf, math.inf, math.inf), numbers(2.0, 10.0, 0.5)):
        sky = variance_map(torch.zeros_like(image), sigma, gain)
        factor = flux_factor(image, sky, gain, wanted)
        seen = factor[:, None, None, None] * image
        # photons change the order of pixels a little
        torch.testing.assert_close(
            snr(seen, variance_map(seen, sigma, gain)), wanted, rtol=1e-9, atol=0.0
        )
    sky = variance_map(torch.zeros_like(image), sigma, gain)
    scaled = sky * sigma_factor(image, sky, wanted)[:, None, None, None] ** 2
    torch.testing.assert_close(snr(image, scaled), wanted)
