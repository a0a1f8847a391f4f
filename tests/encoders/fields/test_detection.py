"""The baseline's detection catalogue, on images whose sources are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from encoders.fields.detection import FWHM, Detections, detect_sources

Array = NDArray[np.float64]

SEEING_PX: Array = np.array([5.0, 4.2, 3.6, 3.2])
NOISE: Array = np.array([2.0, 2.5, 4.5, 8.0])
SIZE = 240


def sky(
    x: Array, y: Array, flux: Array, seed: int = 0, radius_px: float = 0.0
) -> NDArray[np.float32]:
    """Return noisy images (4, SIZE, SIZE) of round Gaussian sources with fluxes (n, 4)."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    images = np.random.default_rng(seed).normal(size=(4, SIZE, SIZE)) * NOISE[:, None, None]
    for band, fwhm in enumerate(SEEING_PX):
        variance = (fwhm / FWHM) ** 2 + radius_px**2
        for k in range(len(x)):
            square = (columns - x[k]) ** 2 + (rows - y[k]) ** 2
            images[band] += flux[k, band] * np.exp(-0.5 * square / variance) / variance / 2 / np.pi
    noisy: NDArray[np.float32] = images.astype(np.float32)
    return noisy


def grid() -> tuple[Array, Array]:
    """Return 25 positions on whole pixels, 45 px apart."""
    x, y = np.meshgrid(np.arange(30, SIZE, 45), np.arange(30, SIZE, 45))
    return x.ravel().astype(float), y.ravel().astype(float)


def matched(found: Detections, x: Array, y: Array) -> NDArray[np.intp]:
    """Return the detection nearest to each true position; all within a pixel and a half."""
    distance = np.hypot(found.x - x[:, None], found.y - y[:, None])
    assert distance.min(axis=1).max() < 1.5
    nearest: NDArray[np.intp] = distance.argmin(axis=1)
    return nearest


def test_point_sources_are_found_once_with_their_flux() -> None:
    x, y = grid()
    flux = np.random.default_rng(1).uniform(3000, 9000, (len(x), 4))
    found = detect_sources(sky(x, y, flux), SEEING_PX)
    assert len(found.x) == len(x)
    ratio = found.flux[matched(found, x, y)] / flux
    assert np.abs(ratio.mean(axis=0) - 1).max() < 0.02
    # The errors are those of the background: the scatter follows them.
    pull = (found.flux[matched(found, x, y)] - flux) / found.flux_error
    assert 0.7 < pull.std() < 1.4


@pytest.mark.parametrize("radius_px", [0.0, 3.0])
def test_colours_do_not_depend_on_the_seeing(radius_px: float) -> None:
    """Extended sources lose light outside the aperture, but the same share in every band."""
    x, y = grid()
    flux = np.tile([20_000.0, 30_000.0, 40_000.0, 50_000.0], (len(x), 1))
    found = detect_sources(sky(x, y, flux, seed=2, radius_px=radius_px), SEEING_PX)
    magnitudes = -2.5 * np.log10(found.flux[matched(found, x, y)])
    colours = (magnitudes[:, :-1] - magnitudes[:, 1:]).mean(axis=0)
    expected = -2.5 * np.log10(flux[0, :-1] / flux[0, 1:])
    np.testing.assert_allclose(colours, expected, atol=0.01)
    is_dimmer = bool(found.flux[:, 2].mean() < 0.9 * flux[0, 2])
    assert is_dimmer == (radius_px > 0)


def test_empty_sky_has_hardly_any_detections() -> None:
    none = np.empty(0)
    found = detect_sources(sky(none, none, np.empty((0, 4)), seed=3), SEEING_PX)
    assert len(found.x) <= 2
    assert found.flux.shape == (len(found.x), 4)


def test_faint_in_one_band_is_found_by_the_sum_of_all() -> None:
    x, y = grid()
    error = detect_sources(sky(x, y, np.full((25, 4), 1e4)), SEEING_PX).flux_error
    flux = np.tile(4.0 * error, (len(x), 1))
    images = sky(x, y, flux, seed=4)
    assert has_match(images, x, y).mean() > 0.9
    one_band = detect_sources(images[2:3], SEEING_PX[2:3])
    assert len(one_band.x) < 15


def has_match(images: NDArray[np.float32], x: Array, y: Array) -> NDArray[np.bool_]:
    found = detect_sources(images, SEEING_PX)
    is_near: NDArray[np.bool_] = (
        np.hypot(found.x - x[:, None], found.y - y[:, None]).min(axis=1) < 3
    )
    return is_near
