from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_average_precision

from datagen.errors import DataFormatError
from inference.survey.cells import average_precision, cell_metrics, label_tile, read_sources
from inference.survey.scores import ScoreMap


def score_map() -> ScoreMap:
    score = np.array([[0.9, 0.2, 0.8], [0.1, np.nan, 0.7]], np.float32)
    coverage = np.array([[1, 1, 1], [1, 1, 0.2]], np.float32)
    meta = {"TILE": "T", "CELL_PX": 10, "NPIX_X": 30, "NPIX_Y": 20, "THRESH": 0.5}
    return ScoreMap(score, coverage, np.zeros_like(score), {}, meta)


def test_members_label_the_cell_they_lie_in() -> None:
    sources = Table(
        {
            "X": [9.4, 9.6, 25.0, 5.0, 3.0],
            "Y": [2.0, 2.0, 3.0, 12.0, 12.0],
            "MEM": [1, 1, 0, 1, 0],
            "LABEL_WEIGHT": [1.0, 1.0, 1.0, 0.0, 1.0],
        }
    )
    labels = label_tile(score_map(), sources, score_map().seen)
    # Cell (1, 0) holds only ignored members; (1, 1) was not seen and (1, 2) hardly.
    assert labels.score.tolist() == pytest.approx([0.9, 0.2, 0.8])
    assert labels.is_member.tolist() == [True, True, False]
    metrics = cell_metrics([labels, labels])
    assert metrics["n_cells"] == 6
    assert metrics["precision"] == metrics["recall"] == metrics["f1"] == 0.5
    assert metrics["accuracy"] == pytest.approx(1 / 3)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_average_precision_is_that_of_torchmetrics(cells: list[tuple[int, bool]]) -> None:
    score = np.array([s / 5 for s, _ in cells])
    truth = np.array([t for _, t in cells])
    ours = average_precision(score, truth)
    if not truth.any():
        assert np.isnan(ours)
        return
    theirs = binary_average_precision(torch.tensor(score), torch.tensor(truth).long())
    assert ours == pytest.approx(float(theirs), abs=1e-6)


def test_missing_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "T_sources.dat"
    Table({"X": [1], "Y": [2]}).write(path, format="ascii.commented_header")
    with pytest.raises(DataFormatError, match=r"T_sources.dat has no column MEM; it has X, Y"):
        read_sources(path)


def test_ignored_systems_hide_their_cells_although_they_are_no_members() -> None:
    """The simulator writes MEM = 0 and LABEL_WEIGHT = 0 for them."""
    sources = Table(
        {
            "X": [5.0, 15.0, 16.0, 25.0],
            "Y": [2.0, 2.0, 2.0, 12.0],
            "MEM": [0, 1, 0, 0],
            "LABEL_WEIGHT": [0.0, 1.0, 0.0, 1.0],
        }
    )
    labels = label_tile(score_map(), sources, score_map().seen)
    # (0, 0) is ignored; (0, 1) holds a labelled member too.
    assert labels.score.tolist() == pytest.approx([0.2, 0.8, 0.1])
    assert labels.is_member.tolist() == [True, False, False]
