from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from inference.lenses.intervals import Scores, paired_interval, seeds_interval


def scores(is_right: np.ndarray, first: int = 0, identity: str = "set") -> Scores:
    return Scores(identity, np.arange(first, first + len(is_right)), is_right.astype(float))


def test_with_one_seed_the_interval_is_that_of_discordant_pairs() -> None:
    """180 images a alone got right, 120 b alone, of 1000."""
    a = np.zeros(1000, bool)
    b = np.zeros(1000, bool)
    a[:180] = b[180:300] = True
    a[300:700] = b[300:700] = True
    difference, low, high = paired_interval([scores(a)], [scores(b)])
    assert difference == pytest.approx(0.06)
    error = np.sqrt((0.18 + 0.12 - 0.06**2) / 1000)
    assert (low, high) == pytest.approx((0.06 - 1.959964 * error, 0.06 + 1.959964 * error))


def test_seeds_without_shared_images_have_students_interval() -> None:
    rng = np.random.default_rng(1)
    rows = [rng.random(50) < 0.7 for _ in range(4)]
    known = stats.ttest_1samp([row.mean() for row in rows], 0).confidence_interval(0.9)
    apart = [scores(row, first=50 * n) for n, row in enumerate(rows)]
    assert seeds_interval(apart, 0.9) == pytest.approx((known.low, known.high))
    # The same numbers in other sets are other images.
    sets = [scores(row, identity=str(n)) for n, row in enumerate(rows)]
    assert seeds_interval(sets, 0.9) == pytest.approx((known.low, known.high))


def test_seeds_with_equal_answers_have_the_interval_of_one() -> None:
    rng = np.random.default_rng(2)
    a, b = scores(rng.random(2000) < 0.8), scores(rng.random(2000) < 0.7)
    one = paired_interval([a], [b])
    assert paired_interval([a] * 3, [b] * 3) == pytest.approx(one, rel=1e-3)


@pytest.mark.parametrize(("n_shared", "scatter"), [(0, 0.02), (60, 0.0), (300, 0.0), (300, 0.02)])
def test_the_interval_covers_as_often_as_it_says(n_shared: int, scatter: float) -> None:
    """Trainings and images vary; three seeds of 300 images share some; true difference 0.05."""
    rng = np.random.default_rng(3)
    n_images, covered = 300, []
    for _ in range(500):
        common = rng.random((2, n_shared))
        a, b = [], []
        for seed, gain in enumerate(0.05 + scatter * rng.normal(size=3)):
            luck, ease = np.hstack([common, rng.random((2, n_images - n_shared))])
            own = np.arange(n_images - n_shared) + n_images * (seed + 1)
            index = np.concatenate([np.arange(n_shared), own])
            # a alone is right for 0.15 + gain of the images, b alone for 0.15.
            only_a, only_b = luck < 0.15 + gain, luck > 0.85
            both = ~only_a & ~only_b & (ease < 0.6)
            a.append(Scores("set", index, (only_a | both).astype(float)))
            b.append(Scores("set", index, (only_b | both).astype(float)))
        _, low, high = paired_interval(a, b)
        covered.append(low <= 0.05 <= high)
    assert 0.925 <= np.mean(covered) <= 0.975
