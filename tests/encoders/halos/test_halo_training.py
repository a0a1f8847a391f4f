"""Whole trainings of a small encoder: results, resume, processes, bad inputs."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from astropy.table import Table
from omegaconf import DictConfig

from datagen.errors import CheckpointError, ConfigError
from encoders.checkpoint import load_checkpoint
from encoders.training import train
from tests.encoders.halos.conftest import write_set

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


def test_a_resumed_plateau_goes_on(compose_halos: Compose) -> None:
    """The rate falls after every epoch without progress, before and after the interruption."""
    more = [
        "recipe=reference",
        "data.batch_size=64",
        "model.scheduler.patience=0",
        "+model.scheduler.threshold=10.0",
        "test=false",
    ]
    whole = compose_halos(*more, "trainer.max_epochs=4")
    train(whole)
    first = compose_halos(*more, "trainer.max_epochs=2")
    train(first)
    second = compose_halos(*more, "trainer.max_epochs=4", f"ckpt_path={last_of(first)}")
    train(second)
    same_weights(whole, second)
    states = [torch.load(last_of(c), weights_only=True) for c in (whole, second)]
    rates = [s["optimizer_states"][0]["param_groups"][0]["lr"] for s in states]
    assert rates[0] == rates[1] < 1e-4


def test_resume_uses_the_stored_splits(compose_halos: Compose, tmp_path: Path) -> None:
    write_set(tmp_path / "a")
    more = [f"data.data_dir={tmp_path}", "model.scheduler.total_steps=6", "test=false"]
    whole, first = (compose_halos(*more, f"trainer.max_epochs={n}") for n in (2, 1))
    train(whole)
    train(first)
    # The same files, and as many halos again.
    write_set(tmp_path / "a", n_clusters=48, n_files=4)
    second = compose_halos(*more, f"ckpt_path={last_of(first)}")
    train(second)
    same_weights(whole, second)
    tables = [(run_folder(c) / "splits.ecsv").read_text() for c in (whole, second)]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("+data.sets={c:none}", r"expected data\.sets = .* got data\.sets = .*'c'"),
        ("data.transform=max", r"expected data\.transform = .*'log10'.* = .*'max'"),
        ("data.seed=2", r"expected data\.seed = 1, with which .* got data\.seed = 2"),
        ("data.zero_cross_section=0.02", r"expected data\.zero_cross_section = "),
        ("model.network.n_latent=5", r"expected model\.network\.n_latent = 7"),
    ],
)
def test_another_training_is_not_resumed(
    compose_halos: Compose, trained: Trained, change: str, message: str
) -> None:
    resumed = compose_halos(f"ckpt_path={last_of(trained[0])}", "trainer.max_epochs=3", change)
    with pytest.raises(CheckpointError, match=message):
        train(resumed)


CONVOLUTIONS = ["model.network.encoder.channels=[4,8]", "model.network.n_hidden=16"]
MODELS = {
    "compact_polar": ["model.network.encoder.n_radii=8"],
    "compact_e2cnn": ["model.network.encoder.channels=[8,8]", "model.network.encoder.n_blocks=[0]"],
    "halo_regressor": CONVOLUTIONS,
    "halo_classifier": CONVOLUTIONS,
    "halo_autoencoder": [*CONVOLUTIONS, "model.network.decoder=[8,4]"],
}


@pytest.mark.parametrize("model", MODELS)
def test_every_kind_of_model_trains(compose_halos: Compose, model: str) -> None:
    sets = "+data.sets={c:class,b:none}"
    more = [f"model={model}", sets, "trainer.max_epochs=1", "data.in_memory=false"]
    metrics = train(compose_halos(*more, *MODELS[model]))
    assert all(math.isfinite(value) for value in metrics.values())
    assert ("test/accuracy" in metrics) is (model not in ("halo_regressor", "halo_autoencoder"))
    assert ("test/rmse" in metrics) is (model != "halo_classifier")
    assert ("test/reconstruction" in metrics) is (model == "halo_autoencoder")


def test_the_reference_recipe(composed: Compose) -> None:
    cfg = composed("train", "model=compact_full", "recipe=reference")
    loss = cfg.model.loss
    assert (loss.classification, loss.cclp, loss.distance) == (1.0, 2.2, 1.0)
    assert (loss.n_steps, loss.per_row) == (3, False)
    assert (cfg.data.batch_size, cfg.data.transform, cfg.trainer.max_epochs) == (120, "max", 150)
    assert (cfg.model.optimizer.lr, cfg.model.scheduler.factor) == (1e-4, 0.5)
    own = composed("train", "model=compact_full").model.loss
    # The same weight at the reference's batch.
    assert own.cclp == pytest.approx(loss.cclp / cfg.data.batch_size, rel=0.02)


def test_one_class_is_refused(compose_halos: Compose) -> None:
    one = "data.sets.a={labels:known,cross_sections:[1.0]}"
    with pytest.raises(ConfigError, match=r"two classes or more in data\.sets .* classes = 1;"):
        train(compose_halos(one))


@pytest.mark.slow
@pytest.mark.parametrize("n_devices", [1, 2])
def test_the_command_trains(halos_dir: Path, tmp_path: Path, root: Path, n_devices: int) -> None:
    command = [sys.executable, str(root / "train.py"), "model=compact_reduced", *CONVOLUTIONS]
    command += ["data.batch_size=16", "trainer=cpu", "trainer.max_epochs=1", "logger=none"]
    command += [f"data.data_dir={halos_dir}", f"trainer.devices={n_devices}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs/compact_reduced/best.ckpt").is_file()
    (run,) = (tmp_path / "logs/compact_reduced/runs").iterdir()
    assert (run / "splits.ecsv").is_file()
