from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from astropy.table import Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datagen.fields.datum import CellRules, cell_catalog
from datagen.fields.schema import CELL_KEYS

MakeSources = Callable[..., Table]

RULES = CellRules(cell_px=16, bands=("g", "r", "i", "z"), reference_band="r", min_flux=100.0)


def test_shapes_and_types(make_sources: MakeSources) -> None:
    cells = cell_catalog(make_sources([3.0], [5.0]), (64, 32), RULES)
    assert cells.keys() == CELL_KEYS.keys()
    for key, (trailing, dtype) in CELL_KEYS.items():
        wanted = (4, 2, *(4 if size == "bands" else int(size) for size in trailing))
        assert tuple(cells[key].shape) == wanted
        assert str(cells[key].dtype) == f"torch.{dtype}"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(x=st.floats(-5, 70), y=st.floats(-5, 38))
def test_a_member_labels_the_cell_that_holds_its_pixel(
    make_sources: MakeSources, x: float, y: float
) -> None:
    cells = cell_catalog(make_sources([x], [y], MEM=1), (32, 64), RULES)
    row, col = int(np.floor(y + 0.5)) // 16, int(np.floor(x + 0.5)) // 16
    expected = torch.zeros(2, 4, dtype=torch.bool)
    if 0 <= row < 2 and 0 <= col < 4:
        expected[row, col] = True
        fraction = cells["locs"][row, col, 0]
        position = (fraction + torch.tensor([row, col])) * 16 - 0.5
        assert position.numpy() == pytest.approx([y, x], abs=1e-4)
    assert torch.equal(cells["membership"][..., 0, 0], expected)
    assert bool(((cells["locs"] >= 0) & (cells["locs"] < 1)).all())


def test_the_brightest_source_describes_the_cell(make_sources: MakeSources) -> None:
    sources = make_sources(
        [1.0, 2.0, 3.0],
        [1.0, 2.0, 3.0],
        FLUX_R=[10.0, 500.0, 200.0],
        FLUX_G=[9e5, 1.0, 2.0],
        Z=[0.1, 0.2, 0.3],
        SOURCE_TYPE=[0, 1, 0],
        G1=[0.1, 0.2, 0.3],
    )
    cells = cell_catalog(sources, (16, 16), RULES)
    assert cells["n_sources"].item() == 3
    assert cells["fluxes"][0, 0, 0].tolist() == [1.0, 500.0, 1000.0, 1000.0]
    assert cells["redshift"].item() == pytest.approx(0.2)
    assert cells["source_type"].item() == 1
    assert cells["galaxy_params"][0, 0, 0].tolist() == pytest.approx([0.5, 0.2, 0.0, 0.0])


def test_any_bright_member_labels_even_beside_a_brighter_other_source(
    make_sources: MakeSources,
) -> None:
    sources = make_sources([1, 2, 20], [1, 2, 1], MEM=[1, 0, 1], FLUX_R=[100.0, 900.0, 99.0])
    cells = cell_catalog(sources, (16, 32), RULES)
    assert cells["membership"].flatten().tolist() == [True, False]
    assert cells["n_members"].flatten().tolist() == [1, 0]


def test_cells_whose_only_members_are_ignored_have_no_weight(make_sources: MakeSources) -> None:
    sources = make_sources(
        [1, 17, 18, 33, 49],
        [1, 1, 1, 1, 1],
        MEM=[1, 1, 1, 1, 0],
        LABEL_WEIGHT=[0, 0, 1, 0, 1],
        FLUX_R=[500.0, 500.0, 500.0, 10.0, 500.0],
    )
    cells = cell_catalog(sources, (16, 64), RULES)
    # Ignored; ignored beside a labelled one; ignored but too faint to matter; no member.
    assert cells["cell_weight"].flatten().tolist() == [0.0, 1.0, 1.0, 1.0]
    assert cells["membership"].flatten().tolist() == [False, True, False, False]


def test_empty_catalog(make_sources: MakeSources) -> None:
    cells = cell_catalog(make_sources([], []), (32, 32), RULES)
    assert not cells["membership"].any()
    assert all(bool((cells[key] == 0).all()) for key in cells if key != "cell_weight")
