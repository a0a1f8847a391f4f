from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from datagen.lenses.detect import (
    delta_chi2,
    range_basis,
    residual_chi2,
    smooth_jacobian,
    smooth_parameters,
    with_parameters,
)
from datagen.lenses.observe import psf_kernel
from datagen.lenses.render import Grid, render
from datagen.lenses.scene import Multipoles, Scenes, Sersics

MakeScenes = Callable[..., Scenes]
GRID = Grid(33, 0.15)
PSF = psf_kernel(0.3, 0.9, GRID.ray_scale)


def with_lens_light(scenes: Scenes) -> Scenes:
    columns = [0.02, -0.03, 0.8, 0.4, 1.5, 0.5, 80.0]
    light = Sersics(*(torch.full((len(scenes), 1), v, dtype=torch.float64) for v in columns))
    return dataclasses.replace(scenes, lens_light=light)


def noise(scenes: Scenes) -> torch.Tensor:
    return 0.02 + 0.01 * render(scenes, GRID, PSF)


def test_parameters_describe_the_smooth_model(make_scenes: MakeScenes) -> None:
    scenes = with_lens_light(make_scenes(3, 2))
    parameters = smooth_parameters(scenes)
    assert parameters.shape == (3, 21)
    again = with_parameters(scenes, parameters)
    torch.testing.assert_close(render(again, GRID, PSF), render(scenes, GRID, PSF))


def test_derivatives_are_those_of_differences(make_scenes: MakeScenes) -> None:
    scenes = with_lens_light(make_scenes(2, 2))
    jacobian = smooth_jacobian(scenes, GRID, PSF, has_sky=True)
    smooth = scenes.without_substructure()
    parameters, step = smooth_parameters(smooth), 1e-5
    assert jacobian.shape == (2, 33**2, 22)
    for k in range(21):
        shift = torch.zeros_like(parameters)
        shift[:, k] = step
        above, below = (
            render(with_parameters(smooth, parameters + s), GRID, PSF) for s in (shift, -shift)
        )
        expected = ((above - below) / (2.0 * step)).flatten(1)
        error = (jacobian[..., k] - expected).abs().max() / expected.abs().max()
        assert error < 1e-3, k  # rays that pass a cusp see higher derivatives
    assert (jacobian[..., 21] == 1.0).all()


def test_derivatives_give_the_delta_chi2_of_differences(make_scenes: MakeScenes) -> None:
    """With all parts of the smooth model, on two rays per pixel, to 1e-4."""
    grid = Grid(33, 0.15, 2)
    psf = psf_kernel(0.3, 0.9, grid.ray_scale)
    waves = Multipoles(torch.full((3, 2), 0.01).double(), torch.full((3, 2), 0.4).double())
    scenes = dataclasses.replace(with_lens_light(make_scenes(3, 3, "tnfw")), multipoles=waves)
    variance = 0.02 + 0.01 * render(scenes, grid, psf)
    smooth, step = scenes.without_substructure(), 1e-6
    parameters = smooth_parameters(smooth)
    shifts = step * torch.eye(21, dtype=torch.float64)
    ends = (
        [render(with_parameters(smooth, parameters + s), grid, psf) for s in (d, -d)]
        for d in shifts
    )
    columns = [((above - below) / (2.0 * step)).flatten(1) for above, below in ends]
    difference = render(scenes, grid, psf) - render(smooth, grid, psf)
    basis = range_basis(torch.stack(columns, 2), variance)
    expected = residual_chi2(difference, variance, basis)
    ours = delta_chi2(scenes, grid, psf, variance)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("has_sky", [False, True])
def test_delta_chi2_is_that_of_a_least_squares_refit(
    make_scenes: MakeScenes, has_sky: bool
) -> None:
    scenes = with_lens_light(make_scenes(2, 3, "tnfw"))
    variance = noise(scenes)
    ours = delta_chi2(scenes, GRID, PSF, variance, has_sky=has_sky)
    sigma = variance.sqrt().flatten(1).numpy()
    smooth = scenes.without_substructure()
    difference = (render(scenes, GRID, PSF) - render(smooth, GRID, PSF)).flatten(1).numpy()
    jacobian = smooth_jacobian(scenes, GRID, PSF, has_sky).numpy()
    for row in range(2):
        d, j = difference[row] / sigma[row], jacobian[row] / sigma[row][:, None]
        best, *_ = np.linalg.lstsq(j, d, rcond=None)
        assert ours[row].item() == pytest.approx(((d - j @ best) ** 2).sum(), rel=1e-8)
        assert ours[row].item() < (d**2).sum()


def test_delta_chi2_does_not_depend_on_the_choice_of_parameters(make_scenes: MakeScenes) -> None:
    scenes = make_scenes(3, 3)
    variance = noise(scenes)
    jacobian = smooth_jacobian(scenes, GRID, PSF, has_sky=False)
    rng = torch.Generator().manual_seed(0)
    mixing = torch.randn(14, 14, generator=rng, dtype=torch.float64)
    scale = torch.logspace(-4, 4, 14, dtype=torch.float64)
    difference = torch.randn(3, 1, 33, 33, generator=rng, dtype=torch.float64)
    results = [
        residual_chi2(difference, variance, range_basis(j, variance))
        for j in (jacobian, jacobian @ mixing * scale)
    ]
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=0.0)


def test_a_shift_of_the_smooth_model_cannot_be_detected(make_scenes: MakeScenes) -> None:
    scenes = make_scenes(3)
    moved = smooth_parameters(scenes) + 1e-5
    shifted, variance = with_parameters(scenes, moved), noise(scenes)
    difference = render(shifted, GRID, PSF) - render(scenes, GRID, PSF)
    raw = (difference**2 / variance).sum((1, 2, 3))
    rest = delta_chi2(shifted, GRID, PSF, variance, smooth=scenes)
    assert (rest < 1e-5 * raw).all()
    torch.testing.assert_close(
        delta_chi2(scenes, GRID, PSF, variance), torch.zeros(3, dtype=torch.float64)
    )


def test_components_without_light_and_round_ones_are_harmless(make_scenes: MakeScenes) -> None:
    scenes = make_scenes(2, 3)
    variance = noise(scenes)
    expected = delta_chi2(scenes, GRID, PSF, variance)
    dark = scenes.source._map(lambda values: torch.cat([values, values], 1))
    dark = dataclasses.replace(dark, flux=dark.flux * torch.tensor([1.0, 0.0]).double())
    padded = dataclasses.replace(scenes, source=dark)
    torch.testing.assert_close(delta_chi2(padded, GRID, PSF, variance), expected)
    round_ones = dataclasses.replace(scenes, q=torch.ones_like(scenes.q))
    assert torch.isfinite(delta_chi2(round_ones, GRID, PSF, variance)).all()


def test_float32_scenes_are_good_enough(make_scenes: MakeScenes) -> None:
    exact = make_scenes(3, 3)
    variance = noise(exact)
    single = delta_chi2(make_scenes(3, 3, dtype=torch.float32), GRID, PSF.float(), variance.float())
    torch.testing.assert_close(single, delta_chi2(exact, GRID, PSF, variance), rtol=2e-3, atol=0.0)
