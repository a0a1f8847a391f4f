"""Recipes for clusters, with two processes on the CPU: torchrun, srun, and jobs that submit."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from astropy.table import Table

from datagen.files import read_json
from tests.survey_tiles import SMALL_WINDOWS

pytestmark = pytest.mark.slow

OURS = SMALL_WINDOWS
LAUNCHED = ("LOCAL_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE")


@pytest.fixture
def prepared(tmp_path: Path, tile: Callable[..., Path], checkpoint: Callable[..., Path]) -> Path:
    for number in range(4):
        tile(tmp_path / "data" / "survey", f"T{number}", (300, 203), number, ra=10 + 0.01 * number)
    checkpoint(tmp_path / "outputs" / "membership" / "best.ckpt", ("g", "r"), 16)
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if k not in LAUNCHED and "SLURM" not in k}
    return {**clean, "OMP_NUM_THREADS": "1", **more}


def start(folder: Path, words: list[str], **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        cwd=folder,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def contents(folder: Path) -> dict[str, bytes]:
    names = [*folder.glob("scores/*"), *folder.glob("catalogs/*")]
    names += [folder / name for name in ("catalog.ecsv", "failed.ecsv")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def check(folder: Path, said: str, out: str, world: int) -> None:
    """Make sure that `world` ranks shared the survey tiles and gave the bytes of one."""
    entries = read_json(folder / out / "manifest.json")["tiles"]
    assert [entry["rank"] for entry in entries] == [n % world for n in range(4)]
    assert said.count("4 survey tiles to predict") == 1
    assert said.count("4 of 4 survey tiles predicted") == 1
    assert contents(folder / out) == contents(folder / "one")
    assert len(Table.read(folder / out / "catalog.ecsv")) > 0


@pytest.fixture
def one(root: Path, prepared: Path) -> Path:
    """The folder in which one process has predicted everything."""
    words = [sys.executable, str(root / "inference/predict.py"), *OURS, "predict.output_dir=one"]
    run = start(prepared, words)
    said, _ = run.communicate()
    assert run.returncode == 0, said
    return prepared


def test_torchrun(root: Path, one: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    script = [f"--master-port={free_port()}", str(root / "inference/predict.py")]
    run = start(
        one, [*torchrun, *script, *OURS, "predict.devices=2", "predict.output_dir=torchrun"]
    )
    said, _ = run.communicate()
    assert run.returncode == 0, said
    check(one, said, "torchrun", 2)


def test_two_tasks_of_a_slurm_job(root: Path, one: Path) -> None:
    """What `srun --nodes=1 --ntasks-per-node=2` starts: each task knows its number from SLURM."""
    words = [sys.executable, str(root / "inference/predict.py"), *OURS]
    job = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "skyfold",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "localhost",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    runs = [
        start(
            one,
            [*words, "predict.devices=2", "predict.output_dir=srun"],
            **job,
            SLURM_PROCID=str(rank),
            SLURM_LOCALID=str(rank),
        )
        for rank in range(2)
    ]
    said = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    check(one, "".join(said), "srun", 2)


def test_a_job_that_is_submitted(root: Path, one: Path) -> None:
    """`launcher=slurm`, on this machine instead of a cluster."""
    words = [sys.executable, str(root / "inference/predict.py"), *OURS, "launcher=slurm"]
    here = ["hydra/launcher=submitit_local", "hydra.launcher.gpus_per_node=0"]
    here += ["hydra.launcher.tasks_per_node=1", "predict.output_dir=submitted"]
    run = start(one, [*words, *here])
    said, _ = run.communicate()
    assert run.returncode == 0, said
    logs = "".join(path.read_text() for path in one.glob("logs/**/*.log"))
    assert logs.count("see submitted/catalog.ecsv") == 1
    assert contents(one / "submitted") == contents(one / "one")
