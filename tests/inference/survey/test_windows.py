from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.errors import ConfigError
from inference.survey.windows import WindowPlan, WindowShape, axis_owners, axis_starts


def shape_of(window: int, stride: int, halo: int, cell: int = 16, unit: int = 16) -> WindowShape:
    return WindowShape(window, stride, halo, cell, unit)


@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    window=st.integers(1, 12),
    halo=st.integers(0, 4),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_every_pixel_lies_in_the_window_that_owns_its_cell(
    height: int, width: int, window: int, halo: int, data: st.DataObject
) -> None:
    window = max(window, 2 * halo + 1)
    stride = data.draw(st.integers(1, window - 2 * halo))
    plan = WindowPlan((height, width), shape_of(16 * window, 16 * stride, 16 * halo))
    h, w = plan.window_shape
    seen = np.zeros(plan.padded_shape, bool)
    for row, column in plan.starts:
        assert row % 16 == column % 16 == 0
        assert row + h <= plan.padded_shape[0]
        assert column + w <= plan.padded_shape[1]
        seen[row : row + h, column : column + w] = True
    assert seen.all()
    assert len(set(plan.starts)) == len(plan.starts)
    for owners, size, length in zip(plan.owners(), (h, w), plan.padded_shape, strict=True):
        first = np.arange(0, length, 16)
        assert len(owners) == len(first)
        assert (owners <= first).all()
        assert (owners + size >= first + 16).all()


@given(length=st.integers(1, 60), window=st.integers(1, 20), halo=st.integers(0, 6))
def test_the_owner_keeps_the_halo(length: int, window: int, halo: int) -> None:
    """Inside the image, a cell is at least a halo away from the edge of its window."""
    cell = 8
    window = max(window, 2 * halo + 1)
    size = cell * min(window, length)
    starts = axis_owners(cell * length, size, cell * (window - 2 * halo), cell)
    first = np.arange(length) * cell
    left = np.where(starts == 0, np.inf, first - starts)
    right = np.where(starts + size == cell * length, np.inf, starts + size - first - cell)
    assert (np.minimum(left, right) >= halo * cell).all()


def test_the_windows_of_the_reference_are_covered_to_the_last_pixel() -> None:
    assert axis_starts(10000, 1280, 1235)[-1] + 1280 == 10000


def test_small_tile_is_one_window() -> None:
    plan = WindowPlan((100, 61), shape_of(2560, 1536, 512))
    assert plan.starts == [(0, 0)]
    assert plan.window_shape == plan.padded_shape == (112, 64)
    assert plan.grid_shape == (7, 4)


def test_padding_to_the_alignment_adds_no_cells() -> None:
    plan = WindowPlan((100, 61), shape_of(128, 64, 0, cell=16, unit=64))
    assert plan.padded_shape == (128, 64)
    assert plan.grid_shape == (7, 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((100, 64, 16), "predict.window_px to be a multiple of 16, such as 96 or 112"),
        ((96, 50, 16), "predict.stride_px to be a multiple of 16"),
        ((96, 80, 16), "at most window_px - 2 halo_px = 64"),
        ((96, 16, 48), "at most window_px - 2 halo_px = 0"),
    ],
)
def test_windows_that_do_not_fit_are_refused(values: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shape_of(*values)


@given(height=st.integers(1, 300), width=st.integers(1, 300), stride=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_what_windows_have_passed_is_in_none_that_follow(
    height: int, width: int, stride: int
) -> None:
    plan = WindowPlan((height, width), shape_of(64, 16 * stride, 0))
    h, w = plan.window_shape
    for number in range(len(plan.starts)):
        needed = np.zeros(plan.padded_shape, bool)
        for row, column in plan.starts[number + 1 :]:
            needed[row : row + h, column : column + w] = True
        row, column = plan.passed(number)
        assert not needed[:row, :column].any()
        # Not less than could be: the next pixels are needed, or there are none.
        assert needed[row:, :].any() == (row < plan.padded_shape[0])
        assert column == plan.padded_shape[1] or needed[:row, column:].any()
