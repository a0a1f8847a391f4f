"""What prediction does when its checkpoint is an attack or its results cannot be saved."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning import LightningModule
from omegaconf import DictConfig

from datagen import files
from datagen.errors import CheckpointError, OutputError
from datagen.tiles.survey import SurveySettings
from inference.engine import predict, run
from inference.survey.run import SurveyRun
from inference.survey.settings import PredictSettings

Compose = Callable[..., DictConfig]


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.victim}",)


@pytest.mark.parametrize("form", ["archive", "pickle"])
def test_a_malicious_checkpoint_does_not_run(
    composed: Compose, tmp_path: Path, tile: Callable[..., Path], form: str
) -> None:
    victim, path = tmp_path / "victim", tmp_path / "best.ckpt"
    if form == "archive":
        torch.save({"state_dict": {}, "hyper_parameters": {"card": Malicious(victim)}}, path)
    else:
        path.write_bytes(pickle.dumps(Malicious(victim)))
    tile(tmp_path / "tiles", "T0")
    out = tmp_path / "out"
    folders = [f"predict.cached_data_path={tmp_path / 'tiles'}", f"predict.output_dir={out}"]
    cfg = composed("predict", "survey=generic", f"predict.weight_save_path={path}", *folders)
    with pytest.raises(CheckpointError, match=r"best\.ckpt") as caught:
        predict(cfg)
    assert "\n" not in str(caught.value)
    assert not victim.exists()
    assert not out.exists()


def test_a_full_disk_ends_in_one_line_and_finished_tiles_stay(
    settings: PredictSettings,
    survey: SurveySettings,
    module: LightningModule,
    tmp_path: Path,
    tile: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(3):
        tile(tmp_path / "tiles", f"T{number}", seed=number)

    publish = files._publish

    def no_space_for_the_second_tile(temporary: Path, path: Path) -> None:
        if path.name == "T1.fits":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        publish(temporary, path)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(files, "_publish", no_space_for_the_second_tile)
        message = r"^cannot write .*T1\.fits: no space is left on the device; free it or choose"
        with pytest.raises(OutputError, match=message):
            run(SurveyRun(settings, survey, module, "a" * 64))
    assert [path.name for path in (out / "scores").iterdir()] == ["T0.fits"]
    kept = (out / "scores" / "T0.fits").stat().st_mtime_ns
    job = SurveyRun(settings, survey, module, "a" * 64)
    assert [t.name for t in job.pending()] == ["T1", "T2"]
    assert run(job) == 0
    assert len(list((out / "scores").iterdir())) == 3
    assert (out / "scores" / "T0.fits").stat().st_mtime_ns == kept
    assert list(out.rglob(".partial-*")) == []
