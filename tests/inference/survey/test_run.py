from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.table import Table
from lightning import LightningModule

from conf.running import JOBS_FAILED
from datagen.errors import CheckpointError, ConfigError, OutputError
from datagen.files import read_json
from datagen.tiles.survey import SurveySettings
from inference.engine import run
from inference.survey.loading import SurveyData
from inference.survey.run import SurveyRun
from inference.survey.scores import read_scores
from inference.survey.settings import PredictSettings

Predict = Callable[..., int]
SHA = "a" * 64


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that must not depend on how the run went."""
    names = [*folder.glob("scores/*"), *folder.glob("catalogs/*"), *folder.glob("regions/*")]
    names += [folder / name for name in ("catalog.ecsv", "failed.ecsv", "run.json")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


@pytest.fixture
def predict(settings: PredictSettings, survey: SurveySettings, module: LightningModule) -> Predict:
    def call(sha: str = SHA, **changes: object) -> int:
        return run(SurveyRun(dataclasses.replace(settings, **changes), survey, module, sha))

    return call


@pytest.fixture
def tiles(tmp_path: Path, tile: Callable[..., Path]) -> Path:
    for number in range(3):
        tile(tmp_path / "tiles", f"T{number}", seed=number, ra=10 + 0.01 * number)
    return tmp_path / "tiles"


def test_outputs_are_complete_and_named_by_tile(
    tiles: Path, tmp_path: Path, predict: Predict
) -> None:
    assert predict(regions=True) == 0
    out = tmp_path / "out"
    assert sorted(p.name for p in (out / "scores").iterdir()) == ["T0.fits", "T1.fits", "T2.fits"]
    assert sorted(p.name for p in (out / "catalogs").iterdir()) == ["T0.ecsv", "T1.ecsv", "T2.ecsv"]
    assert sorted(p.name for p in (out / "regions").iterdir()) == ["T0.reg", "T1.reg", "T2.reg"]
    scores = read_scores(out / "scores" / "T1.fits")
    assert scores.score.shape == scores.coverage.shape == scores.mask_fraction.shape == (10, 13)
    assert scores.meta["CKPTSHA"] == SHA
    assert scores.meta["THRESH"] == 0.5
    assert scores.meta["NWINDOWS"] == 12
    header = fits.getheader(out / "scores" / "T1.fits")
    assert "DATE" not in header
    assert "CHECKSUM" not in header
    merged = Table.read(out / "catalog.ecsv")
    separate = [Table.read(path) for path in sorted((out / "catalogs").iterdir())]
    assert 0 < len(merged) <= sum(len(table) for table in separate)
    manifest = read_json(out / "manifest.json")["tiles"]
    assert [entry["tile"] for entry in manifest] == ["T0", "T1", "T2"]
    assert {(e["status"], e["windows"], e["rank"]) for e in manifest} == {("done", 12, 0)}


def test_batch_size_and_workers_change_nothing(
    tiles: Path, tmp_path: Path, predict: Predict
) -> None:
    predict()
    predict(num_workers=2, output_dir=str(tmp_path / "workers"))
    assert contents(tmp_path / "workers") == contents(tmp_path / "out")
    predict(batch_size=7, output_dir=str(tmp_path / "batches"))
    for name in ("T0", "T1", "T2"):
        a, b = (read_scores(tmp_path / f / f"scores/{name}.fits").score for f in ("out", "batches"))
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_finished_tiles_are_skipped_and_lost_ones_made_again(
    tiles: Path, tmp_path: Path, predict: Predict
) -> None:
    predict()
    out = tmp_path / "out"
    before = contents(out)
    times = {path: path.stat().st_mtime_ns for path in (out / "scores").iterdir()}
    (out / "scores" / "T1.fits").unlink()
    (out / "catalogs" / "T2.ecsv").unlink()
    (out / "scores" / ".partial-xyz-T1.fits").write_text("killed while writing")
    assert predict() == 0
    assert contents(out) == before
    kept = [p.name for p, time in times.items() if p.stat().st_mtime_ns == time]
    assert kept == ["T0.fits"]


def test_another_checkpoint_or_setting_is_refused_unless_overwritten(
    tiles: Path, tmp_path: Path, predict: Predict
) -> None:
    predict()
    with pytest.raises(ConfigError, match=r"checkpoint = aaaaaaaaaaaa, now bbb.*overwrite=true"):
        predict(sha="b" * 64)
    with pytest.raises(ConfigError, match=r"predict.window_px = 96, now 128"):
        predict(window_px=128)
    assert predict(window_px=128, overwrite=True) == 0
    assert read_scores(tmp_path / "out/scores/T0.fits").meta["NWINDOWS"] == 6
    # What does not change results may change.
    assert predict(window_px=128, merge_radius_arcmin=0.2, num_workers=1) == 0


def test_bad_tiles_are_listed_and_repaired_ones_done(
    tiles: Path, tmp_path: Path, tile: Callable[..., Path], predict: Predict
) -> None:
    predict(output_dir=str(tmp_path / "good"))
    predict()
    bad = tiles / "T1" / "T1_g.fits"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:5000])
    (tiles / "T2" / "T2_r.fits").unlink()
    assert predict() == JOBS_FAILED
    failed = Table.read(tmp_path / "out" / "failed.ecsv")
    assert failed["tile"].tolist() == ["T1", "T2"]
    assert failed["reason"][0].startswith("T1_g.fits cannot be read")
    assert failed["reason"][1] == "band r is missing: no file T2/T2_r.fits"
    assert [path.name for path in (tmp_path / "out" / "catalogs").iterdir()] == ["T0.ecsv"]
    entries = read_json(tmp_path / "out" / "manifest.json")["tiles"]
    assert [entry["status"] for entry in entries] == ["done", "failed", "failed"]
    bad.write_bytes(whole)
    tile(tiles, "T2", seed=2, ra=10.02)
    assert predict() == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "good")


def test_all_tiles_bad_still_ends_in_order(tiles: Path, tmp_path: Path, predict: Predict) -> None:
    for path in tiles.glob("*/*_g.fits"):
        path.write_bytes(b"")
    assert predict() == JOBS_FAILED
    assert len(Table.read(tmp_path / "out" / "failed.ecsv")) == 3
    assert len(Table.read(tmp_path / "out" / "catalog.ecsv")) == 0


def test_masked_cells_have_no_score(tiles: Path, tmp_path: Path, predict: Predict) -> None:
    with fits.open(tiles / "T0" / "T0_r.fits", mode="update") as hdus:
        hdus[0].data[32:64, 48:72] = np.nan
    predict()
    scores = read_scores(tmp_path / "out/scores/T0.fits")
    assert np.argwhere(np.isnan(scores.score)).tolist() == [[2, 3], [3, 3]]
    assert scores.mask_fraction[2, 4] == 0.5


def test_prevalence_moves_scores_and_threshold_together(
    tiles: Path, tmp_path: Path, predict: Predict, module: LightningModule
) -> None:
    module.get_buffer("threshold").copy_(torch.tensor(0.6))
    predict()
    predict(prevalence=0.03, output_dir=str(tmp_path / "rare"))
    a, b = (read_scores(tmp_path / f / "scores/T0.fits") for f in ("out", "rare"))
    assert (b.score < a.score).all()
    assert float(b.meta["THRESH"]) < 0.6
    over = [scores.score > float(scores.meta["THRESH"]) for scores in (a, b)]
    np.testing.assert_array_equal(*over)
    module.loss = {"pos_weight": 1.0, "focal_gamma": 2.0}
    with pytest.raises(ConfigError, match=r"predict.prevalence to be null .* focal loss"):
        predict(prevalence=0.03, output_dir=str(tmp_path / "focal"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bands": ["r", "g"]}, "trained on the bands g, r, but .* survey.bands = r, g"),
        ({"pixel_scale": 0.2}, "trained at 0.263 arcsec/px, .* survey.pixel_scale = 0.2 "),
        ({"zero_points": {"g": 30.0, "r": 25.0}}, r"at zero point 30.0, .*zero_points.r = 25.0"),
    ],
)
def test_a_checkpoint_for_other_images_is_refused(
    tiles: Path,
    settings: PredictSettings,
    survey: SurveySettings,
    module: LightningModule,
    change: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(CheckpointError, match=message):
        SurveyRun(settings, dataclasses.replace(survey, **change), module, SHA)


def test_output_folder_must_be_writable(tiles: Path, tmp_path: Path, predict: Predict) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*file"):
        predict(output_dir=str(tmp_path / "file" / "out"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "predict.batch_size to be a number >= 1, but got .* = 0"),
        ({"num_workers": -1}, "predict.num_workers to be a number >= 0"),
        ({"threshold": 1.5}, "predict.threshold to be null or a number between 0 and 1"),
        ({"blend": "mean"}, r"predict.blend to be crop \| taper, but got predict.blend = mean"),
    ],
)
def test_predict_settings_are_checked(
    settings: PredictSettings, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(settings, **change)


def test_changed_input_of_equal_size_is_predicted_again(
    tiles: Path, tmp_path: Path, tile: Callable[..., Path], predict: Predict
) -> None:
    predict()
    out = tmp_path / "out"
    before = {path.name: path.read_bytes() for path in (out / "scores").iterdir()}
    times = read_json(out / "records" / "T1.json")["mtimes_ns"]
    assert times == [(tiles / "T1" / f"T1_{band}.fits").stat().st_mtime_ns for band in "gr"]
    tile(tiles, "T1", seed=9, ra=10.01)
    os.utime(tiles / "T1" / "T1_g.fits", ns=(1, 1))
    assert predict() == 0
    after = {path.name: path.read_bytes() for path in (out / "scores").iterdir()}
    assert [name for name in sorted(after) if after[name] != before[name]] == ["T1.fits"]


def test_overwriting_removes_results_of_tiles_that_are_gone(
    tiles: Path, tmp_path: Path, predict: Predict
) -> None:
    predict(regions=True)
    shutil.rmtree(tiles / "T1")
    assert predict(regions=True, window_px=128, overwrite=True) == 0
    left = {path.stem for path in (tmp_path / "out").glob("*/*")}
    assert left == {"T0", "T2"}


def test_odd_files_do_not_stop_the_run(tiles: Path, tmp_path: Path, predict: Predict) -> None:
    fits.setval(tiles / "T0" / "T0_g.fits", "CTYPE1", value="GLON-TAN")
    fits.setval(tiles / "T0" / "T0_g.fits", "CTYPE2", value="GLAT-TAN")
    (tiles / "T1" / "T1_g.fits").unlink()
    (tiles / "T1" / "T1_g.fits").symlink_to(tmp_path / "nowhere.fits")
    shutil.copytree(tiles / "T2", tiles / "T1b")
    for path in (tiles / "T1b").iterdir():
        path.rename(path.with_name(path.name.replace("T2", "T1b")))
    broken = tiles / "T1b" / "T1b_g.fits"
    broken.write_bytes(broken.read_bytes().replace(b"CRVAL1  =    ", b"CRVAL1  = 1.2", 1))
    assert predict() == JOBS_FAILED
    assert [path.name for path in (tmp_path / "out/scores").iterdir()] == ["T2.fits"]
    failed = Table.read(tmp_path / "out" / "failed.ecsv")
    assert failed["tile"].tolist() == ["T0", "T1", "T1b"]
    assert "CRVAL1" in failed["reason"][2]
    assert "GLON-TAN" in failed["reason"][0]
    assert "No such file" in failed["reason"][1]


def test_scores_that_are_not_finite_are_no_result(
    tiles: Path, tmp_path: Path, predict: Predict, module: LightningModule
) -> None:
    before = module.network.near.bias.data.clone()
    module.network.near.bias.data.fill_(torch.nan)
    assert predict() == JOBS_FAILED
    out = tmp_path / "out"
    failed = Table.read(out / "failed.ecsv")
    assert failed["reason"][0] == "the encoder gave no finite score for 130 of 130 cells"
    assert not list(out.glob("scores/*"))
    assert not list(out.glob("catalogs/*"))
    module.network.near.bias.data = before
    assert predict() == 0


def cut(name: str, keep: float) -> Callable[[Path], None]:
    def apply(out: Path) -> None:
        data = (out / name).read_bytes()
        (out / name).write_bytes(data[: int(keep * len(data))])

    return apply


def cut_row(out: Path) -> None:
    lines = (out / "catalogs/T0.ecsv").read_text().splitlines(keepends=True)
    (out / "catalogs/T0.ecsv").write_text("".join(lines[:-1]))


DAMAGES = (
    cut("catalogs/T0.ecsv", 0.0),
    cut("catalogs/T0.ecsv", 0.9),
    cut_row,
    cut("scores/T0.fits", 0.0),
    cut("scores/T0.fits", 0.8),
    cut("records/T0.json", 0.5),
    cut("catalog.ecsv", 0.7),
    lambda out: (out / "records/T0.json").write_text("[]"),
)


def test_damaged_results_are_made_again(tiles: Path, tmp_path: Path, predict: Predict) -> None:
    predict()
    before = contents(tmp_path / "out")
    for number, damage in enumerate(DAMAGES):
        damage(tmp_path / "out")
        assert predict() == 0, number
        assert contents(tmp_path / "out") == before, number


@pytest.mark.parametrize("name", ["scores/T1.fits", "catalogs/T1.ecsv"])
def test_damage_that_leaves_the_size_is_found_when_merging(
    tiles: Path, tmp_path: Path, predict: Predict, name: str
) -> None:
    """The survey tile counts as failed, and the next run repairs it."""
    predict()
    out = tmp_path / "out"
    before = contents(out)
    data = (out / name).read_bytes().replace(b"COVERAGE", b"COVE AGE").replace(b"score", b"sc re")
    assert data != before[name]
    (out / name).write_bytes(data)
    assert predict() == JOBS_FAILED
    failed = Table.read(out / "failed.ecsv")
    assert failed["tile"].tolist() == ["T1"]
    assert f"{Path(name).name} is damaged" in failed["reason"][0]
    assert predict() == 0
    assert contents(out) == before


def test_results_that_cannot_be_removed_take_one_line(
    tiles: Path, tmp_path: Path, predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict()
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == "T1.fits":
            raise PermissionError(1, "Operation not permitted")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match=r"cannot write .*T1\.fits: permission is denied; free"):
        predict(overwrite=True)


def test_the_merged_catalogue_says_where_it_comes_from(
    tiles: Path, tmp_path: Path, predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    predict(cached_data_path="tiles")
    run = read_json(tmp_path / "out" / "run.json")
    assert run["cached_data_path"] == str(tiles)
    meta = Table.read(tmp_path / "out" / "catalog.ecsv").meta
    assert meta["run_hash"] == run["run_hash"]
    assert (meta["checkpoint"], meta["threshold"]) == (SHA, 0.5)
    assert (meta["merge_radius_arcmin"], meta["version"]) == (0.1, run["package_version"])


def test_ranks_with_other_checkpoints_are_refused(
    tiles: Path, settings: PredictSettings, survey: SurveySettings, module: LightningModule
) -> None:
    """All ranks stop, the first one too, before any result is touched."""
    strategy = SimpleNamespace(
        broadcast=lambda sent: "b" * 64 if sent == SHA else sent,
        reduce_boolean_decision=lambda decision, all: decision,
    )
    data = SurveyData(SurveyRun(settings, survey, module, SHA))
    data.trainer = SimpleNamespace(  # type: ignore[assignment] # what setup looks at
        strategy=strategy, is_global_zero=False, global_rank=1, world_size=2
    )
    with pytest.raises(CheckpointError, match=r"first rank bbbbbbbbbbbb, this one aaaaaaaaaaaa"):
        data.setup("predict")
