from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from datagen.errors import DataFormatError, DataNotFoundError
from datagen.tiles.geometry import wcs_cards
from inference.survey.candidates import (
    COLUMNS,
    CandidateRule,
    find_candidates,
    label_cells,
    read_catalog,
    to_ecsv,
    to_regions,
)
from inference.survey.scores import ScoreMap

RULE = CandidateRule(threshold=0.5, separation_cells=3, min_cells=1)
CELL = 16


@pytest.fixture
def score_map(header: Callable[..., fits.Header]) -> Callable[[NDArray[np.float32]], ScoreMap]:
    def make(score: NDArray[np.float32]) -> ScoreMap:
        shape = (score.shape[0] * CELL, score.shape[1] * CELL)
        meta = {"TILE": "T", "CELL_PX": CELL, "NPIX_X": shape[1], "NPIX_Y": shape[0]}
        ones = np.ones_like(score)
        return ScoreMap(score, ones, 0 * ones, wcs_cards(header(shape)), meta)

    return make


def test_one_cell_is_where_it_is(score_map: Callable[..., ScoreMap]) -> None:
    score = np.zeros((9, 12), np.float32)
    score[2, 7] = 0.75
    scores = score_map(score)
    (row,) = find_candidates(scores, RULE)
    assert (row["x"], row["y"]) == (7 * CELL + 7.5, 2 * CELL + 7.5)
    ra, dec = scores.tile_wcs.wcs_pix2world(row["x"], row["y"], 0)
    assert (row["ra"], row["dec"]) == pytest.approx((float(ra), float(dec)), abs=1e-9)
    assert row["n_cells"] == 1
    assert row["score"] == row["peak"] == 0.75
    assert row["area_arcmin2"] == pytest.approx((CELL * 0.263 / 60) ** 2, rel=1e-4)
    assert row["extent_arcmin"] == 0.0
    assert row["id"] == "T_0001"


def test_the_extent_reaches_the_farthest_cell(score_map: Callable[..., ScoreMap]) -> None:
    score = np.zeros((9, 12), np.float32)
    score[2, 3:6] = 0.75
    score[3, 5] = 0.75
    (row,) = find_candidates(score_map(score), RULE)
    # Equal weights: the centre is at column 4.25, row 2.25.
    expected = np.hypot(1.25, 0.25) * CELL * 0.263 / 60
    assert row["extent_arcmin"] == pytest.approx(expected, rel=1e-4)


def test_a_catalogue_that_lost_its_end_is_damaged(
    score_map: Callable[..., ScoreMap], tmp_path: Path
) -> None:
    score = np.zeros((9, 12), np.float32)
    score[2, 7] = score[6, 2] = 0.75
    table = find_candidates(score_map(score), RULE)
    text, path = to_ecsv(table), tmp_path / "T.ecsv"
    path.write_text(text)
    assert to_ecsv(read_catalog(path)) == text
    for end in range(0, len(text), 7):
        path.write_text(text[:end])
        with pytest.raises(DataFormatError, match=r"T\.ecsv is damaged .*predict\.py`") as caught:
            read_catalog(path)
        assert "\n" not in str(caught.value)
    path.write_text("".join(text.splitlines(keepends=True)[:-1]))
    with pytest.raises(DataFormatError, match="it has 1 rows instead of 2"):
        read_catalog(path)
    with pytest.raises(DataNotFoundError, match=r"none\.ecsv does not exist"):
        read_catalog(tmp_path / "none.ecsv")


def test_corners_connect_and_the_best_comes_first(score_map: Callable[..., ScoreMap]) -> None:
    score = np.zeros((9, 12), np.float32)
    score[1, 1] = 0.9
    score[6, 6] = score[7, 7] = 0.8
    table = find_candidates(score_map(score), RULE)
    assert table["n_cells"].tolist() == [2, 1]
    assert table["score"].tolist() == pytest.approx([1.6, 0.9])
    few = find_candidates(score_map(score), CandidateRule(0.5, 3, 2))
    assert len(few) == 1


def test_far_peaks_are_split_and_near_ones_are_not() -> None:
    score = np.full((3, 11), 0.6)
    score[1, 2] = score[1, 8] = 0.9
    labels = label_cells(score, RULE)
    assert labels.max() == 2
    assert labels[1, 2] != labels[1, 8]
    assert (labels > 0).all()
    assert label_cells(score, CandidateRule(0.5, 7, 1)).max() == 1
    plateau = np.full((4, 4), 0.7)
    assert label_cells(plateau, CandidateRule(0.5, 9, 1)).max() == 1


def test_masked_cells_and_empty_maps_give_nothing(score_map: Callable[..., ScoreMap]) -> None:
    score = np.full((4, 4), np.nan, np.float32)
    table = find_candidates(score_map(score), RULE)
    assert len(table) == 0
    assert table.colnames == list(COLUMNS)
    assert "arcmin2" in to_ecsv(table)


def test_regions_are_circles_of_equal_area(score_map: Callable[..., ScoreMap]) -> None:
    score = np.zeros((4, 4), np.float32)
    score[1, 1] = 0.9
    text = to_regions(find_candidates(score_map(score), RULE))
    radius = CELL * 0.263 / np.sqrt(np.pi)
    assert text.splitlines()[2] == "icrs"
    assert f',{radius:.2f}") # text={{T_0001 0.90}}' in text


def test_many_peaks_cost_little_and_ties_go_to_the_highest() -> None:
    score = np.random.default_rng(0).random((156, 156))
    tracemalloc.start()
    labels = label_cells(score, CandidateRule(0.05, 3, 1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert labels.max() > 1000
    assert peak < 50e6
    line = np.full((1, 9), 0.6)
    line[0, 1], line[0, 7] = 0.7, 0.9
    assert label_cells(line, RULE)[0].tolist() == [2, 2, 2, 2, 1, 1, 1, 1, 1]
