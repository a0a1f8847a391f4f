"""Whole trainings on small data: resume, publishing, sweeps, two processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.types import RunMode
from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig, OmegaConf

from conf import running
from datagen.errors import CheckpointError, ConfigError, DataNotFoundError, OutputError
from datagen.fields.dummy import write_dummy_file_data
from encoders import training
from encoders.checkpoint import load_checkpoint
from encoders.devices import check_sweep, n_devices, one_device
from encoders.training import train

Compose = Callable[..., DictConfig]


def checkpoint(cfg: DictConfig, name: str = "last") -> Path:
    return Path(cfg.paths.log_dir) / "membership/runs/manual/checkpoints" / f"{name}.ckpt"


def assert_same_training(first: Path, second: Path) -> None:
    """Weights, optimiser and schedule agree bit for bit."""
    one, two = (torch.load(path, weights_only=True) for path in (first, second))
    assert one["global_step"] == two["global_step"]
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        left, right = (torch.utils._pytree.tree_flatten(c[key])[0] for c in (one, two))
        for a, b in zip(left, right, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_train_test_and_publish(compose_train: Compose) -> None:
    cfg = compose_train("trainer.max_epochs=4")
    metrics = train(cfg)
    assert metrics["val/average_precision"] > 0.5
    assert {"test/f1", "test/average_precision", "test/calibration_error"} <= metrics.keys()
    assert 0.0 <= metrics["val/calibration_kept"] <= 1.0
    published = Path(cfg.paths.output_dir) / "membership" / "best.ckpt"
    assert published.read_bytes() == checkpoint(cfg, "best").read_bytes()
    assert not list(published.parent.glob(".*"))
    module: Any = load_checkpoint(published, "membership")
    assert module.card["bands"] == ["g", "r"]
    assert float(module.threshold) == pytest.approx(metrics["test/threshold"])


def test_one_and_one_epochs_are_two(compose_train: Compose) -> None:
    whole = compose_train("trainer.max_epochs=2", "test=false", folder="whole")
    train(whole)
    first = compose_train("trainer.max_epochs=1", "test=false", folder="first")
    train(first)
    second = compose_train(
        "trainer.max_epochs=2", f"ckpt_path={checkpoint(first)}", "test=false", folder="second"
    )
    train(second)
    assert_same_training(checkpoint(whole), checkpoint(second))


def test_a_resumed_training_competes_with_what_it_had(compose_train: Compose) -> None:
    first = compose_train("trainer.max_epochs=1", "test=false", folder="first")
    train(first)
    best = checkpoint(first, "best")
    # No loss is lower than this one, so the best of the first folder stays the best.
    content = torch.load(checkpoint(first), weights_only=True)
    for state in content["callbacks"].values():
        if state.get("monitor"):
            state |= {"best_model_score": torch.tensor(-1.0), "kth_value": torch.tensor(-1.0)}
            state["best_k_models"] = {str(best): torch.tensor(-1.0)}
    torch.save(content, checkpoint(first))
    settings = ["trainer.max_epochs=2", f"ckpt_path={checkpoint(first)}", "test=false"]
    second = compose_train(*settings, folder="second")
    train(second)
    assert not checkpoint(second, "best").exists()
    published = Path(second.paths.output_dir) / "membership" / "best.ckpt"
    assert published.read_bytes() == best.read_bytes()


class Crash(Callback):
    """Ends a training in the middle of its second epoch."""

    def on_train_batch_start(self, trainer: Trainer, *args: object) -> None:
        if trainer.current_epoch == 1 and trainer.global_step % trainer.num_training_batches == 1:
            raise KeyError("power cut")


@pytest.mark.parametrize("max_steps", [-1, 100])
def test_resume_after_a_crash(
    compose_train: Compose, monkeypatch: pytest.MonkeyPatch, max_steps: int
) -> None:
    # With -1 the schedule's horizon follows from max_epochs.
    settings = [f"trainer.max_steps={max_steps}", "trainer.max_epochs=2", "test=false"]
    whole = compose_train(*settings, folder="whole")
    train(whole)
    broken = compose_train(*settings, folder="broken")
    built = training.build_callbacks
    with monkeypatch.context() as patch:
        patch.setattr(training, "build_callbacks", lambda *a: [*built(*a), Crash()])
        with pytest.raises(KeyError, match="power cut"):
            train(broken)
    train(compose_train(*settings, f"ckpt_path={checkpoint(broken)}", folder="broken"))
    assert_same_training(checkpoint(whole), checkpoint(broken))


def test_no_test_data(compose_train: Compose) -> None:
    few = ["debug=fast", "trainer.max_steps=1"]
    cfg = compose_train(*few, "data.splits.train=0.7", "data.splits.val=0.3", "data.splits.test=0")
    assert not any(name.startswith("test/") for name in train(cfg))


def test_the_last_step_is_validated(compose_train: Compose) -> None:
    cfg = compose_train("trainer.max_steps=5", "test=false")  # an epoch has more or less steps
    metrics = train(cfg)
    assert torch.load(checkpoint(cfg), weights_only=True)["global_step"] == 5
    assert "val/f1" in metrics


def test_bf16_pictures_and_early_stopping(compose_train: Compose) -> None:
    cfg = compose_train(
        "trainer.max_epochs=1",
        "trainer.precision=bf16-mixed",
        "trainer.log_every_n_steps=1",
        "logger=tensorboard",
        "callbacks=early_stopping",
        "model.network.n_counts=2",
    )
    assert "test/f1" in train(cfg)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = checkpoint(cfg).parents[1] / "tensorboard"
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0, "images": 0}).Reload()
    tags = events.Tags()
    assert {"train/loss", "val/loss", "val/average_precision", "lr-AdamW"} <= set(tags["scalars"])
    assert "val/field_0" in tags["images"]
    assert "val/precision_recall" in tags["tensors"]


def test_reference_network_trains(compose_train: Compose) -> None:
    cfg = compose_train(
        "model=membership_reference",
        "model.network.width=8",
        "model.network.n_curves=2",
        "debug=fast",
        "trainer.max_steps=1",
    )
    assert "test/f1" in train(cfg)
    assert not Path(cfg.paths.output_dir).exists()


def test_nothing_to_learn_from(compose_train: Compose, tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"python datagen/run\.py data_gen=fields"):
        train(compose_train(f"data.data_dir={tmp_path}"))


def test_a_training_begins_with_given_weights_on_other_data(
    compose_train: Compose, tmp_path: Path
) -> None:
    settings = ["test=false", "trainer.max_epochs=1"]
    first = compose_train(*settings)
    train(first)
    write_dummy_file_data(tmp_path / "other", 16, 128, 32, ["g", "r"], seed=2)
    second = compose_train(
        *settings,
        f"data.data_dir={tmp_path / 'other'}",
        f"init_from={checkpoint(first)}",
        # A rate this small shows with which weights it began.
        "model.optimizer.lr=1e-12",
        folder="second",
    )
    train(second)
    one, two = (torch.load(checkpoint(cfg), weights_only=True) for cfg in (first, second))
    assert two["global_step"] == one["global_step"]
    for name, value in one["state_dict"].items():
        if name.endswith(("weight", "bias")):
            torch.testing.assert_close(two["state_dict"][name], value, msg=name)
    cards = [content["hyper_parameters"]["card"] for content in (one, two)]
    assert cards[0]["prevalence"] != cards[1]["prevalence"]
    with pytest.raises(ConfigError, match=r"either ckpt_path .* or init_from"):
        train(compose_train(f"ckpt_path={checkpoint(first)}", f"init_from={checkpoint(first)}"))


def test_nothing_to_resume_from(compose_train: Compose) -> None:
    with pytest.raises(DataNotFoundError, match="expected ckpt_path to be a checkpoint, but none"):
        train(compose_train("ckpt_path=none.ckpt"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.seed=5", r"expected data\.seed = 1, .*last\.ckpt.* got data\.seed = 5"),
        ("data.splits.val=0.2", r"expected data\.splits = \{'train': 0\.6, .* got data\.splits"),
        ("data.bands=[r,g]", r"expected data\.bands = \['g', 'r'\], .* = \['r', 'g'\]"),
        ("model.network.width=8", r"expected model\.network\.width = 4, .*network\.width = 8; set"),
    ],
)
def test_another_training_is_not_resumed(compose_train: Compose, change: str, message: str) -> None:
    """Other splits would train on files of the test."""
    settings = ["debug=fast", "test=false", "data.splits.test=0.1"]
    first = compose_train(*settings, "debug=none", "trainer.max_steps=1")
    train(first)
    more = ["data.splits.test=0.2"] if "val" in change else []
    resumed = compose_train(
        *settings, f"ckpt_path={checkpoint(first)}", change, *more, folder="second"
    )
    with pytest.raises(CheckpointError, match=message) as caught:
        train(resumed)
    assert "\n" not in str(caught.value)


def test_a_diverged_training_is_not_published(
    compose_train: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    good = compose_train("trainer.max_steps=2", "test=false")
    train(good)
    published = Path(good.paths.output_dir) / "membership" / "best.ckpt"
    before = published.read_bytes()
    wild = ["model.optimizer.lr=1e30", "model.scheduler=null", "trainer.gradient_clip_val=null"]
    bad = compose_train("trainer.max_steps=20", "test=false", *wild, folder="bad")
    bad.callbacks.best.publish = str(published)
    train(bad)
    assert published.read_bytes() == before
    assert "val/loss is not finite, so the training has diverged" in caplog.text
    with pytest.raises(CheckpointError, match=r"diverged: .* is not finite"):
        load_checkpoint(checkpoint(bad), "membership")


def test_a_horizon_without_end_is_refused(compose_train: Compose) -> None:
    limits = ["trainer.max_steps=-1", "trainer.max_time=00:00:00:05"]
    with pytest.raises(ConfigError, match=r"expected model\.scheduler\.total_steps .*= -1; set it"):
        train(compose_train(*limits, "test=false"))
    given = ["model.scheduler.total_steps=5", "trainer.max_time=00:00:00:00"]
    train(compose_train(*limits, *given, "test=false", folder="given"))


@pytest.mark.parametrize(
    "word",
    ["devices=abc", "devices=0", "precision=foo", "strategy=foo", "accelerator=foo"],
)
def test_wrong_words_for_the_trainer_take_one_line(compose_train: Compose, word: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot build|expected devices") as caught:
        train(compose_train(f"trainer.{word}"))
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written(compose_train: Compose, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cfg = compose_train()
    cfg.paths.log_dir = str(tmp_path / "file")
    with pytest.raises(OutputError, match=r"cannot write .*file.*a part of the path is a file"):
        train(cfg)


def test_unknown_options_are_named(compose_train: Compose) -> None:
    with pytest.raises(ConfigError, match=r"encoders\.fields\.data\.FieldsDataModule.*'colour'"):
        train(compose_train("+data.colour=1"))


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that pretends to be in a sweep under a launcher."""

    class State:
        launcher = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"

        @classmethod
        def initialized(cls) -> bool:
            return True

        @classmethod
        def get(cls) -> DictConfig:
            mode = {"mode": RunMode.MULTIRUN, "launcher": {"_target_": cls.launcher}}
            return OmegaConf.create(mode)

    monkeypatch.setattr(running, "HydraConfig", State)
    return lambda launcher: setattr(State, "launcher", launcher)


@pytest.mark.parametrize("strategy", ["ddp", "auto"])
def test_sweeps_do_not_restart_themselves(sweep: Callable[[str], None], strategy: str) -> None:
    message = r"trainer\.devices = 2; use trainer\.strategy=ddp_spawn, or hydra/launcher=submitit"
    with pytest.raises(ConfigError, match=message):
        check_sweep("trainer", 2, strategy)
    check_sweep("trainer", 2, "ddp_spawn")
    check_sweep("trainer", 1, strategy)
    sweep("hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher")
    check_sweep("trainer", 2, strategy)


def test_number_of_devices() -> None:
    assert [n_devices(d) for d in (1, 2, "2", "0,1", [0, 3])] == [1, 2, 2, 2, 2]
    assert n_devices("auto") >= 1
    for wrong in ("abc", "", None, "1,x"):
        with pytest.raises(ConfigError, match=f"expected devices .* but got devices = {wrong}"):
            n_devices(wrong)
    assert one_device(4) == 1
    assert one_device([3, 5]) == [3]


@pytest.mark.slow
def test_two_processes(fields_dir: Path, tmp_path: Path, root: Path) -> None:
    """`trainer.devices=2 trainer.accelerator=cpu` trains, tests once and writes one checkpoint."""
    command = [
        sys.executable,
        str(root / "train.py"),
        f"data.data_dir={fields_dir}",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "trainer.max_epochs=2",
        "trainer.enable_progress_bar=false",
        "model.network.width=4",
        "logger=csv",
        "hydra.run.dir=run",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs/membership/best.ckpt").is_file()
    assert done.stdout.count("tested") + done.stderr.count("tested") == 1
    assert "test/f1" in (tmp_path / "run/csv/metrics.csv").read_text()
