"""The command as users type it: a trained encoder, ranks, kill and resume, errors in one line."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from datagen.errors import SkyfoldError
from datagen.files import read_json
from encoders.training import train
from inference.engine import predict
from inference.halos.table import read_result
from tests.encoders.halos.conftest import write_set

OURS = ["predict=halos", "predict.accelerator=cpu", "logger=none", "predict.batch_size=16"]
OURS += ["predict.n_permutations=20"]
QUICK = [*OURS, "predict.summarise=false", "predict.evaluate=false"]
SMALL = ["model=compact_reduced", "model.network.encoder.channels=[4,8]", "trainer=cpu"]
SMALL += ["model.network.n_hidden=16", "trainer.max_epochs=2", "data.batch_size=32", "logger=none"]
SMALL += ["trainer.enable_progress_bar=false", "test=false"]


@pytest.fixture
def trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, composed: Callable[..., DictConfig]
) -> Path:
    """Return a folder in which an encoder was trained for two epochs on set a."""
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path / "data/halos/a")
    write_set(tmp_path / "data/halos/c", n_clusters=9, n_files=3, SEED=1)
    train(composed("train", *SMALL))
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that must not depend on how the run went."""
    names = [*folder.glob("parts/*"), *folder.glob("*.fits"), *folder.glob("*.ecsv")]
    names += [*folder.glob("*.png"), *folder.glob("evaluation.json")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


def command(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(root / "inference" / "predict.py"), *arguments]


def environment() -> dict[str, str]:
    # Launchers set these for their children; left over, they would make us one.
    clean = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "NODE_RANK")}
    return {**clean, "OMP_NUM_THREADS": "1"}


def test_train_then_predict(trained: Path, composed: Callable[..., DictConfig]) -> None:
    assert predict(composed("predict", *OURS)) == 0
    table = read_result(trained / "outputs/halos/predictions.fits").predictions
    assert len(table) == 24 * 6 + 9 * 6
    assert [name for name in table.columns if name.startswith("P_")] == ["P_0", "P_0.1", "P_1"]
    assert set(table["SPLIT"][table["SET"] == "a"]) == {"train", "val", "test"}
    assert (trained / "outputs/halos/sets.ecsv").is_file()
    found = read_json(trained / "outputs/halos/evaluation.json")
    assert found["sets"]["c"]["n_known"] == 54


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "checkpoint outputs/compact_reduced/best.ckpt does not exist"),
        (["predict.batch_size=many"], "predict.batch_size: Value 'many' of type 'str'"),
        (["predict.sets=a"], "predict.sets: "),
        (["predict.n_compared=1"], "predict.n_compared"),
    ],
)
def test_wrong_keys_of_halos_are_explained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    composed: Callable[..., DictConfig],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SkyfoldError) as caught:
        predict(composed("predict", *QUICK, *arguments))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_two_ranks_give_the_bytes_of_one_on_halos(
    root: Path, trained: Path, composed: Callable[..., DictConfig]
) -> None:
    """Two ranks share five parts, of which one is damaged; one rank does them alone."""
    (trained / "data/halos/c/maps/halos_000001.npy").write_bytes(b"")
    words = command(root, *OURS, "predict.output_dir=two", "predict.devices=2")
    two = subprocess.run(
        words, cwd=trained, env=environment(), capture_output=True, text=True, check=False
    )
    assert two.returncode == 3, two.stderr
    said = two.stdout + two.stderr
    assert "180 maps predicted, 1 maps or files failed" in said
    assert said.count("5 parts to predict") == 1
    assert predict(composed("predict", *OURS, "predict.output_dir=one")) == 3
    assert contents(trained / "two") == contents(trained / "one")
    entries = read_json(trained / "two" / "manifest.json")["parts"]
    assert [entry["rank"] for entry in entries] == [0, 1, 0, 1, 0]


@pytest.mark.slow
def test_killed_runs_on_halos_resume_to_the_same_bytes(root: Path, trained: Path) -> None:
    folder = trained / "data/halos/c"
    for number in range(3, 30):
        for kind, ending in (("maps", "npy"), ("truth", "fits")):
            name = folder / kind / f"halos_{number % 3:06d}.{ending}"
            shutil.copy(name, name.with_name(f"halos_{number:06d}.{ending}"))
    words = command(root, *QUICK)
    whole = [*words, "predict.output_dir=whole"]
    assert subprocess.run(whole, cwd=trained, env=environment(), check=False).returncode == 0
    rng = random.Random(0)
    parts = trained / "killed" / "parts"
    for _ in range(4):
        run = subprocess.Popen(
            [*words, "predict.output_dir=killed"],
            cwd=trained,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Killed at a random moment after one more part is there.
        deadline = time.monotonic() + 120
        before = len(list(parts.glob("*-halos*")))
        while len(list(parts.glob("*-halos*"))) <= before and run.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        run.send_signal(signal.SIGKILL)
        run.wait()
    again = [*words, "predict.output_dir=killed"]
    assert subprocess.run(again, cwd=trained, env=environment(), check=False).returncode == 0
    assert contents(trained / "killed") == contents(trained / "whole")
    assert list((trained / "killed").rglob(".partial-*")) == []
