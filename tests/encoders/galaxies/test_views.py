"""Views depend on seed, epoch, stamp and number alone; hidden labels are told."""

from __future__ import annotations

import logging
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from datagen.errors import ConfigError, DataFormatError
from encoders.galaxies.draws import About, Op
from encoders.galaxies.stretching import Stretch, asinh
from encoders.galaxies.views import Views, hidden_targets, warn_of_hidden
from tests.encoders.galaxies.skies import about_of, spread, views_of

ALL = {
    "exposure": {"fraction": [0.5, 1.0], "hides": ["exposure"]},
    "redshifting": {
        "step": [0.0, 0.05],
        "wavelengths": {"g": 4770.0, "r": 6231.0},
        "hides": ["z", "r_eff"],
    },
    "blur": {"target": spread(0.9, 0.2), "wings": 3.5, "hides": ["fwhm"]},
    "reddening": {
        "excess": [0.0, 0.2],
        "coefficients": {"g": 1.2856, "r": 0.866},
        "hides": ["g_r"],
    },
    "noise": {"target": {"g": spread(2.0, 0.2), "r": spread(2.0, 0.2)}, "hides": ["skysigma"]},
}


@pytest.fixture
def views() -> Views:
    return views_of(30, 20, "gr", **ALL)


def stamps_of(n_stamps: int) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.poisson(torch.full((n_stamps, 2, 30, 30), 4.0), generator=generator)


def chosen(about: About, rows: Tensor) -> About:
    return About(**{f.name: getattr(about, f.name)[rows] for f in fields(about)})


def test_a_view_depends_neither_on_its_batch_nor_on_its_place(views: Views) -> None:
    stamps, about, index = stamps_of(12), about_of(12, bands=2), torch.arange(100, 112)
    together = views(stamps, about, index, 3)
    assert together.shape == (2, 12, 2, 20, 20)
    rows = torch.tensor([7, 2, 11])
    apart = views(stamps[rows], chosen(about, rows), index[rows], 3)
    # Convolutions differ between batch sizes in the last bits.
    torch.testing.assert_close(apart, together[:, rows], atol=1e-5, rtol=1e-5)


def test_views_differ_between_numbers_epochs_and_seeds(views: Views) -> None:
    stamps, about, index = stamps_of(3), about_of(3, bands=2), torch.arange(3)
    first, second = views(stamps, about, index, 0)
    assert (first - second).abs().mean() > 0.05
    assert torch.equal(views(stamps, about, index, 0)[0], first)
    assert (views(stamps, about, index, 1)[0] - first).abs().mean() > 0.05
    views.seed += 1
    assert (views(stamps, about, index, 0)[0] - first).abs().mean() > 0.05


def test_lower_precision_around_views_changes_nothing(views: Views) -> None:
    stamps, about, index = stamps_of(3), about_of(3, bands=2), torch.arange(3)
    wanted = views(stamps, about, index, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(views(stamps, about, index, 0), wanted)


def test_unknown_values_make_no_view_nan(views: Views) -> None:
    about = about_of(2, bands=2)
    unknown = About(*(torch.full_like(getattr(about, f.name), torch.nan) for f in fields(about)))
    assert views(stamps_of(2), unknown, torch.arange(2), 0).isfinite().all()


def test_the_plain_view_is_the_stretched_middle(views: Views) -> None:
    stamps = stamps_of(2)
    torch.testing.assert_close(views.plain(stamps), torch.asinh(stamps[..., 5:25, 5:25]))


def test_stamps_of_another_shape_are_refused(views: Views) -> None:
    message = r"\(n, 2, 30, 30\), but got \(1, 2, 28, 28\)"
    with pytest.raises(DataFormatError, match=message):
        views(torch.zeros(1, 2, 28, 28), about_of(1, bands=2), torch.arange(1), 0)
    with pytest.raises(DataFormatError, match=message):
        views.plain(torch.zeros(1, 2, 28, 28))


def test_targets_that_views_hide_are_told(views: Views, caplog: pytest.LogCaptureFixture) -> None:
    wanted = {"z": ["redshifting"], "g_r": ["reddening"]}
    assert hidden_targets(views, ["log_mass", "z", "g_r"]) == wanted
    assert hidden_targets(views_of(30, 20), ["z", "g_r"]) == {}
    with caplog.at_level(logging.WARNING):
        warn_of_hidden(views, ["log_mass", "z"])
    assert len(caplog.records) == 1
    assert (
        "label z differs between the views that the encoder was trained with, by model.views."
        in caplog.text
    )


def test_all_steps_are_ops(views: Views) -> None:
    assert all(isinstance(op, Op) for op in views.ops)
    assert [type(op).__name__ for op in views.ops] == [
        "Exposure",
        "Resampling",
        "Reddening",
        "Noise",
        "Stretch",
    ]


def test_the_stretch_is_asinh() -> None:
    x = torch.cat((torch.logspace(-6, 6, 200), -torch.logspace(-6, 6, 200), torch.zeros(1)))
    torch.testing.assert_close(asinh(x), torch.asinh(x), atol=2e-7, rtol=1e-6)
    with pytest.raises(ConfigError, match="softening = 0"):
        Stretch(0.0)


def test_at_least_one_view() -> None:
    with pytest.raises(ConfigError, match="n_views = 0"):
        Views("r", 8, 8, 0, 1, **dict.fromkeys(ALL), stretch={}, geometry={})
