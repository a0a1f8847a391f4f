"""What is refused before a prediction begins or while it runs, and what makes a run another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning import LightningModule

from datagen.errors import ConfigError
from datagen.files import write_json
from datagen.tiles.survey import SurveySettings
from inference.engine import run
from inference.outputs import check_run
from inference.survey.records import OutputPaths
from inference.survey.run import SurveyRun
from inference.survey.settings import PredictSettings

Predict = Callable[..., int]
SHA = "a" * 64


@pytest.fixture
def predict(
    settings: PredictSettings,
    survey: SurveySettings,
    module: LightningModule,
    tile: Callable[..., Path],
    tmp_path: Path,
) -> Predict:
    tile(tmp_path / "tiles", "T0")

    def call(**changes: object) -> int:
        return run(SurveyRun(dataclasses.replace(settings, **changes), survey, module, SHA))

    return call


def test_a_gpu_that_is_too_small_is_named(
    predict: Predict, module: LightningModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(module), "predict_step", fail)
    with pytest.raises(ConfigError, match=r"predict.batch_size = 2 windows of predict.window_px"):
        predict()


@pytest.mark.parametrize("name", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_tasks_that_are_no_ranks_are_refused(
    predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Four tasks with predict.devices=1 would each predict everything."""
    monkeypatch.setenv(name, "4")
    with pytest.raises(ConfigError, match=rf"to be the 4 tasks that were started \({name}\)"):
        predict()
    assert not (tmp_path / "out" / "scores").exists()


def test_the_encoder_is_compiled_before_its_first_window(
    predict: Predict, module: LightningModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    score = type(module).predict_step

    def noted(self: LightningModule, *arguments: object) -> object:
        calls.append("score")
        return score(self, *arguments)

    monkeypatch.setattr(type(module), "predict_step", noted)
    monkeypatch.setattr(
        type(module), "compile_network", lambda _: calls.append("compile"), raising=False
    )
    assert predict(compile=True) == 0
    assert calls[0] == "compile"
    assert set(calls[1:]) == {"score"}


def test_settings_that_return_to_their_defaults_are_named(tmp_path: Path) -> None:
    paths = OutputPaths(tmp_path)
    before = {"checkpoint": SHA, "settings": {"survey.weight_hdu": 2}, "run_hash": "a"}
    write_json(paths.run, before)
    now = {"checkpoint": SHA, "settings": {}, "run_hash": "b"}
    with pytest.raises(ConfigError, match=r"survey.weight_hdu = 2, now None"):
        check_run(paths, now, overwrite=False)


def test_only_compiled_runs_say_so(settings: PredictSettings) -> None:
    assert "compile" not in settings.result_settings()
    compiled = dataclasses.replace(settings, compile=True)
    assert compiled.result_settings()["compile"] is True
