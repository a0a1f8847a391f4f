from __future__ import annotations

import numpy as np

from datagen.seeds import stream, stream_seed


def test_a_stream_is_the_same_whenever_it_is_asked_for() -> None:
    assert np.array_equal(stream(1, 2, "a").random(5), stream(1, 2, "a").random(5))
    assert stream_seed(1, 2, "a") == stream_seed(1, 2, "a")


def test_streams_of_different_items_are_uncorrelated() -> None:
    names = [(1, 2, "a"), (1, 2, "b"), (1, 3, "a"), (2, 2, "a")]
    draws = np.array([stream(*name).normal(size=20_000) for name in names])
    correlation = np.corrcoef(draws) - np.eye(len(names))
    # 5 sigma of the correlation of 20 000 independent pairs.
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)
    assert len({stream_seed(*name) for name in names}) == len(names)


def test_seeds_fit_into_63_bits() -> None:
    assert all(0 <= stream_seed(0, index, "x") < 2**63 for index in range(100))
