"""The commands as users type them: several ranks, kill and resume, errors in one line."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from astropy.table import Table
from omegaconf import DictConfig

from datagen.errors import SkyfoldError
from datagen.files import read_json
from inference.engine import predict
from inference.survey.evaluation import evaluate
from tests.survey_tiles import SMALL_WINDOWS

OURS = [*SMALL_WINDOWS, "predict.batch_size=2"]


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that must not depend on how the run went."""
    names = [*folder.glob("scores/*"), *folder.glob("catalogs/*")]
    names += [folder / name for name in ("catalog.ecsv", "failed.ecsv")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


def command(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(root / "inference" / "predict.py"), *arguments]


def call(cwd: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    # Launchers set these for their children; left over, they would make us one.
    clean = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "NODE_RANK")}
    return subprocess.run(words, cwd=cwd, env=clean, capture_output=True, text=True, check=False)


Compose = Callable[..., DictConfig]


@pytest.fixture
def prepared(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tile: Callable[..., Path],
    checkpoint: Callable[..., Path],
) -> Path:
    for number in range(3):
        tile(tmp_path / "data" / "survey", f"T{number}", (300, 203), number, ra=10 + 0.01 * number)
    checkpoint(tmp_path / "outputs" / "membership" / "best.ckpt", ("g", "r"), 16)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_ranks_give_the_bytes_of_one(root: Path, prepared: Path, composed: Compose) -> None:
    """Two ranks share three tiles and a bad one; one rank does them alone."""
    (prepared / "data/survey/T1x").mkdir()
    (prepared / "data/survey/T1x/T1x_g.fits").write_bytes(b"")
    two = call(prepared, command(root, *OURS, "predict.output_dir=two", "predict.devices=2"))
    assert two.returncode == 3, two.stderr
    said = two.stdout + two.stderr
    assert "3 of 4 survey tiles predicted" in said
    # Each thing is said once, by us.
    assert said.count("4 survey tiles to predict") == 1
    assert "GLOBAL_RANK" not in said
    assert "lightning" not in said.lower()
    cfg = composed("predict", *OURS, "predict.output_dir=one")
    assert predict(cfg) == 3
    assert len(Table.read(prepared / "one" / "catalog.ecsv")) > 0
    assert contents(prepared / "two") == contents(prepared / "one")
    entries = read_json(prepared / "two" / "manifest.json")["tiles"]
    assert [entry.get("rank") for entry in entries] == [0, 1, None, 1]
    assert Table.read(prepared / "two" / "failed.ecsv")["tile"].tolist() == ["T1x"]


def test_evaluate_reads_what_predict_wrote(
    prepared: Path, composed: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(composed("predict", *OURS)) == 0
    truth = Table({"CLUSTER_ID": [1], "RA": [200.0], "DEC": [50.0], "Z": [0.3], "RICHNESS": [30.0]})
    truth.write(prepared / "data" / "survey" / "truth_clusters.ecsv")
    assert evaluate(composed("evaluate", "evaluate.n_plots=1")) == 0
    assert "completeness        all" in capsys.readouterr().out
    assert (prepared / "outputs" / "evaluation" / "tile_T0.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["survey=generic"],
            "was trained on the bands g, r, but the survey generic has",
        ),
        ([*OURS, "predict.window_px=100"], "window_px to be a multiple of 64, such as 64 or 128"),
        ([*OURS, "predict.batch_size=many"], "predict.batch_size: Value 'many' of type 'str'"),
        ([*OURS, "predict.weight_save_path=x.ckpt"], "checkpoint x.ckpt does not exist"),
        ([*OURS, "predict.devices=abc"], "but got devices = abc"),
        ([*OURS, "predict.devices=0"], "cannot build the trainer from predict.accelerator, "),
        ([*OURS, "predict.devices=[]"], "cannot build the trainer from predict.accelerator, "),
        ([*OURS, "predict.precision=foo"], "Precision 'foo' is invalid"),
        ([*OURS, "predict.strategy=foo"], "strategy='foo'"),
        ([*OURS, "predict.accelerator=foo"], "accelerator='foo'"),
    ],
)
def test_wrong_keys_are_explained(
    prepared: Path, composed: Compose, arguments: list[str], message: str
) -> None:
    with pytest.raises(SkyfoldError) as caught:
        predict(composed("predict", *arguments))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_killed_runs_resume_to_the_same_bytes(
    root: Path, prepared: Path, tile: Callable[..., Path]
) -> None:
    for number in range(3, 18):
        tile(prepared / "data" / "survey", f"T{number:02d}", (400, 403), number, ra=10 + number)
    words = command(root, *OURS)
    assert call(prepared, [*words, "predict.output_dir=whole"]).returncode == 0
    rng = random.Random(0)
    for _ in range(10):
        run = subprocess.Popen(
            [*words, "predict.output_dir=killed"], cwd=prepared, stderr=subprocess.DEVNULL
        )
        # Killed at a random moment after one more tile is there.
        deadline = time.monotonic() + 60
        scores = prepared / "killed" / "scores"
        before = len(list(scores.glob("T*")))
        while len(list(scores.glob("T*"))) <= before and run.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert call(prepared, [*words, "predict.output_dir=killed"]).returncode == 0
    assert contents(prepared / "killed") == contents(prepared / "whole")
    assert list((prepared / "killed").rglob(".partial-*")) == []
