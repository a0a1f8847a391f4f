"""Whole trainings of a small classifier: results, resume, bad inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from datagen.errors import CheckpointError, ConfigError, DataFormatError, DataNotFoundError
from encoders.checkpoint import load_checkpoint
from encoders.training import train

Compose = Callable[..., DictConfig]


def run_folder(cfg: DictConfig) -> Path:
    return Path(cfg.paths.log_dir) / "plain_cnn/runs/manual"


def test_train_test_and_publish(compose_lenses: Compose) -> None:
    cfg = compose_lenses("logger=tensorboard")
    metrics = train(cfg)
    assert {"test/accuracy", "test/auroc", "test/auroc_ovo", "test/ece", "test/ece_raw",
            "test/accuracy_kept", "test/unsure", "val/turn_error", "val/flip_error",
            "train/accuracy", "train/epoch_loss"} <= metrics.keys()  # fmt: skip
    published = Path(cfg.paths.output_dir) / "plain_cnn" / "best.ckpt"
    module: Any = load_checkpoint(published, "lenses")
    assert module.card["model"] == "plain_cnn"
    results = run_folder(cfg) / "results"
    assert {path.name for path in results.iterdir()} == {
        "loss.npy", "loss.png", "accuracy.npy", "accuracy.png", "best_weights.pt", "test.json",
        "predictions.npz", "roc.npz", "roc.png", "confusion.npy", "confusion.png", "delta_chi2.png",
    }  # fmt: skip
    losses = np.load(results / "loss.npy", allow_pickle=False)
    assert losses.shape == (2, 3)
    assert losses[-1, 2] == pytest.approx(metrics["val/loss"])
    figures = json.loads((results / "test.json").read_text())
    assert figures["accuracy"] == pytest.approx(metrics["test/accuracy"])
    assert np.load(results / "confusion.npy").sum() == figures["n_images"]
    weights = torch.load(results / "best_weights.pt", weights_only=True)
    module.network.load_state_dict(weights)
