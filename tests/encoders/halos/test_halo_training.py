"""Whole trainings of a small encoder: results, resume, processes, bad inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from astropy.table import Table
from omegaconf import DictConfig

from encoders.checkpoint import load_checkpoint
from encoders.training import train

Compose = Callable[..., DictConfig]
Trained = tuple[DictConfig, dict[str, float]]


def run_folder(cfg: DictConfig) -> Path:
    return Path(cfg.paths.log_dir) / str(cfg.task_name) / "runs/manual"


def last_of(cfg: DictConfig) -> Path:
    return run_folder(cfg) / "checkpoints" / "last.ckpt"


def test_train_test_and_publish(trained: Trained) -> None:
    cfg, metrics = trained
    figures = {"loss", "accuracy", "ece", "rmse", "rmse_dex"}
    wanted = {f"{split}/{name}" for split in ("val", "test") for name in figures}
    wanted |= {"train/epoch_loss", "train/classification", "train/cclp", "train/distance"}
    assert wanted <= metrics.keys()
    module: Any = load_checkpoint(Path(cfg.paths.output_dir) / "compact_reduced/best.ckpt", "halos")
    assert module.card["model"] == "compact_reduced"
    assert module.card["classes"] == ["0", "0.1", "1"]
    table = Table.read(run_folder(cfg) / "splits.ecsv", format="ascii.ecsv")
    for split, names in module.card["ids"].items():
        assert sorted(names) == sorted(table["halo"][table["split"] == split])
    assert set(table["n_maps"]) == {6}


def same_weights(one: DictConfig, two: DictConfig) -> None:
    first, second = (torch.load(last_of(c), weights_only=True) for c in (one, two))
    assert first["global_step"] == second["global_step"]
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name]), name


def test_one_and_one_epochs_are_two(compose_halos: Compose, trained: Trained) -> None:
    whole = trained[0]
    steps = torch.load(last_of(whole), weights_only=True)["global_step"]
    more = [f"model.scheduler.total_steps={steps}", "test=false"]
    first = compose_halos("trainer.max_epochs=1", *more)
    train(first)
    second = compose_halos(f"ckpt_path={last_of(first)}", *more)
    train(second)
    same_weights(whole, second)
