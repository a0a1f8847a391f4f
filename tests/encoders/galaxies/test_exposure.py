"""Shorter exposures show Poisson counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from datagen.errors import ConfigError
from encoders.galaxies.exposure import Exposure, binomial
from tests.encoders.galaxies.skies import about_of, draw_of


@pytest.mark.parametrize("share", [0.2, 0.7])
@pytest.mark.parametrize("mean", [0.3, 6.0, 900.0])
def test_what_is_left_of_poisson_counts_is_poisson(mean: float, share: float) -> None:
    counts = torch.from_numpy(np.random.default_rng(3).poisson(mean, (50, 1, 20, 20))).float()
    found, about = Exposure([share, share], ["exposure"])(counts, about_of(50), draw_of(50))
    kept = (found * share).flatten().double().numpy()
    assert np.abs(kept - kept.round()).max() < 1e-3
    wanted = stats.poisson(mean * share)
    edges = np.unique(wanted.ppf(np.linspace(0.05, 0.95, 12)))
    bins = np.concatenate(([-1.0], edges, [np.inf]))
    seen = np.histogram(kept.round() - 0.5, bins)[0]
    chance = np.diff(wanted.cdf(bins))
    assert stats.chisquare(seen, chance / chance.sum() * seen.sum()).pvalue > 0.005
    assert about.sigma[0].item() == pytest.approx(share**-0.5)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("n", [0, 1, 7, 60])
def test_few_photons_follow_the_quantiles_of_the_binomial(n: int, share: float) -> None:
    normal = torch.linspace(-3.0, 3.0, 41)
    found = binomial(torch.full_like(normal, n), torch.full_like(normal, share), normal)
    level = stats.norm.cdf(normal.double().numpy())
    if share <= 0.5:
        wanted = stats.binom(n, share).ppf(level)
    else:  # the lost ones are counted
        wanted = n - stats.binom(n, 1.0 - np.float32(share).astype(float)).ppf(level)
    assert found.tolist() == pytest.approx(wanted.tolist())


def test_brightness_stays_and_parts_of_counts_too() -> None:
    stamps = torch.full((200, 1, 10, 10), 3.25)
    found, _ = Exposure([0.3, 0.9], [])(stamps, about_of(200), draw_of(200))
    assert found.mean().item() == pytest.approx(3.25, rel=0.01)
    whole, _ = Exposure([1.0, 1.0], [])(stamps, about_of(200), draw_of(200))
    assert torch.equal(whole, stamps)


def test_no_exposure_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="low > 0"):
        Exposure([0.0, 1.0], [])
    with pytest.raises(ConfigError, match="fraction"):
        Exposure([0.5, 2.0], [])
