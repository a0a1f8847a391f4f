"""The command as users type it: a real checkpoint, ranks, kill and resume, errors in one line."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from datagen.errors import CheckpointError, ConfigError, SkyfoldError
from datagen.files import read_json, save_torch
from datagen.lenses.format import images_path, write_images
from encoders.lenses.module import LensModule
from inference.engine import predict
from inference.lenses.table import read_result

OURS = ["predict=lenses", "predict.accelerator=cpu", "logger=none", "predict.batch_size=8"]
QUICK = [*OURS, "predict.evaluate=false"]


def hparams() -> dict[str, Any]:
    stretch = {"kind": "asinh", "softening": [1.0], "mean": [0.0], "std": [1.0]}
    card = {"task": "lenses", "model": "plain_cnn", "classes": ["no_sub", "cdm", "vortex"]}
    card |= {"bands": ["i"], "pixel_scale": 0.1, "side": 9, "image_side": 9, "data_hash": "0"}
    card |= {"stretch": stretch | {"scales": [], "steps": [], "threshold": 0.1}}
    network = {"_target_": "encoders.lenses.plain_network.PlainNetwork"}
    return {
        "card": card,
        "network": network | {"channels": [2, 4, 4, 4], "n_blocks": [0, 0, 0]},
        "loss": {"label_smoothing": 0.0},
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-3},
        "scheduler": None,
        "augment": {"turns": "none", "flips": False, "seed": 0},
        "calibration": {"coverage": 0.9},
        "freeze_norm": False,
    }


@pytest.fixture
def prepared(tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.manual_seed(0)
    known = hparams()
    module = LensModule(**known)
    module.temperature.fill_(0.3)
    save_torch(
        tmp_path / "outputs/plain_cnn/best.ckpt",
        {"state_dict": module.state_dict(), "hyper_parameters": known},
    )
    (tmp_path / "data").mkdir()
    dataset.rename(tmp_path / "data" / "lenses")
    monkeypatch.chdir(tmp_path)
    return tmp_path


WEIGHTS = "predict.weight_save_path=outputs/plain_cnn/best.ckpt"


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that must not depend on how the run went."""
    names = [*folder.glob("parts/*"), folder / "predictions.fits", folder / "failed.ecsv"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


def command(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(root / "inference" / "predict.py"), WEIGHTS, *arguments]


def environment() -> dict[str, str]:
    # Launchers set these for their children; left over, they would make us one.
    clean = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "NODE_RANK")}
    return {**clean, "OMP_NUM_THREADS": "1"}


def test_a_checkpoint_predicts_what_its_module_says(
    prepared: Path, composed: Callable[..., DictConfig]
) -> None:
    assert predict(composed("predict", *QUICK, WEIGHTS)) == 0
    table = read_result(prepared / "outputs" / "lenses" / "predictions.fits").predictions
    content = torch.load(prepared / "outputs/plain_cnn/best.ckpt", weights_only=True)
    module = LensModule(**content["hyper_parameters"]).eval()
    module.load_state_dict(content["state_dict"])
    images = np.load(images_path(prepared / "data/lenses", 1))
    with torch.no_grad():
        expected = module.probabilities(torch.from_numpy(images)).numpy()
    found = np.stack([table[name] for name in ("P_NO_SUB", "P_CDM", "P_VORTEX")], axis=1)
    np.testing.assert_allclose(found[10:20], expected, atol=1e-5)
    assert expected.std() > 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "checkpoint outputs/e2cnn/best.ckpt does not exist"),
        ([WEIGHTS, "predict.batch_size=many"], "predict.batch_size: Value 'many' of type 'str'"),
        (
            [WEIGHTS, "predict.cached_data_path=none"],
            "predict.cached_data_path = none does not exist",
        ),
        ([WEIGHTS, "predict.devices=abc"], "but got devices = abc"),
    ],
)
def test_wrong_keys_of_lenses_are_explained(
    prepared: Path, composed: Callable[..., DictConfig], arguments: list[str], message: str
) -> None:
    with pytest.raises(SkyfoldError) as caught:
        predict(composed("predict", *QUICK, *arguments))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_checkpoints_of_other_tasks_are_refused(
    prepared: Path, composed: Callable[..., DictConfig]
) -> None:
    path = "predict.weight_save_path=outputs/plain_cnn/best.ckpt"
    with pytest.raises(CheckpointError, match=r"for task = membership, .* is for task = lenses, "
                                              r"which goes with model=plain_cnn and predict=lenses|"
                                              r"of another class"):  # fmt: skip
        predict(composed("predict", path, "predict.accelerator=cpu", "logger=none"))


def test_a_classifier_is_written_as_a_program_first(
    prepared: Path, composed: Callable[..., DictConfig]
) -> None:
    export = "predict.export_path=programs/lens.pt2"
    with pytest.raises(ConfigError, match=r"predict\.export_path to end with \.pt2 or \.onnx"):
        predict(composed("predict", *QUICK, WEIGHTS, f"{export}h"))
    assert predict(composed("predict", *QUICK, WEIGHTS, export)) == 0
    loaded = torch.export.load(prepared / "programs/lens.pt2").module()
    images = np.load(images_path(prepared / "data/lenses", 0))
    table = read_result(prepared / "outputs" / "lenses" / "predictions.fits").predictions
    found = np.stack([table[name] for name in ("P_NO_SUB", "P_CDM", "P_VORTEX")], axis=1)
    with torch.no_grad():
        np.testing.assert_allclose(loaded(torch.from_numpy(images)), found[:10], atol=1e-5)


@pytest.mark.slow
def test_two_ranks_give_the_bytes_of_one_on_lenses(
    root: Path, prepared: Path, composed: Callable[..., DictConfig]
) -> None:
    """Two ranks share three parts, of which one is damaged; one rank does them alone."""
    images_path(prepared / "data/lenses", 1).write_bytes(b"")
    words = command(root, *OURS, "predict.output_dir=two", "predict.devices=2")
    two = subprocess.run(
        words, cwd=prepared, env=environment(), capture_output=True, text=True, check=False
    )
    assert two.returncode == 3, two.stderr
    said = two.stdout + two.stderr
    assert "20 images classified, 1 images or files failed" in said
    assert said.count("3 parts to predict") == 1
    assert "lightning" not in said.lower()
    assert predict(composed("predict", *OURS, WEIGHTS, "predict.output_dir=one")) == 3
    assert contents(prepared / "two") == contents(prepared / "one")
    assert (prepared / "two/roc.png").read_bytes() == (prepared / "one/roc.png").read_bytes()
    entries = read_json(prepared / "two" / "manifest.json")["parts"]
    assert [entry["rank"] for entry in entries] == [0, 1, 0]


@pytest.mark.slow
def test_killed_runs_on_lenses_resume_to_the_same_bytes(
    root: Path, prepared: Path, make_images: Callable[..., np.ndarray]
) -> None:
    for number in range(3, 40):
        write_images(images_path(prepared / "data/lenses", number), make_images(400, number))
    words = command(root, *QUICK)
    whole = [*words, "predict.output_dir=whole"]
    assert subprocess.run(whole, cwd=prepared, env=environment(), check=False).returncode == 0
    rng = random.Random(0)
    parts = prepared / "killed" / "parts"
    for _ in range(10):
        run = subprocess.Popen(
            [*words, "predict.output_dir=killed"],
            cwd=prepared,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Killed at a random moment after one more part is there.
        deadline = time.monotonic() + 120
        before = len(list(parts.glob("lenses*")))
        while len(list(parts.glob("lenses*"))) <= before and run.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        run.send_signal(signal.SIGKILL)
        run.wait()
    again = [*words, "predict.output_dir=killed"]
    assert subprocess.run(again, cwd=prepared, env=environment(), check=False).returncode == 0
    assert contents(prepared / "killed") == contents(prepared / "whole")
    assert list((prepared / "killed").rglob(".partial-*")) == []
