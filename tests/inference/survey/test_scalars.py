"""What TensorBoard shows of a prediction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from lightning import LightningModule
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conf.running import JOBS_FAILED, run_folder
from datagen.files import read_json
from datagen.tiles.survey import SurveySettings
from encoders.training import build_loggers
from inference.engine import run
from inference.survey.run import SurveyRun
from inference.survey.settings import PredictSettings

TAGS = [
    "candidates",
    "failed_tiles",
    "masked_fraction",
    "seconds_predict",
    "seconds_read",
    "tiles_per_s",
    "wait_share",
    "windows_per_s",
]


@pytest.fixture
def tiles(tmp_path: Path, tile: Callable[..., Path]) -> Path:
    """Five survey tiles: one cannot be opened, one is damaged at its end, one is masked."""
    folder = tmp_path / "tiles"
    for number in range(5):
        tile(folder, f"T{number}", seed=number, ra=10 + 0.01 * number)
    (folder / "T1" / "T1_g.fits").write_bytes(b"")
    with fits.open(folder / "T2" / "T2_r.fits", mode="update") as hdus:
        hdus[0].data[:75] = np.nan
    (folder / "T4" / "T4_g.fits").unlink()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    names = [*folder.glob("scores/*"), *folder.glob("catalogs/*"), folder / "catalog.ecsv"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


def test_events_say_how_each_tile_went(
    tiles: Path,
    tmp_path: Path,
    settings: PredictSettings,
    survey: SurveySettings,
    module: LightningModule,
) -> None:
    logged = SurveyRun(settings, survey, module, "a" * 64)
    logger = TensorBoardLogger(str(tmp_path / "run"), name="", version="tensorboard")
    assert run(logged, [logger]) == JOBS_FAILED
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("predict/")]
    assert sorted(tags) == [f"predict/{tag}" for tag in TAGS]
    values = {tag: {e.step: e.value for e in events.Scalars(f"predict/{tag}")} for tag in TAGS}
    # A step is a survey tile, failed ones among them.
    assert values["failed_tiles"] == {1: 0, 3: 1, 4: 1, 5: 2}
    assert sorted(values["windows_per_s"]) == [1, 3, 4]
    out = tmp_path / "out"
    for step, name in ((1, "T0"), (3, "T2"), (4, "T3")):
        entry = read_json(out / "records" / f"{name}.json")
        assert values["candidates"][step] == len(Table.read(out / "catalogs" / f"{name}.ecsv"))
        assert values["seconds_read"][step] == pytest.approx(entry["seconds_read"], abs=2e-6)
        busy = entry["seconds_wait"] + entry["seconds_predict"]
        assert values["windows_per_s"][step] == pytest.approx(12 / busy, rel=1e-2)
        assert values["wait_share"][step] == pytest.approx(entry["seconds_wait"] / busy, abs=0.01)
        assert 0 < values["tiles_per_s"][step] < np.inf
    # Half of 150 rows.
    assert values["masked_fraction"] == pytest.approx({1: 0, 3: 0.5, 4: 0})
    # Nothing that is watched changes a result.
    plain = dataclasses.replace(settings, output_dir=str(tmp_path / "plain"))
    assert run(SurveyRun(plain, survey, module, "a" * 64)) == JOBS_FAILED
    assert contents(tmp_path / "plain") == contents(out)


def test_a_full_disk_costs_scalars_and_not_results(
    tiles: Path,
    tmp_path: Path,
    settings: PredictSettings,
    survey: SurveySettings,
    module: LightningModule,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CSVLogger, "log_metrics", refuse)
    job = SurveyRun(settings, survey, module, "a" * 64)
    assert run(job, [CSVLogger(str(tmp_path / "run"))]) == JOBS_FAILED
    assert "cannot log scalars: [Errno 28] No space left on device" in caplog.text
    assert len(list((tmp_path / "out" / "scores").iterdir())) == 3


@pytest.mark.parametrize(
    ("word", "kinds"),
    [("tensorboard", [TensorBoardLogger]), ("csv", [CSVLogger]), ("none", [])],
)
def test_the_logger_is_a_group_as_in_training(
    composed: Callable[..., DictConfig], word: str, kinds: list[type]
) -> None:
    default = composed("predict")
    assert list(default.logger) == ["tensorboard"]
    cfg = composed("predict", f"logger={word}")
    folder = run_folder(cfg)
    assert folder == Path("logs/predict/runs/manual")
    loggers = build_loggers(cfg, folder)
    assert [type(logger) for logger in loggers] == kinds
    assert [Path(logger.log_dir) for logger in loggers] == [folder / word for _ in kinds]
