from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray
from omegaconf import DictConfig
from scipy.stats import median_abs_deviation

from conf.build import build_settings
from datagen.errors import ConfigError, DataFormatError
from datagen.files import read_json, write_json, write_text
from datagen.tiles.geometry import wcs_cards
from inference.survey.candidates import (
    CandidateRule,
    describe,
    empty_catalog,
    find_candidates,
    to_ecsv,
)
from inference.survey.estimates import ESTIMATES
from inference.survey.evaluation import evaluate_survey, summary
from inference.survey.evaluation_settings import EvaluateSettings
from inference.survey.pairs import agreements, matched_pairs, summary_lines
from inference.survey.records import OutputPaths
from inference.survey.references import make_reference
from inference.survey.scores import ScoreMap, write_scores

CELL = 64
PLACES = ((3, 4), (8, 12), (13, 17))
# What the encoder says of the three candidates, and what they are.
SAID = {"redshift": (0.22, 0.30, 0.55), "richness": (33.0, 50.0, 20.0)}
TRUE = {"redshift": (0.20, 0.31, 0.50), "richness": (30.0, 60.0, 25.0)}
ERROR = {"redshift_error": 0.015, "richness_error": 6.0}


@pytest.fixture
def predicted(tmp_path: Path, header: Callable[..., fits.Header]) -> Callable[..., ScoreMap]:
    """Return a function that writes a prediction of one survey tile with three candidates."""

    def write(has_heads: bool) -> ScoreMap:
        shape = (16, 20)
        score, ones = np.full(shape, 0.1, np.float32), np.ones(shape, np.float32)
        planes = {name: ones * ERROR.get(name, 1) for name in ESTIMATES if has_heads}
        for number, place in enumerate(PLACES):
            score[place] = 0.9
            for name in SAID:
                if has_heads:
                    planes[name][place] = SAID[name][number]
        meta = {"TILE": "T", "CELL_PX": CELL, "NPIX_X": 1280, "NPIX_Y": 1024, "THRESH": 0.5}
        meta["RUNHASH"] = "abc"
        cards = wcs_cards(header((1024, 1280)))
        scores = ScoreMap(score, ones, 0 * ones, cards, meta, planes)
        paths = OutputPaths(tmp_path / "out")
        write_scores(paths.scores("T"), scores)
        write_text(paths.catalog, to_ecsv(find_candidates(scores, CandidateRule(0.5, 3, 1))))
        manifest = {"run_hash": "abc", "tiles": [{"tile": "T", "status": "done"}]}
        write_json(paths.manifest, manifest)
        return scores

    return write


@pytest.fixture
def truth(tmp_path: Path) -> Callable[..., None]:
    """Return a function that writes the true clusters, all or some of them."""

    def write(scores: ScoreMap, rows: slice = slice(None)) -> None:
        y, x = (np.array(PLACES) * CELL + (CELL - 1) / 2).T
        ra, dec = scores.tile_wcs.wcs_pix2world(x, y, 0)
        table = Table({"CLUSTER_ID": np.arange(3), "RA": ra, "DEC": dec})
        table["Z"], table["RICHNESS"] = TRUE["redshift"], TRUE["richness"]
        table[rows].write(tmp_path / "truth.ecsv", overwrite=True)

    return write


@pytest.fixture
def settings(tmp_path: Path, composed: Callable[..., DictConfig]) -> EvaluateSettings:
    node = composed("evaluate").evaluate
    node.update(prediction_dir=str(tmp_path / "out"), output_dir=str(tmp_path / "evaluation"))
    node.update(reference=str(tmp_path / "truth.ecsv"), match_radius_arcmin=0.5, n_plots=0)
    found: EvaluateSettings = build_settings(node, "evaluate")
    return found


def pairs_of(**columns: NDArray[np.float64]) -> Table:
    """Candidates at the places of as many clusters, the first of which has no candidate."""
    n = len(columns["redshift"])
    table = empty_catalog(n)
    table["ra"], table["id"] = np.arange(n, dtype=float), [f"T_{k}" for k in range(n)]
    for name in ESTIMATES:
        table[name] = columns.get(name, np.full(n, np.nan))
    clusters = make_reference(
        np.array(["none", *(str(k) for k in range(n))]),
        (np.array([200.0, *range(n)]), np.zeros(n + 1)),
        np.append(9.0, columns["true_redshift"]),
        np.append(9.0, columns["true_richness"]),
        np.ones(n + 1, bool),
    )
    return matched_pairs(describe(table), clusters, np.arange(1, n + 1))


def test_agreements_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    z, n = rng.uniform(0.1, 0.8, 201), rng.lognormal(3.5, 0.5, 201)
    said = {"redshift": z + rng.normal(0.01, 0.03, 201), "redshift_error": np.full(201, 0.03)}
    said |= {"richness": n * rng.lognormal(-0.1, 0.2, 201), "richness_error": 0.2 * n}
    pairs = pairs_of(**said, true_redshift=z, true_richness=n)
    assert pairs["separation_arcmin"].max() < 1e-9
    redshift, richness = agreements(pairs)
    offsets = (said["redshift"] - z) / (1 + z), np.log(said["richness"] / n)
    for found, offset in zip((redshift, richness), offsets, strict=True):
        assert found.n == 201
        assert found.bias == np.median(offset)
        scatter = median_abs_deviation(offset, scale="normal")
        assert found.scatter == pytest.approx(scatter, rel=1e-4)
    assert redshift.within.n_matched == (np.abs(said["redshift"] - z) <= 0.03).sum()
    assert richness.within.n_matched == (np.abs(said["richness"] / n - 1) <= 0.2).sum()
    assert 0.55 < redshift.within.value < 0.75


def test_what_one_side_does_not_know_does_not_count() -> None:
    known = np.array([0.3, 0.4])
    pairs = pairs_of(
        redshift=known,
        redshift_error=known / 10,
        true_redshift=np.array([0.3, np.nan]),
        true_richness=np.array([20.0, 30.0]),
    )
    (redshift,) = agreements(pairs)
    assert (redshift.quantity, redshift.n, redshift.bias) == ("redshift", 1, 0.0)
    pairs["candidate_richness"] = pairs["candidate_richness_error"] = -1.0
    assert [found.n for found in agreements(pairs)] == [1, 0]
    assert summary_lines(agreements(pairs))[1].endswith("0     n/a")


def test_evaluation_says_how_well_redshift_and_richness_are_known(
    predicted: Callable[..., ScoreMap],
    truth: Callable[..., None],
    settings: EvaluateSettings,
    tmp_path: Path,
) -> None:
    truth(predicted(has_heads=True))
    result = evaluate_survey(settings)
    bins = {
        (f.variable, f.low): (f.n_matched, f.n)
        for f in result.fractions
        if f.quantity == "purity" and f.n and f.variable in ("z", "richness")
    }
    assert bins == {
        ("richness", 20): (1, 1),
        ("richness", 30): (1, 1),
        ("richness", 40): (1, 1),
        ("z", 0.2): (1, 1),
        ("z", 0.3): (1, 1),
        ("z", 0.5): (1, 1),
    }
    written = read_json(tmp_path / "evaluation" / "evaluation.json")["pairs"]
    offset = (np.array(SAID["redshift"]) - TRUE["redshift"]) / (1 + np.array(TRUE["redshift"]))
    assert written["redshift"]["bias"] == pytest.approx(np.median(offset), abs=1e-6)
    assert written["redshift"]["within_error"]["value"] == pytest.approx(1 / 3)
    assert written["richness"]["n"] == 3
    assert written["richness"]["within_error"]["value"] == pytest.approx(2 / 3)
    table = Table.read(tmp_path / "evaluation" / "matches.ecsv")
    assert sorted(table["candidate_redshift"]) == pytest.approx(sorted(SAID["redshift"]))
    assert set(table["candidate_richness_error"]) == {6.0}
    assert (tmp_path / "evaluation" / "pairs.png").stat().st_size > 0
    text = "\n".join(summary(result))
    assert "pairs (z - z_ref) / (1 + z_ref)" in text
    assert "within the 68 % error 0.333" in text


def test_without_heads_there_is_no_word_about_them(
    predicted: Callable[..., ScoreMap],
    truth: Callable[..., None],
    settings: EvaluateSettings,
    tmp_path: Path,
) -> None:
    truth(predicted(has_heads=False))
    result = evaluate_survey(settings)
    assert result.agreements == []
    assert {f.variable for f in result.fractions if f.quantity == "purity"} == {"all", "score"}
    assert read_json(tmp_path / "evaluation" / "evaluation.json")["pairs"] == {}
    assert not any("candidate_" in name for name in result.matches.colnames)
    assert not (tmp_path / "evaluation" / "pairs.png").exists()
    text = "\n".join(summary(result))
    assert "pairs" not in text
    assert "nan" not in text
    for change in ({"preference": "redshift_proximity"}, {"redshift_window": 0.1}):
        message = "needs redshifts, but 3 of 3 candidates have none; an encoder with a redshift"
        with pytest.raises(ConfigError, match=message):
            evaluate_survey(dataclasses.replace(settings, **change))


@pytest.mark.usefixtures("no_pictures")
def test_redshifts_decide_who_matches_whom(
    predicted: Callable[..., ScoreMap],
    truth: Callable[..., None],
    settings: EvaluateSettings,
    tmp_path: Path,
) -> None:
    """Two clusters changed places and all are in reach; the third is outside the window."""
    truth(predicted(has_heads=True))
    table = Table.read(tmp_path / "truth.ecsv")
    table["Z"][:2] = TRUE["redshift"][1::-1]
    table.write(tmp_path / "truth.ecsv", overwrite=True)
    assert evaluate_survey(settings).matches["cluster"].tolist() == ["0", "1", "2"]
    wide = dataclasses.replace(
        settings, match_radius_arcmin=9.0, preference="redshift_proximity", redshift_window=0.02
    )
    matches = evaluate_survey(wide).matches
    assert matches["cluster"].tolist() == ["1", "0"]
    assert np.abs(matches["candidate_redshift"] - matches["redshift"]).max() < 0.03
    strict = dataclasses.replace(wide, redshift_window=0.01)
    assert len(evaluate_survey(strict).matches) == 1
    with pytest.raises(ConfigError, match=r"evaluate\.redshift_window to be null or a number > 0"):
        dataclasses.replace(settings, redshift_window=0.0)


@pytest.mark.usefixtures("no_pictures")
def test_a_reference_without_redshifts_is_named(
    predicted: Callable[..., ScoreMap],
    truth: Callable[..., None],
    settings: EvaluateSettings,
    tmp_path: Path,
) -> None:
    truth(predicted(has_heads=True))
    table = Table.read(tmp_path / "truth.ecsv")
    table["Z"][1] = np.nan
    table.write(tmp_path / "truth.ecsv", overwrite=True)
    evaluate_survey(dataclasses.replace(settings, redshift_window=0.1))
    closest = dataclasses.replace(settings, preference="redshift_proximity")
    with pytest.raises(ConfigError, match=r"1 of 3 reference clusters have none; .*redshift=NAME"):
        evaluate_survey(closest)


@pytest.mark.usefixtures("no_pictures")
def test_an_empty_reference_is_an_error_and_one_elsewhere_a_warning(
    predicted: Callable[..., ScoreMap],
    truth: Callable[..., None],
    settings: EvaluateSettings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scores = predicted(has_heads=True)
    truth(scores, slice(0, 0))
    with pytest.raises(DataFormatError, match=r"truth\.ecsv holds no cluster with a position"):
        evaluate_survey(settings)
    truth(scores)
    table = Table.read(tmp_path / "truth.ecsv")
    table["RA"] += 90.0
    table.write(tmp_path / "truth.ecsv", overwrite=True)
    with caplog.at_level("WARNING"):
        result = evaluate_survey(settings)
    assert "completeness is n/a: of 3 in evaluate.reference" in caplog.text
    assert "0 lie in the footprint" in caplog.text
    text = "\n".join(summary(result))
    assert "nan" not in text
    assert "completeness        all                               0      0     n/a" in text
    assert read_json(tmp_path / "evaluation" / "evaluation.json")["completeness"]["value"] is None
