"""Transforms, targets and augmentation against closed forms and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from datagen.errors import ConfigError
from encoders.augment import apply_symmetry, random_fractions, randomly_turned, turn
from encoders.halos.inputs import Inputs, fit_inputs
from encoders.halos.targets import LogScale


def drawn(n: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    maps = torch.exp(2.0 * torch.randn(n, 3, 8, 8, generator=generator)) * 1e7
    maps[:, 1, 0] = 0.0
    return maps


def test_transforms_are_their_formulas() -> None:
    maps = drawn()
    fitted = fit_inputs(maps, ["log10", "asinh", "max"], ["mass", "xray", "stars"])
    seen = Inputs(**fitted)(maps)
    torch.testing.assert_close(seen[:, :2].mean((0, 2, 3)), torch.zeros(2), rtol=0, atol=1e-4)
    torch.testing.assert_close(seen[:, :2].std((0, 2, 3)), torch.ones(2), rtol=0, atol=1e-4)
    scale, mean, std = (np.array(fitted[name]) for name in ("scale", "mean", "std"))
    x = maps.numpy().astype(np.float64)
    assert np.mean(x[:, 0] < scale[0]) == pytest.approx(1e-3, abs=1e-3)
    log = (np.log10(np.maximum(x[:, 0], scale[0])) - mean[0]) / std[0]
    np.testing.assert_allclose(seen[:, 0].numpy(), log, rtol=1e-4, atol=1e-5)
    assert scale[1] == pytest.approx(np.median(x[:, 1][x[:, 1] > 0]))
    np.testing.assert_allclose(
        seen[:, 1].numpy(), (np.arcsinh(x[:, 1] / scale[1]) - mean[1]) / std[1], atol=1e-4
    )
    np.testing.assert_allclose(seen[:, 2].amax((1, 2)).numpy(), 1.0, rtol=1e-6)
    torch.testing.assert_close(seen[:, 2] * maps[:, 2].amax((1, 2), keepdim=True), maps[:, 2])


def test_empty_maps_stay_finite() -> None:
    inputs = Inputs(["log10", "asinh", "max"], [1.0] * 3, [0.0] * 3, [1.0] * 3)
    assert not inputs(torch.zeros(1, 3, 4, 4)).any()


def test_inputs_of_the_card_are_not_weights() -> None:
    assert not Inputs(["max"], [1.0], [0.0], [1.0]).state_dict()


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.7, -2.9])
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_turns_are_those_of_scipy(angle: float, is_mirrored: bool) -> None:
    one = torch.randn(1, 1, 21, 21, generator=torch.Generator().manual_seed(2), dtype=torch.double)
    angles = torch.tensor([angle], dtype=torch.double)
    found = turn(one, angles, torch.tensor([is_mirrored]))[0, 0].numpy()
    flipped = one[0, 0].numpy()[:, ::-1] if is_mirrored else one[0, 0].numpy()
    # Theirs turns from rows to columns.
    expected = ndimage.rotate(flipped, -math.degrees(angle), reshape=False, order=1, mode="reflect")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_quarter_turns_move_pixels() -> None:
    maps = torch.randn(4, 2, 10, 10)
    angles = torch.arange(4) * (math.pi / 2)
    found = turn(maps, angles, torch.zeros(4, dtype=torch.bool))
    for k in range(4):
        torch.testing.assert_close(found[k], torch.rot90(maps[k], -k, (-2, -1)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("turns", "flips"), [(False, False), (True, False), (False, True)])
def test_only_what_is_allowed_is_done(turns: bool, flips: bool) -> None:
    one = torch.randn(1, 1, 9, 9)
    index = torch.arange(60)
    found = randomly_turned(one.expand(60, 1, 9, 9), 1, 0, index, turns=turns, flips=flips).round(
        decimals=4
    )
    n_different = len(torch.unique(found, dim=0))
    assert n_different == (60 if turns else 2 if flips else 1)
    part = randomly_turned(
        one.expand(5, 1, 9, 9), 1, 0, index[7:12], turns=turns, flips=flips
    ).round(decimals=4)
    assert torch.equal(part, found[7:12])


def test_exact_turns_and_mirrors_keep_pixels() -> None:
    one, index = torch.randn(1, 1, 9, 9), torch.arange(80)
    found = randomly_turned(
        one.expand(80, 1, 9, 9), 1, 0, index, turns=True, flips=True, exact=True
    )
    allowed = {apply_symmetry(one[0], k).numpy().tobytes() for k in range(8)}
    assert {image.numpy().tobytes() for image in found} == allowed


def test_fractions_are_uniform_and_independent() -> None:
    index = torch.arange(40_000)
    one, two = (random_fractions(0, 2, index, name) for name in ("angle", "mirror"))
    for values in (one, two):
        assert float(values.min()) >= 0.0
        assert float(values.max()) < 1.0
        counts = torch.histc(values, 10, 0.0, 1.0)
        assert (counts - 4000).abs().max() < 5 * 60  # five standard deviations
    assert abs(float(torch.corrcoef(torch.stack((one, two)))[0, 1])) < 5 / 200


def test_targets_are_scaled_logarithms() -> None:
    scale = LogScale.fit([0.0, 0.1, 1.0], 0.01)
    assert scale is not None
    found = scale.forward(np.array([0.0, 0.01, 0.1, 1.0, np.nan]))
    np.testing.assert_allclose(found, [0.0, 0.0, 0.5, 1.0, np.nan])
    np.testing.assert_allclose(scale.inverse(found[1:4]), [0.01, 0.1, 1.0])
    assert LogScale(**scale.plain()) == scale
    without = LogScale.fit([0.1, 1.0], 0.01)
    assert without is not None
    assert without.low == pytest.approx(-1.0)
    assert LogScale.fit([0.3], 0.01) is None
    assert LogScale.fit([], 0.01) is None
    with pytest.raises(ConfigError, match=r"0 < data\.zero_cross_section .* = 0"):
        LogScale.fit([0.1, 1.0], 0.0)
