"""Whole trainings of a small classifier: results, resume, processes, bad inputs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from datagen.errors import (
    CheckpointError,
    ConfigError,
    DataFormatError,
    DataNotFoundError,
    SkyfoldError,
)
from encoders.checkpoint import load_checkpoint
from encoders.lenses.metrics import Running
from encoders.training import train

Compose = Callable[..., DictConfig]
Trained = tuple[DictConfig, dict[str, float]]
RESULTS = {
    *("loss.npy", "loss.png", "accuracy.npy", "accuracy.png", "best_weights.pt", "test.json"),
    *("predictions.npz", "roc.npz", "roc.png", "confusion.npy", "confusion.png", "delta_chi2.png"),
}


def run_folder(cfg: DictConfig) -> Path:
    return Path(cfg.paths.log_dir) / "plain_cnn/runs/manual"


def last_of(cfg: DictConfig) -> Path:
    return run_folder(cfg) / "checkpoints" / "last.ckpt"


def test_train_test_and_publish(trained: Trained) -> None:
    cfg, metrics = trained
    assert {"test/accuracy", "test/auroc", "test/auroc_ovo", "test/ece", "test/ece_raw",
            "test/accuracy_kept", "test/unsure", "val/turn_error", "val/flip_error",
            "train/accuracy", "train/epoch_loss"} <= metrics.keys()  # fmt: skip
    module: Any = load_checkpoint(Path(cfg.paths.output_dir) / "plain_cnn/best.ckpt", "lenses")
    assert module.card["model"] == "plain_cnn"
    results = run_folder(cfg) / "results"
    assert {path.name for path in results.iterdir()} == RESULTS
    losses = np.load(results / "loss.npy", allow_pickle=False)
    assert losses[:, 0].tolist() == [1, 2]
    assert losses[-1, 1:] == pytest.approx([metrics["train/epoch_loss"], metrics["val/loss_raw"]])
    figures = json.loads((results / "test.json").read_text())
    assert [figures[key] for key in ("identity", "splits")] == [
        module.card[key] for key in ("identity", "splits")
    ]
    assert figures["network"] == dict(module.hparams["network"])
    assert figures["accuracy"] == pytest.approx(metrics["test/accuracy"])
    counts = np.load(results / "confusion.npy")
    assert counts.sum() == figures["n_images"]
    assert counts.trace() / counts.sum() == pytest.approx(figures["accuracy"])
    binned = figures["accuracy_by_delta_chi2"]
    assert [sum(binned[name]["n_images"]) for name in ("cdm", "vortex")] == counts[1:].sum(
        1
    ).tolist()
    module.network.load_state_dict(torch.load(results / "best_weights.pt", weights_only=True))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run_folder(cfg) / "tensorboard"
    tags = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload().Tags()
    pictures = {"val/roc", "val/confusion", "val/examples", "val/delta_chi2"}
    assert pictures <= set(tags["images"])


def test_one_and_one_epochs_are_two(compose_lenses: Compose, trained: Trained) -> None:
    whole = trained[0]
    more = ["model.scheduler.total_steps=8", "test=false"]
    first = compose_lenses("trainer.max_epochs=1", *more)
    train(first)
    cfg = compose_lenses(f"ckpt_path={last_of(first)}", *more)
    train(cfg)
    one, two = (torch.load(last_of(c), weights_only=True) for c in (whole, cfg))
    assert one["global_step"] == two["global_step"] == 8
    for name, value in one["state_dict"].items():
        assert torch.equal(value, two["state_dict"][name]), name
    histories = [np.load(run_folder(c) / "results/loss.npy") for c in (whole, cfg)]
    np.testing.assert_array_equal(*histories)


def test_a_public_set_trains(compose_lenses: Compose, public_dir: Path) -> None:
    metrics = train(
        compose_lenses(f"data.data_dir={public_dir}", "data.in_memory=true", "trainer.max_epochs=1")
    )
    assert 0.0 <= metrics["test/accuracy"] <= 1.0


def test_local_weights_begin_a_training(compose_lenses: Compose, trained: Trained) -> None:
    first = trained[0]
    weights = run_folder(first) / "results/best_weights.pt"
    still = ["trainer.max_epochs=1", "test=false", "model.optimizer.lr=1e-12"]
    second = compose_lenses(*still, f"callbacks.pretrained.path={weights}")
    train(second)
    state = torch.load(last_of(second), weights_only=True)["state_dict"]
    for name, value in torch.load(weights, weights_only=True).items():
        if name.endswith("weight"):
            torch.testing.assert_close(state[f"network.{name}"], value)
    with pytest.raises(ConfigError, match=r"either init_from or callbacks\.pretrained"):
        train(compose_lenses(f"callbacks.pretrained.path={weights}", f"init_from={last_of(first)}"))


def test_validation_may_come_between_epochs(compose_lenses: Compose) -> None:
    every = ["trainer.check_val_every_n_epoch=null", "+trainer.val_check_interval=2"]
    cfg = compose_lenses(*every, "trainer.max_steps=4", "data.n_train=48", "test=false")
    counted: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        compute = Running.compute
        patch.setattr(Running, "compute", lambda m: counted.append(int(m.counts[1])) or compute(m))
        train(cfg)
    losses = np.load(run_folder(cfg) / "results/loss.npy", allow_pickle=False)
    # Three batches make an epoch.
    assert losses[:, 0] == pytest.approx([2 / 3, 4 / 3])
    assert counted == [32, 32]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.n_train=30", r"expected data\.n_train = \d+, with which .* got data\.n_train = 30"),
        ("data.stretch.kind=linear", r"expected data\.stretch = .*'sqrt'.* = .*'linear'"),
        ("model.network.channels=[4,4]", r"expected model\.network\.channels = \[8, 8\]"),
    ],
)
def test_another_training_is_not_resumed(
    compose_lenses: Compose, trained: Trained, change: str, message: str
) -> None:
    more = [f"ckpt_path={last_of(trained[0])}", "trainer.max_epochs=3"]
    resumed = compose_lenses(*more, change)
    with pytest.raises(CheckpointError, match=message):
        train(resumed)


@pytest.mark.parametrize(
    ("choices", "name"),
    [(["model=conv_lstm"], "plain_cnn"), (["model=membership"], "plain_cnn")],
)
def test_a_resume_with_another_model_says_which_one_it_is(
    composed: Compose, trained: Trained, choices: list[str], name: str
) -> None:
    """Data are not looked for: there are none."""
    last = last_of(trained[0])
    cfg = composed("train", *choices, f"ckpt_path={last}", "trainer.max_epochs=9", "logger=none")
    cfg.paths.log_dir = str(last.parent / "logs")
    with pytest.raises(CheckpointError, match=rf"task = lenses, model = {name}; add model={name}"):
        train(cfg)


def test_other_networks_do_not_begin_a_training(compose_lenses: Compose, trained: Trained) -> None:
    other = {"_target_": "encoders.lenses.resnet.ResNet18"}
    cfg = compose_lenses(f"init_from={last_of(trained[0])}")
    cfg.model.network = other
    with pytest.raises(CheckpointError, match=r"of another network \(model=plain_cnn\)"):
        train(cfg)


def spoil(folder: Path, image: Any) -> Path:  # noqa: ANN401 - whatever numpy can save
    """Put something else in the place of a training image."""
    path = folder / "train/no/0.npy"
    np.save(path, image, allow_pickle=True)
    return path


@pytest.mark.parametrize(
    ("spoiled", "overrides", "error", "message"),
    [
        ("none", ["data.side=16"], ConfigError, r"side.* 16"),
        ("none", ["data.side=0"], ConfigError, r"data\.side >= 1 or null, but got side = 0"),
        (
            "none",
            ["data.n_train=100"],
            ConfigError,
            r"data\.n_train <= \d+, .* \(\d+ of no_sub, \d+ of cdm, .* n_train = 100",
        ),
        (
            "none",
            ["data.stretch.kind=log"],
            ConfigError,
            r"sqrt, asinh, linear, but got kind = log",
        ),
        ("none", ["data.stretch.softening=-1"], ConfigError, r"softening > 0 or null"),
        (
            "none",
            ["data.stretch.steps=[blur]"],
            ConfigError,
            r"expected data\.stretch\.steps of .*'blur'",
        ),
        ("none", ["model.loss.label_smoothing=1"], ConfigError, r"label_smoothing = 1"),
        ("none", ["model.calibration.coverage=0"], ConfigError, r"coverage = 0"),
        ("none", ["model.augment.blur=1"], ConfigError, r"blur"),
        ("none", ["model=e2cnn", "data.side=16"], ConfigError, r"data\.side.* got data\.side = 16"),
        (
            "none",
            ["model=e2cnn", "model.network.group=Q8"],
            ConfigError,
            r"model\.network\.group to be one of .*but got 'Q8'",
        ),
        (
            "none",
            ["model=e2cnn", "model.network.group=Circular"],
            ConfigError,
            r"model\.network\.group .* 'Circular'; Circular with N = 8 is C8 here",
        ),
        ("class", [], DataNotFoundError, r"train has no folder of the class vortex"),
        ("nan", [], DataFormatError, r"0\.npy has 1 pixels that are NaN"),
        ("pickle", [], DataFormatError, r"0\.npy is refused: it holds Python objects"),
        ("empty", [], DataNotFoundError, r"train/<class>.*python datagen/run\.py data_gen=lenses"),
    ],
)
def test_bad_inputs_take_one_line(
    compose_lenses: Compose,
    public_dir: Path,
    tmp_path: Path,
    spoiled: str,
    overrides: list[str],
    error: type[SkyfoldError],
    message: str,
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    if spoiled != "empty":
        shutil.copytree(public_dir, folder, dirs_exist_ok=True)
    if spoiled == "class":
        shutil.rmtree(folder / "train/vort")
    elif spoiled == "nan":
        spoil(
            folder,
            np.full((1, 17, 17), 0.5) + np.where(np.arange(289) == 5, np.nan, 0).reshape(17, 17),
        )
    elif spoiled == "pickle":
        spoil(folder, np.array([np.zeros(3), np.zeros(4)], dtype=object))
    if overrides and "augment" in overrides[0]:
        overrides = [f"+{overrides[0]}"]
    with pytest.raises(error, match=message) as caught:
        train(compose_lenses(f"data.data_dir={folder}", "data.splits.train=0.7", *overrides))
    assert "\n" not in str(caught.value)


COMMAND = [
    *("model=plain_cnn", "model.network.channels=[8,8]", "model.network.n_blocks=[0]"),
    *("data.batch_size=8", "trainer=cpu", "trainer.max_steps=2", "trainer.max_epochs=-1"),
    *("logger=none", "test=true"),
]


@pytest.mark.slow
@pytest.mark.parametrize("n_devices", [1, 2])
def test_the_command_trains(lenses_dir: Path, tmp_path: Path, root: Path, n_devices: int) -> None:
    more = [f"data.data_dir={lenses_dir}", f"trainer.devices={n_devices}"]
    command = [sys.executable, str(root / "train.py"), *COMMAND, *more]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs/plain_cnn/best.ckpt").is_file()
    (run,) = (tmp_path / "logs/plain_cnn/runs").iterdir()
    assert {path.name for path in (run / "results").iterdir()} == RESULTS
    assert (run / ".hydra/config.yaml").is_file()


@pytest.mark.slow
def test_two_processes_count_each_image_once(compose_lenses: Compose, trained: Trained) -> None:
    """Validation figures of the same weights do not depend on the number of processes."""
    first = trained[0]
    found = []
    for n_devices, strategy in ((1, "auto"), (2, "ddp_spawn")):
        again = compose_lenses(
            f"init_from={last_of(first)}",
            "test=false",
            "trainer.max_epochs=1",
            "model.optimizer.lr=0",
            "model.freeze_norm=true",
            f"trainer.devices={n_devices}",
            f"trainer.strategy={strategy}",
        )
        train(again)
        found.append(np.load(run_folder(again) / "results/loss.npy")[0, 2])
    assert found[0] == pytest.approx(found[1], rel=1e-6)
