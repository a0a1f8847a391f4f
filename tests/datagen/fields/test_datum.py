from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from astropy.table import Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datagen.errors import DataFormatError
from datagen.fields.datum import CellRules, cell_catalog
from datagen.fields.schema import CELL_KEYS

MakeSources = Callable[..., Table]

RULES = CellRules(cell_px=16, bands=("g", "r", "i", "z"), reference_band="r", min_flux=100.0)
# Not in the order of their numbers, and with gaps.
CLUSTERS = Table({"CLUSTER_ID": [7, 0, 3], "Z": [0.3, 0.4, 0.5], "RICHNESS": [33.0, 44.0, 55.0]})


def test_shapes_and_types(make_sources: MakeSources) -> None:
    cells = cell_catalog(make_sources([3.0], [5.0]), (64, 32), RULES, CLUSTERS)
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
    cells = cell_catalog(make_sources([x], [y], MEM=1), (32, 64), RULES, CLUSTERS)
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
    cells = cell_catalog(sources, (16, 16), RULES, CLUSTERS)
    assert cells["n_sources"].item() == 3
    assert cells["fluxes"][0, 0, 0].tolist() == [1.0, 500.0, 1000.0, 1000.0]
    assert cells["redshift"].item() == pytest.approx(0.2)
    assert cells["source_type"].item() == 1
    assert cells["galaxy_params"][0, 0, 0].tolist() == pytest.approx([0.5, 0.2, 0.0, 0.0])


def test_any_bright_member_labels_even_beside_a_brighter_other_source(
    make_sources: MakeSources,
) -> None:
    sources = make_sources([1, 2, 20], [1, 2, 1], MEM=[1, 0, 1], FLUX_R=[100.0, 900.0, 99.0])
    cells = cell_catalog(sources, (16, 32), RULES, CLUSTERS)
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
    cells = cell_catalog(sources, (16, 64), RULES, CLUSTERS)
    # Ignored; ignored beside a labelled one; ignored but too faint to matter; no member.
    assert cells["cell_weight"].flatten().tolist() == [0.0, 1.0, 1.0, 1.0]
    assert cells["membership"].flatten().tolist() == [False, True, False, False]


def literal_cluster(sources: Table, row: int, col: int) -> tuple[float, float]:
    """Redshift and richness of a cell by going through all sources."""
    brightest, found = 0.0, (0.0, 0.0)
    for source in sources:
        cell = (int(source["Y"] + 0.5) // 16, int(source["X"] + 0.5) // 16)
        is_label = source["MEM"] and source["LABEL_WEIGHT"] > 0 and source["FLUX_R"] >= 100.0
        if cell == (row, col) and is_label and source["FLUX_R"] > brightest:
            brightest = source["FLUX_R"]
            for cluster in CLUSTERS:
                if cluster["CLUSTER_ID"] == source["CLUSTER_ID"]:
                    found = (cluster["Z"], cluster["RICHNESS"])
    return found


def test_cells_carry_the_cluster_of_their_brightest_labelled_member(
    make_sources: MakeSources,
) -> None:
    rng = np.random.default_rng(0)
    n = 300
    sources = make_sources(
        list(rng.uniform(0, 127, n)),
        list(rng.uniform(0, 127, n)),
        MEM=rng.random(n) < 0.5,
        LABEL_WEIGHT=rng.random(n) < 0.7,
        FLUX_R=rng.uniform(0, 400, n),
        CLUSTER_ID=rng.choice([0, 3, 7], n),
    )
    cells = cell_catalog(sources, (128, 128), RULES, CLUSTERS)
    found = torch.cat((cells["cluster_redshift"], cells["cluster_richness"]), -1)[:, :, 0]
    expected = [[literal_cluster(sources, row, col) for col in range(8)] for row in range(8)]
    assert torch.equal(found, torch.tensor(expected, dtype=torch.float32))
    assert torch.equal(cells["cluster_richness"] > 0, cells["membership"])
    assert 10 < int(cells["membership"].sum()) < 60


def test_a_member_without_its_cluster_is_refused(make_sources: MakeSources) -> None:
    sources = make_sources([1, 2], [1, 2], MEM=1, CLUSTER_ID=[3, 5])
    sources["FLUX_R"] = [200.0, 300.0]
    with pytest.raises(DataFormatError, match=r"has no CLUSTER_ID = 5; .*phases=\[catalog\]"):
        cell_catalog(sources, (16, 16), RULES, CLUSTERS)
    # Members that do not label the cell are not looked for.
    sources["FLUX_R"] = [200.0, 50.0]
    cells = cell_catalog(sources, (16, 16), RULES, CLUSTERS)
    assert cells["cluster_redshift"].item() == 0.5


def test_empty_catalog(make_sources: MakeSources) -> None:
    cells = cell_catalog(make_sources([], []), (32, 32), RULES, CLUSTERS)
    assert not cells["membership"].any()
    assert all(bool((cells[key] == 0).all()) for key in cells if key != "cell_weight")
