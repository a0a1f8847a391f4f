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
from encoders.callbacks import AtomicCheckpointIO, RunCheckpoint
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
