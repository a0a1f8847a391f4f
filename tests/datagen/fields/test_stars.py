"""Counts and colours of stars."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from datagen.fields import stars


def test_magnitudes_follow_the_counts() -> None:
    mags = stars.sample_magnitudes(np.random.default_rng(1), 10_000, 24.4)
    slope = stars.COUNT_SLOPE * np.log(10)

    def cdf(m: np.ndarray) -> np.ndarray:
        return np.expm1(slope * (m - 15.0)) / np.expm1(slope * (24.4 - 15.0))

    assert mags.min() >= stars.BRIGHTEST_MAG
    assert mags.max() <= 24.4
    assert scipy_stats.kstest(mags, cdf).pvalue > 0.01


def test_colours_scatter_about_the_locus() -> None:
    colours = stars.sample_colours(np.random.default_rng(2), np.full(5000, 21.0))
    near = np.abs(colours[:, 0] - stars.locus(colours[:, 1])[:, 0])
    assert np.median(near) < 2.0 * stars.LOCUS_WIDTH
    assert colours[:, 0].min() > -0.2
    assert colours[:, 0].max() < 1.6


@pytest.mark.parametrize(("ri", "gr", "iz"), [(0.13, 0.40, 0.06), (0.67, 1.34, 0.37)])
def test_locus_of_known_types(ri: float, gr: float, iz: float) -> None:
    assert stars.locus(np.array([ri]))[0] == pytest.approx((gr, ri, iz), abs=0.05)


def test_dwarfs_gain_on_faint_stars() -> None:
    rng = np.random.default_rng(3)
    bright, faint = (stars.sample_colours(rng, np.full(4000, m)) for m in (16.0, 23.0))
    assert (faint[:, 1] > 0.6).mean() > (bright[:, 1] > 0.6).mean() + 0.2
