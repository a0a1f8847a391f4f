from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.files import read_json, write_json, write_text
from datagen.tiles.geometry import wcs_cards
from inference.survey.candidates import CandidateRule, find_candidates, to_ecsv
from inference.survey.evaluation import evaluate_survey, summary
from inference.survey.evaluation_settings import EvaluateSettings
from inference.survey.merge import TileFootprint, owned_cells
from inference.survey.records import OutputPaths
from inference.survey.references import read_reference
from inference.survey.scores import ScoreMap, write_scores
from inference.survey.statistics import Area, random_positions

CELL = 64
PURITY = ("purity", "all")


@pytest.fixture
def evaluation(tmp_path: Path) -> EvaluateSettings:
    return EvaluateSettings(
        prediction_dir=str(tmp_path / "out"),
        output_dir=str(tmp_path / "evaluation"),
        reference=str(tmp_path / "truth.ecsv"),
        sources="{tile}/{tile}_sources.dat",
        match_radius_arcmin=0.5,
        preference="angular_proximity",
        redshift_window=None,
        richness_min=20.0,
        purity_richness_min=None,
        redshift_range=None,
        score_min=None,
        richness_bins=[20.0, 40.0, 100.0],
        redshift_bins=[0.1, 0.5, 0.9],
        score_bins=[0.0, 1.0, 10.0],
        n_plots=1,
    )


def write_manifest(paths: OutputPaths, run_hash: str, **status: str) -> None:
    tiles = [{"tile": tile, "status": word} for tile, word in status.items()]
    write_json(paths.manifest, {"run_hash": run_hash, "tiles": tiles})


@pytest.fixture
def prediction(tmp_path: Path, header: Callable[..., fits.Header]) -> ScoreMap:
    """One survey tile with three candidates; two of four clusters in it are found."""
    score = np.full((16, 20), 0.1, np.float32)
    for row, column in ((3, 4), (8, 12), (13, 17)):
        score[row, column] = 0.9
    shape = (16 * CELL - 10, 20 * CELL)
    meta = {"TILE": "T", "CELL_PX": CELL, "NPIX_X": shape[1], "NPIX_Y": shape[0], "THRESH": 0.5}
    meta["RUNHASH"] = "abc"
    ones = np.ones_like(score)
    scores = ScoreMap(score, ones, 0 * ones, wcs_cards(header(shape)), meta)
    paths = OutputPaths(tmp_path / "out")
    write_scores(paths.scores("T"), scores)
    write_text(paths.catalog, to_ecsv(find_candidates(scores, CandidateRule(0.5, 3, 1))))
    write_manifest(paths, "abc", T="done")
    cells = [(3.0, 4.0), (8.2, 12.1), (2.0, 15.0), (12.0, 3.0), (13.0, 17.0), (60.0, 60.0)]
    y, x = (np.array(cells) * CELL + (CELL - 1) / 2).T
    ra, dec = scores.tile_wcs.wcs_pix2world(x, y, 0)
    table = Table({"CLUSTER_ID": np.arange(6), "RA": ra, "DEC": dec})
    table["Z"] = [0.2, 0.3, 0.4, 0.6, 0.3, 0.3]
    table["RICHNESS"] = [30.0, 60.0, 25.0, 50.0, 10.0, 90.0]
    table["LABELLED"] = True
    table.write(tmp_path / "truth.ecsv")
    return scores


def test_completeness_and_purity_count_the_footprint(
    prediction: ScoreMap, evaluation: EvaluateSettings, tmp_path: Path
) -> None:
    result = evaluate_survey(evaluation)
    counts = {(f.quantity, f.variable, f.low): (f.n_matched, f.n) for f in result.fractions}
    assert counts["completeness", "all", -np.inf] == (2, 4)
    assert counts["completeness", "richness", 20.0] == (1, 2)
    assert counts["completeness", "z", 0.5] == (0, 1)
    assert counts["purity", "all", -np.inf] == (2, 3)
    matched, n = counts["chance_purity", "all", -np.inf]
    # Four discs of 0.5 arcmin in 5.6 x 4.4 arcmin.
    assert n == 60
    assert 0 < matched < 20
    # Each random position that finds a cluster is one more cluster found, of four in 20 turns.
    assert counts["chance_completeness", "all", -np.inf] == (matched, 80)
    assert result.matches["cluster"].tolist() == ["0", "1"]
    assert result.matches["separation_arcmin"][0] == pytest.approx(0, abs=1e-6)
    assert result.cells == {}
    written = read_json(tmp_path / "evaluation" / "evaluation.json")
    assert written["completeness"]["value"] == 0.5
    assert written["chance_purity"]["value"] == matched / 60
    cuts = {"score_min": None, "richness_min": 20.0, "purity_richness_min": None}
    origin = {"run_hash": "abc", "reference": str(tmp_path / "truth.ecsv"), **cuts}
    assert origin.items() <= written.items()
    assert Table.read(tmp_path / "evaluation" / "evaluation.ecsv")["n"][0] == 4
    assert [path.suffix for path in result.files] == [".ecsv"] * 3 + [".json", ".fits", ".fits"] + [
        ".png"
    ] * 2
    assert all(path.stat().st_size > 0 for path in result.files)
    text = "\n".join(summary(result))
    assert "completeness        all" in text
    assert "evaluation.json" in text


@pytest.mark.usefixtures("no_pictures")
def test_poorer_clusters_may_count_for_purity_only(
    prediction: ScoreMap, evaluation: EvaluateSettings
) -> None:
    result = evaluate_survey(dataclasses.replace(evaluation, purity_richness_min=5.0, n_plots=0))
    overall = {f.quantity: (f.n_matched, f.n) for f in result.fractions if f.variable == "all"}
    assert (overall["completeness"], overall["purity"]) == ((2, 4), (3, 3))


@pytest.mark.usefixtures("no_pictures")
def test_cells_are_compared_where_source_catalogues_are(
    prediction: ScoreMap, evaluation: EvaluateSettings, tmp_path: Path
) -> None:
    folder = tmp_path / "tiles" / "T"
    folder.mkdir(parents=True)
    sources = Table({"X": [4.5 * CELL, 0.0], "Y": [3.5 * CELL, 0.0], "MEM": [1, 1]})
    sources.write(folder / "T_sources.dat", format="ascii.commented_header")
    OutputPaths(tmp_path / "out").run.write_text(f'{{"cached_data_path": "{tmp_path / "tiles"}"}}')
    metrics = evaluate_survey(dataclasses.replace(evaluation, n_plots=0)).cells
    assert metrics["n_cells"] == 320
    assert metrics["recall"] == 0.5
    assert metrics["precision"] == pytest.approx(1 / 3)


@pytest.fixture
def neighbour(prediction: ScoreMap, tmp_path: Path, header: Callable[..., fits.Header]) -> ScoreMap:
    """A second survey tile that shows the right half of the first one again."""
    half = 10 * CELL * 0.263 / 3600 / np.cos(np.radians(5.0))
    meta = {**prediction.meta, "TILE": "U"}
    cards = wcs_cards(header(prediction.tile_shape, ra=10.0 - half))
    scores = dataclasses.replace(prediction, tile_cards=cards, meta=meta)
    paths = OutputPaths(tmp_path / "out")
    write_scores(paths.scores("U"), scores)
    write_manifest(paths, "abc", T="done", U="done")
    for tile in "TU":
        folder = tmp_path / "tiles" / tile
        folder.mkdir(parents=True)
        table = Table({"X": [4.5 * CELL], "Y": [3.5 * CELL], "MEM": [1]})
        table.write(folder / f"{tile}_sources.dat", format="ascii.commented_header")
    paths.run.write_text(f'{{"cached_data_path": "{tmp_path / "tiles"}"}}')
    return scores


@pytest.mark.usefixtures("no_pictures")
def test_overlaps_of_survey_tiles_count_once(
    prediction: ScoreMap,
    neighbour: ScoreMap,
    evaluation: EvaluateSettings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = dataclasses.replace(evaluation, n_plots=0)
    metrics = evaluate_survey(settings).cells
    # Of 2 x 16 x 20 cells, 16 x 10 are the same sky.
    assert metrics["n_cells"] == 480
    assert "survey tiles have truth" not in caplog.text
    (tmp_path / "tiles" / "U" / "U_sources.dat").unlink()
    assert evaluate_survey(settings).cells["n_cells"] == 240
    assert "1 of 2 survey tiles have truth (evaluate.sources = {tile}/" in caplog.text


def test_random_positions_are_uniform_over_overlaps(
    prediction: ScoreMap, neighbour: ScoreMap
) -> None:
    places = [TileFootprint.of(scores) for scores in (prediction, neighbour)]
    areas = [
        Area(place.wcs, CELL, np.argwhere(mine))
        for place, mine in zip(places, owned_cells(places), strict=True)
    ]
    ra, dec = random_positions(areas, 3000, np.random.default_rng(0))
    both = places[0].contains(ra, dec) & places[1].contains(ra, dec)
    assert both.mean() == pytest.approx(1 / 3, abs=0.03)


def test_a_damaged_catalogue_takes_one_line(
    prediction: ScoreMap, evaluation: EvaluateSettings, tmp_path: Path
) -> None:
    path = tmp_path / "out" / "catalog.ecsv"
    text = path.read_text()
    for keep in (0.0, 0.5, 0.9):
        path.write_text(text[: int(keep * len(text))])
        with pytest.raises(DataFormatError, match=r"catalog\.ecsv is damaged .*predict\.py`"):
            evaluate_survey(evaluation)


@pytest.mark.usefixtures("no_pictures")
def test_no_candidates_give_zero_and_not_a_crash(
    prediction: ScoreMap, evaluation: EvaluateSettings
) -> None:
    result = evaluate_survey(dataclasses.replace(evaluation, score_min=99.0))
    overall = {f.quantity: (f.n_matched, f.n) for f in result.fractions if f.variable == "all"}
    chance = {"chance_purity": (0, 0), "chance_completeness": (0, 0)}
    assert overall == {"completeness": (0, 4), "purity": (0, 0), **chance}
    assert len(result.curve) == 0


def test_missing_prediction_names_the_command(evaluation: EvaluateSettings) -> None:
    with pytest.raises(DataNotFoundError, match=r"no finished prediction; .*inference/predict\.py"):
        evaluate_survey(evaluation)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"match_radius_arcmin": 0.0}, "evaluate.match_radius_arcmin to be a number > 0"),
        ({"preference": "best"}, r"angular_proximity \| more_massive .* = best"),
        ({"richness_bins": [3.0, 2.0]}, "evaluate.richness_bins to be two or more rising edges"),
        ({"redshift_range": [0.1]}, r"evaluate.redshift_range to be null or \[low, high\]"),
        ({"n_plots": -1}, "evaluate.n_plots to be a number >= 0"),
    ],
)
def test_settings_are_checked(
    evaluation: EvaluateSettings, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(evaluation, **change)


def test_a_range_of_what_is_not_there_is_named(
    prediction: ScoreMap, evaluation: EvaluateSettings, tmp_path: Path
) -> None:
    table = Table.read(tmp_path / "truth.ecsv")
    table.remove_column("RICHNESS")
    table.write(tmp_path / "truth.ecsv", overwrite=True)
    with pytest.raises(DataFormatError, match=r"has no richness; evaluate\.columns\.richness="):
        evaluate_survey(evaluation)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.real_data
@pytest.mark.parametrize("name", ["desY1a1", "sdss_redmapper"])
def test_real_catalogues_are_found_where_the_scores_say_so(
    shared_data: Path,
    tmp_path: Path,
    header: Callable[..., fits.Header],
    evaluation: EvaluateSettings,
    name: str,
) -> None:
    """A score map drawn from a real catalogue around its first cluster recovers all clusters."""
    path = shared_data / "clusters" / f"{name}.csv.gz"
    reference = read_reference(path)
    cards = wcs_cards(
        header((10000, 10000), float(reference.sky.ra[0]), float(reference.sky.dec[0]))
    )
    meta = {"TILE": "T", "CELL_PX": 100, "NPIX_X": 10000, "NPIX_Y": 10000, "THRESH": 0.5}
    meta["RUNHASH"] = "abc"
    score = np.zeros((100, 100), np.float32)
    blank = ScoreMap(score, np.ones_like(score), np.zeros_like(score), cards, meta)
    footprint = TileFootprint("T", blank.tile_wcs, blank.tile_shape)
    inside = footprint.contains(reference.sky.ra, reference.sky.dec)
    x, y = footprint.pixels(reference.sky.ra[inside], reference.sky.dec[inside])
    score[((y + 0.5) // 100).astype(int), ((x + 0.5) // 100).astype(int)] = 0.9
    paths = OutputPaths(tmp_path / "out")
    write_scores(paths.scores("T"), blank)
    candidates = find_candidates(blank, CandidateRule(0.5, 1, 1))
    write_text(paths.catalog, to_ecsv(candidates))
    write_manifest(paths, "abc", T="done")
    settings = dataclasses.replace(evaluation, reference=str(path), richness_min=None, n_plots=0)
    overall = {f.quantity: f for f in evaluate_survey(settings).fractions if f.variable == "all"}
    assert overall["completeness"].n == inside.sum() >= 1
    assert overall["completeness"].value == 1
    assert overall["purity"].value == 1


@pytest.mark.usefixtures("no_pictures")
def test_only_tiles_of_the_finished_run_count(
    prediction: ScoreMap, evaluation: EvaluateSettings, tmp_path: Path
) -> None:
    """What other runs left in the folder is neither footprint nor cells."""
    settings = dataclasses.replace(evaluation, n_plots=0)
    before = evaluate_survey(settings).fractions
    paths = OutputPaths(tmp_path / "out")
    left = {**prediction.meta, "TILE": "OLD", "RUNHASH": "old"}
    write_scores(paths.scores("OLD"), dataclasses.replace(prediction, meta=left))
    assert evaluate_survey(settings).fractions == before
    write_manifest(paths, "abc", T="done", OLD="failed")
    assert evaluate_survey(settings).fractions == before
    write_manifest(paths, "abc", T="done", OLD="done")
    with pytest.raises(DataFormatError, match=r"another run than the manifest \(RUNHASH = old, ex"):
        evaluate_survey(settings)
    write_manifest(paths, "abc", T="failed")
    with pytest.raises(DataNotFoundError, match="holds no finished prediction"):
        evaluate_survey(settings)


@pytest.mark.usefixtures("no_pictures")
def test_candidates_may_match_systems_that_are_not_labelled(
    prediction: ScoreMap, evaluation: EvaluateSettings, tmp_path: Path
) -> None:
    """Only on request: a group of richness 10 is not what the encoder was asked for, but real."""
    table = Table.read(tmp_path / "truth.ecsv")
    table["LABELLED"] = table["RICHNESS"] >= 20
    table.write(tmp_path / "truth.ecsv", overwrite=True)
    purity = []
    for lowest in (None, 5.0):
        settings = dataclasses.replace(evaluation, purity_richness_min=lowest, n_plots=0)
        fractions = evaluate_survey(settings).fractions
        purity += [(f.n_matched, f.n) for f in fractions if (f.quantity, f.variable) == PURITY]
    assert purity == [(2, 3), (3, 3)]


@pytest.mark.usefixtures("no_pictures")
def test_the_summary_leaves_empty_bins_out(
    prediction: ScoreMap, evaluation: EvaluateSettings
) -> None:
    bins = [0.0, 1.0, 10.0, 20.0]
    result = evaluate_survey(dataclasses.replace(evaluation, score_bins=bins, n_plots=0))
    assert [f.n for f in result.fractions if f.variable == "score"] == [3, 0, 0]
    text = "\n".join(summary(result))
    assert "0 <= score < 1" in text
    assert "10 <= score" not in text


@pytest.mark.usefixtures("no_pictures")
def test_clevar_gets_the_matches_and_the_masks(
    prediction: ScoreMap, evaluation: EvaluateSettings, tmp_path: Path
) -> None:
    result = evaluate_survey(dataclasses.replace(evaluation, purity_richness_min=5.0, n_plots=0))
    tables = [
        Table.read(tmp_path / "evaluation" / f"clevar_{name}.fits", mask_invalid=False)
        for name in ("candidates", "reference")
    ]
    pairs = [(row["id"], row["mt_cross"]) for row in tables[0] if row["mt_cross"]]
    assert pairs == list(zip(result.matches["candidate"], result.matches["cluster"], strict=True))
    assert tables[1]["id"].tolist() == ["0", "1", "2", "3", "4", "5"]
    # The last one lies outside the survey tile, the one before is too poor to be asked for.
    assert tables[1]["ft_other"].tolist() == [True] * 5 + [False]
    assert tables[1]["counts"].tolist() == [True] * 4 + [False] * 2
    area = 16 * 20 * (CELL * 0.263 / 3600) ** 2
    assert result.area_deg2 == pytest.approx(area, rel=1e-4)
    assert read_json(tmp_path / "evaluation" / "evaluation.json")["area_deg2"] == result.area_deg2
    assert any(line.startswith("area covered [deg2]") for line in summary(result))
