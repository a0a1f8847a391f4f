"""Overlap of sets in the latent space against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from encoders.halos.overlap import overlap, overlap_with_classes, projected


@pytest.mark.parametrize("distance", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_two_normal_samples_overlap_as_their_densities(distance: float) -> None:
    """2 Phi(-d / (2 s)), with s the width after smoothing with Scott's bandwidth."""
    n = 1000
    x = norm.ppf((np.arange(n) + 0.5) / n)
    width = (1.0 + n ** (-2 / 5)) ** 0.5
    expected = 2.0 * norm.cdf(-distance / (2.0 * width))
    assert overlap(x, x + distance) == pytest.approx(expected, abs=2e-3)
    assert overlap(x + distance, x) == pytest.approx(overlap(x, x + distance))


def test_few_values_have_no_density() -> None:
    assert np.isnan(overlap(np.ones(5), np.arange(5.0)))
    assert np.isnan(overlap(np.arange(5.0), np.ones(1)))


def test_places_lie_along_the_line_between_the_means() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 6)), rng.normal(size=(40, 6)) + 2.0
    places_a, places_b = projected(a, b)
    assert places_a.mean() == pytest.approx(0.0, abs=1e-12)
    assert places_b.mean() == pytest.approx(np.linalg.norm(b.mean(axis=0) - a.mean(axis=0)))
    # Turning the space changes nothing.
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    np.testing.assert_allclose(projected(a @ turn, b @ turn)[1], places_b)
    empty = projected(a[:, :0], b[:, :0])
    assert [len(places) for places in empty] == [50, 40]
    assert not np.concatenate(empty).any()


def test_equal_means_are_projected_along_the_widest_axis() -> None:
    rng = np.random.default_rng(2)
    a = rng.normal(size=(50, 6)) * [1.0, 1.0, 5.0, 1.0, 1.0, 1.0]
    a[:, 5] = 0.1
    # The mean of the same points in another order differs in the last bits.
    for same in (a, a[::-1], a[rng.permutation(50)]):
        places, others = projected(a, same)
        assert np.corrcoef(places, a[:, 2])[0, 1] ** 2 > 0.98
        assert overlap(places, others) == pytest.approx(1.0, abs=1e-5)
    # Equal means, other widths.
    wide = a.mean(axis=0) + 10.0 * (a - a.mean(axis=0))
    assert 0.05 < overlap(*projected(a, wide)) < 0.4


def test_a_set_overlaps_wholly_with_itself() -> None:
    latent = np.random.default_rng(3).normal(size=(80, 7))
    shares = overlap_with_classes(latent, latent, np.zeros(80, np.int64))
    assert shares[0] == pytest.approx(1.0, abs=1e-5)


def test_foreign_sets_do_not_overlap_and_cross_sections_do_not_count() -> None:
    rng = np.random.default_rng(1)
    known = rng.normal(size=(600, 7))
    classes = np.repeat([0, 1, -1], 200)
    known[classes == 1, 1:] += 4.0
    # Like class 1 but for its cross-section, axis 0.
    like = rng.normal(size=(300, 7)) + 4.0
    like[:, 0] += 50.0
    found = overlap_with_classes(like, known, classes)
    assert set(found) == {0, 1}
    assert found[1] > 0.8
    assert found[0] < 0.01
    foreign = rng.normal(size=(300, 7)) - 10.0
    assert max(overlap_with_classes(foreign, known, classes).values()) < 1e-3
