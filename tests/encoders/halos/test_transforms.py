"""Transforms of targets: round trips, errors against simulation, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime

from datagen.errors import ConfigError
from encoders.halos.targets import LogScale
from encoders.halos.transforms import (
    Chain,
    Log10,
    MinMax,
    Transform,
    forward_error,
    inverse_error,
)

KNOWN = LogScale(-2.0, 0.0, 1e-2)
TRANSFORMS: list[Transform] = [
    Log10(1e-2),
    MinMax(-2.0, 3.0),
    KNOWN,
    Chain((MinMax(0.0, 2.0), Log10(1e-3))),
]


@pytest.mark.parametrize("transform", TRANSFORMS)
@given(x=st.floats(0.02, 50.0))
def test_round_trips_and_slopes(transform: Transform, x: float) -> None:
    t = transform.forward(x)
    assert transform.inverse(t) == pytest.approx(x, rel=1e-12)
    numeric = approx_fprime(np.array([x]), lambda v: float(transform.forward(v[0])), 1e-7 * x)
    assert transform.slope(x) == pytest.approx(numeric[0], rel=1e-5)


def test_known_cross_sections_span_0_to_1() -> None:
    transform = LogScale.fit([0.0, 0.1, 0.3, 1.0], 1e-2)
    assert transform == KNOWN
    expected = [0.0, 0.0, 0.5, (np.log10(0.3) + 2) / 2, 1.0]
    np.testing.assert_allclose(transform.forward([0.0, 1e-2, 0.1, 0.3, 1.0]), expected, atol=1e-15)
    # None counts as 0.01 cm2/g, and comes back as that.
    assert transform.inverse(transform.forward(0.0)) == pytest.approx(1e-2)
    assert np.isnan(transform.forward(np.nan))
    assert transform.forward(np.ones((2, 3))).shape == transform.slope(np.ones((2, 3))).shape


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_small_errors_are_those_of_a_simulation(transform: Transform) -> None:
    x, rng = 0.4, np.random.default_rng(0)
    error = 1e-3
    t = transform.forward(x + error * rng.normal(size=100_000))
    assert forward_error(transform, x, error) == pytest.approx(t.std(), rel=0.02)
    back = transform.inverse(float(transform.forward(x)) + error * rng.normal(size=100_000))
    middle = transform.forward(x)
    assert inverse_error(transform, middle, error) == pytest.approx(back.std(), rel=0.02)
    there = forward_error(transform, x, error)
    assert inverse_error(transform, middle, there) == pytest.approx(error, rel=1e-12)


def test_quantiles_go_through_unchanged() -> None:
    rng = np.random.default_rng(1)
    t = 0.5 + 0.3 * rng.normal(size=1001)
    transform = TRANSFORMS[2]
    for level in (0.16, 0.5, 0.84):
        expected = np.quantile(transform.inverse(t), level)
        assert transform.inverse(np.quantile(t, level)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Log10(0.0), "expected zero > 0, but got zero = 0.0"),
        (lambda: Log10(np.nan), "got zero = nan"),
        (lambda: MinMax(1.0, 1.0), "expected low < high, but got low = 1.0, high = 1.0"),
    ],
)
def test_empty_ranges_are_refused(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]
