"""How checkpoints of a run reach the disk."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from datagen import files
from datagen.errors import OutputError
from encoders.callbacks import AtomicCheckpointIO, ProgressLines, RunCheckpoint
from encoders.training import train

Compose = Callable[..., DictConfig]


def folder_of(cfg: DictConfig) -> Path:
    return Path(cfg.paths.log_dir) / "membership/runs/manual/checkpoints"


def test_checkpoints_are_renamed_into_place(
    compose_train: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing goes through the folder of temporary files, which may be another file system."""
    renamed: list[str] = []
    publish = files._publish

    def noted(temporary: Path, path: Path) -> None:
        assert temporary.parent == path.parent
        renamed.append(path.name)
        publish(temporary, path)

    monkeypatch.setattr(files, "_publish", noted)
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    cfg = compose_train("trainer.max_epochs=1", "test=false")
    train(cfg)
    assert renamed == ["best.ckpt", "best.ckpt", "last.ckpt"]
    assert [path.name for path in sorted(folder_of(cfg).iterdir())] == ["best.ckpt", "last.ckpt"]


def test_a_full_disk_takes_one_line_and_keeps_the_last_checkpoint(
    compose_train: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compose_train("trainer.max_epochs=1", "test=false")
    train(first)
    last = folder_of(first) / "last.ckpt"
    before = last.read_bytes()

    def full(temporary: Path, path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "_publish", full)
    second = compose_train("trainer.max_epochs=2", "test=false", f"ckpt_path={last}")
    with pytest.raises(OutputError, match=r"cannot write .*\.ckpt: no space is left on the device"):
        train(second)
    assert last.read_bytes() == before
    assert not list(last.parent.glob(".*"))


def test_what_was_saved_loads(tmp_path: Path) -> None:
    path = tmp_path / "new" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"weights": torch.ones(2)}, path)
    assert torch.equal(torch.load(path, weights_only=True)["weights"], torch.ones(2))


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_only_finite_scores_are_published(tmp_path: Path, score: float) -> None:
    callback = RunCheckpoint(publish=str(tmp_path / "published"), dirpath=str(tmp_path))
    trainer: Any = SimpleNamespace(is_global_zero=True)
    best = tmp_path / "best.ckpt"
    best.write_text("weights")
    callback.best_model_path, callback.best_model_score = str(best), torch.tensor(score)
    callback._publish_best(trainer)
    assert not (tmp_path / "published").exists()
    callback.best_model_score = torch.tensor(0.3)
    callback._publish_best(trainer)
    assert (tmp_path / "published").read_text() == "weights"


@pytest.mark.parametrize(("best", "words"), [(0.3, "the best of before, as no"), (0.2, "the best")])
def test_a_resumed_training_says_whose_best_it_published(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, best: float, words: str
) -> None:
    callback = RunCheckpoint(publish=str(tmp_path / "published"), dirpath=str(tmp_path))
    before = tmp_path / "best.ckpt"
    before.write_text("weights")
    state = RunCheckpoint(publish=None, dirpath=str(tmp_path / "before")).state_dict()
    state |= {"best_model_path": str(before), "best_model_score": torch.tensor(0.3)}
    callback.load_state_dict(state)
    callback.best_model_score = torch.tensor(best)
    trainer: Any = SimpleNamespace(is_global_zero=True)
    callback._publish_best(trainer)
    with caplog.at_level("INFO"):
        callback.on_fit_end(trainer, pl_module=trainer)
    assert f"published {before} as {tmp_path / 'published'}: {words}" in caplog.text


def test_a_training_tells_its_step_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    lines = ProgressLines(clock=lambda: now[0])
    trainer: Any = SimpleNamespace(
        is_global_zero=True,
        global_step=0,
        current_epoch=2,
        estimated_stepping_batches=100,
        accumulate_grad_batches=2,
    )
    with caplog.at_level("INFO"):
        for step, now[0] in enumerate((30.0, 59.0, 61.0, 100.0, 122.0), start=1):
            trainer.global_step = step
            lines.on_train_batch_end(trainer, trainer, {"loss": torch.tensor(0.25)}, None, step)
    assert [record.message for record in caplog.records] == [
        "step 3 of 100, epoch 3, loss 0.5",
        "step 5 of 100, epoch 3, loss 0.5",
    ]
