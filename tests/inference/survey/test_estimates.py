from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st
from lightning import LightningModule
from scipy.stats import norm

from conf.running import JOBS_FAILED
from datagen.errors import DataFormatError
from datagen.tiles.geometry import wcs_cards
from datagen.tiles.survey import SurveySettings
from inference.engine import run
from inference.survey.candidates import (
    CandidateRule,
    find_candidates,
    read_catalog,
    to_ecsv,
    to_regions,
)
from inference.survey.estimates import ESTIMATES, combine, estimate
from inference.survey.run import SurveyRun
from inference.survey.scores import ScoreMap, read_scores, write_scores
from inference.survey.settings import PredictSettings

Predict = Callable[..., int]


@pytest.fixture
def tiles(tmp_path: Path, tile: Callable[..., Path]) -> Path:
    for number in range(2):
        tile(tmp_path / "tiles", f"T{number}", seed=number, ra=10 + 0.01 * number)
    return tmp_path / "tiles"


@pytest.fixture
def predict(
    settings: PredictSettings, survey: SurveySettings, with_heads: LightningModule
) -> Predict:
    def call(module: LightningModule = with_heads, **changes: object) -> int:
        changed = dataclasses.replace(settings, **changes)
        return run(SurveyRun(changed, survey, module, "a" * 64))

    return call


@given(
    st.lists(
        st.tuples(st.floats(-1, 1), st.floats(0.1, 2), st.floats(0.05, 1)), min_size=1, max_size=6
    )
)
def test_combine_gives_the_moments_of_the_mixture(cells: list[tuple[float, float, float]]) -> None:
    """Against the mixture's density, integrated numerically."""
    value, error, weight = np.array(cells).T
    x = np.linspace(-20, 20, 8001)
    density = weight @ norm.pdf(x, value[:, None], error[:, None]) / weight.sum()
    mean = np.trapezoid(density * x, x)
    variance = np.trapezoid(density * (x - mean) ** 2, x)
    assert combine(value, error, weight) == pytest.approx((mean, variance**0.5), abs=1e-6)


def test_many_equal_cells_know_no_more_than_one() -> None:
    value, error, weight = np.full(50, 0.4), np.full(50, 0.03), np.linspace(0.5, 0.9, 50)
    assert combine(value, error, weight) == pytest.approx((0.4, 0.03))


def test_cells_that_do_not_know_the_redshift_hardly_count_for_it() -> None:
    planes = {
        "redshift": np.array([[0.30, 0.50]], np.float32),
        "redshift_error": np.array([[0.01, 0.10]], np.float32),
        "richness": np.array([[20.0, 60.0]], np.float32),
        "richness_error": np.array([[5.0, 20.0]], np.float32),
    }
    cells = (np.zeros(2, np.int64), np.arange(2))
    found = estimate(planes, cells, np.array([0.8, 0.4]))
    # Weights 0.8 / 0.01^2 and 0.4 / 0.1^2, and 2 to 1.
    assert found["redshift"] == pytest.approx((200 * 0.3 + 0.5) / 201)
    assert found["richness"] == pytest.approx((2 * 20 + 60) / 3)
    spread = (2 * 5**2 + 20**2) / 3 + (2 * (20 - 100 / 3) ** 2 + (60 - 100 / 3) ** 2) / 3
    assert found["richness_error"] == pytest.approx(spread**0.5)
    only = estimate({k: planes[k] for k in ("redshift", "redshift_error")}, cells, np.ones(2))
    assert np.isnan([only["richness"], only["richness_error"]]).all()


def test_planes_are_blended_and_stored_like_the_scores(
    tiles: Path,
    tmp_path: Path,
    predict: Predict,
    estimates: Callable[..., Any],
    module: LightningModule,
) -> None:
    assert predict() == 0
    assert predict(module, output_dir=str(tmp_path / "plain")) == 0
    for name in ("T0", "T1"):
        with fits.open(tmp_path / "out" / "scores" / f"{name}.fits") as hdus:
            assert [hdu.name for hdu in hdus[3:]] == list(ESTIMATES.values())
            expected = estimates(torch.from_numpy(hdus["SCORE"].data.astype(np.float32)))
            for key, plane in ESTIMATES.items():
                np.testing.assert_allclose(hdus[plane].data, expected[key].numpy(), rtol=1e-6)
                assert wcs_cards(hdus[plane].header) == wcs_cards(hdus[0].header)
        plain = read_scores(tmp_path / "plain" / "scores" / f"{name}.fits")
        found = read_scores(tmp_path / "out" / "scores" / f"{name}.fits")
        assert plain.estimates == {}
        assert found.score.tobytes() == plain.score.tobytes()
    merged, separate = (
        read_catalog(tmp_path / "out" / name) for name in ("catalog.ecsv", "catalogs/T0.ecsv")
    )
    assert len(separate) > 0
    for table in (merged, separate):
        assert np.isfinite(table["redshift"]).all()
        # Cells over the threshold of 0.5.
        assert ((table["redshift"] > 0.45) & (table["redshift"] < 0.7)).all()
        assert ((table["richness_error"] >= 4) & (table["richness_error"] < 8)).all()
    nothing = read_catalog(tmp_path / "plain" / "catalog.ecsv")
    assert len(nothing) == len(merged)
    assert all(np.isnan(nothing[name]).all() for name in ESTIMATES)
    assert nothing["redshift"].dtype == np.float64


def test_bytes_do_not_depend_on_workers_or_resuming(
    tiles: Path, tmp_path: Path, predict: Predict
) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.glob("*/*.[fer]*s*")}

    predict(regions=True)
    predict(regions=True, num_workers=2, output_dir=str(tmp_path / "workers"))
    assert contents(tmp_path / "workers") == contents(tmp_path / "out")
    (tmp_path / "workers" / "scores" / "T1.fits").unlink()
    predict(regions=True, output_dir=str(tmp_path / "workers"))
    assert contents(tmp_path / "workers") == contents(tmp_path / "out")


@pytest.mark.parametrize("blend", ["crop", "taper"])
def test_prevalence_acts_on_scores_only(
    tiles: Path, tmp_path: Path, predict: Predict, blend: str
) -> None:
    predict(blend=blend)
    predict(blend=blend, prevalence=0.03, output_dir=str(tmp_path / "rare"))
    a, b = (read_scores(tmp_path / f / "scores/T0.fits") for f in ("out", "rare"))
    assert (b.score < a.score).all()
    for name in ESTIMATES:
        assert a.estimates[name].tobytes() == b.estimates[name].tobytes()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("redshift", torch.nan, "the encoder gave no finite redshift for 1 of 130 cells"),
        ("richness_error", torch.inf, "no finite richness_error above 0 for 1 of 130 cells"),
        ("redshift_error", 0.0, "no finite redshift_error above 0 for 1 of 130 cells"),
    ],
)
def test_estimates_without_meaning_are_no_result(
    tiles: Path,
    tmp_path: Path,
    predict: Predict,
    with_heads: LightningModule,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: float,
    message: str,
) -> None:
    step = with_heads.predict_step

    def broken(batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        outputs: dict[str, Any] = step(batch, batch_idx)
        # The first cell of the survey tile belongs to its first window.
        if batch["tile"] == "T1" and 0 in batch["windows"]:
            outputs[name][list(batch["windows"]).index(0), 0, 0] = value
        return outputs

    monkeypatch.setattr(with_heads, "predict_step", broken)
    assert predict() == JOBS_FAILED
    failed = Table.read(tmp_path / "out" / "failed.ecsv")
    assert failed["tile"].tolist() == ["T1"]
    assert message in failed["reason"][0]


@pytest.fixture
def score_map(header: Callable[..., fits.Header], estimates: Callable[..., Any]) -> ScoreMap:
    """One candidate of two cells."""
    score = np.zeros((5, 6), np.float32)
    score[2, 2:4] = 0.8, 0.6
    planes = {k: v.numpy() for k, v in estimates(torch.from_numpy(score)).items()}
    meta = {"TILE": "T", "CELL_PX": 16, "NPIX_X": 96, "NPIX_Y": 80}
    ones = np.ones_like(score)
    return ScoreMap(score, ones, 0 * ones, wcs_cards(header((80, 96))), meta, planes)


def test_catalogue_and_regions_carry_the_estimates(score_map: ScoreMap, tmp_path: Path) -> None:
    table = find_candidates(score_map, CandidateRule(0.5, 3, 1))
    (row,) = table
    assert 0.5 < row["redshift"] < 0.6
    assert table["redshift"].description
    path = tmp_path / "T.ecsv"
    path.write_text(to_ecsv(table))
    assert [tuple(r) for r in read_catalog(path)] == [tuple(row)]
    assert "text={T_0001 1.40 z=0.549+-0.055 richness=41+-5}" in to_regions(table)
    table["redshift"] = table["redshift_error"] = np.nan
    path.write_text(to_ecsv(table))
    assert np.isnan(read_catalog(path)["redshift"]).all()
    assert to_ecsv(read_catalog(path)) == path.read_text()
    assert "text={T_0001 1.40 richness=41+-5}" in to_regions(table)


def test_score_maps_that_lost_planes_are_damaged_and_older_ones_are_read(
    score_map: ScoreMap, tmp_path: Path
) -> None:
    path = tmp_path / "T.fits"
    write_scores(path, score_map)
    again = read_scores(path)
    for name, plane in score_map.estimates.items():
        np.testing.assert_array_equal(again.estimates[name], plane)
    with fits.open(path) as hdus:
        ends = [hdu.fileinfo()["datLoc"] + hdu.fileinfo()["datSpan"] for hdu in hdus]
    whole = path.read_bytes()
    for n_left in range(3, 7):
        path.write_bytes(whole[: ends[n_left - 1]])
        with pytest.raises(DataFormatError, match=f"it has {n_left} images instead of 7"):
            read_scores(path)
    write_scores(path, dataclasses.replace(score_map, estimates={}))
    fits.delval(path, "NPLANES")
    assert read_scores(path).estimates == {}
