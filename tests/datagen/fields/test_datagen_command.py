"""The field simulator as users run it: workers, shards and kill -9 do not change a byte."""

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
from omegaconf import DictConfig

from conf.build import build_settings
from datagen import pipeline
from datagen.fields.dummy import write_dummy_file_data
from datagen.files import sha256_file
from encoders.fields.data import index_folder

SMALL = ["data_gen.image_size=128", "data_gen.tile_size=32", "data_gen.prior.centre_margin_px=0"]
FOLDERS = ("catalogs", "images", "file_data")


def start(root: Path, cwd: Path, name: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a simulation into `cwd/name`, in a session of its own."""
    command = [sys.executable, str(root / "datagen/run.py"), f"data_gen.data_dir={name}"]
    return subprocess.Popen(
        [*command, *SMALL, *arguments, f"hydra.run.dir=logs/{name}"],
        cwd=cwd,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finish(runs: list[subprocess.Popen[str]]) -> None:
    for run in runs:
        _, errors = run.communicate(timeout=300)
        assert run.returncode == 0, errors


def hashes(folder: Path) -> dict[str, str]:
    """Everything that must not depend on how the run went."""
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for name in FOLDERS
        for path in (folder / name).iterdir()
    }


def test_bytes_do_not_depend_on_workers_shards_or_number_of_files(
    root: Path, tmp_path: Path, composed: Callable[..., DictConfig]
) -> None:
    """Two machines share four files, two workers share them, one worker makes the first two."""
    small = "data_gen.n_catalogs_per_file=1"

    def run(name: str, *arguments: str) -> None:
        node = composed("datagen", *SMALL, small, *arguments).data_gen
        node.data_dir = str(tmp_path / name)
        pipeline.run(build_settings(node, "data_gen"))

    other = start(root, tmp_path, "shards", small, "data_gen.nfiles=4", "data_gen.shard=[1,2]")
    run("shards", "data_gen.nfiles=4", "data_gen.shard=[0,2]")
    run("two", "data_gen.nfiles=2", "data_gen.n_jobs=1")
    run("four", "data_gen.nfiles=4", "data_gen.n_jobs=2")
    finish([other])
    two, four = hashes(tmp_path / "two"), hashes(tmp_path / "four")
    assert len(two) == 2 * 7
    assert len(four) == 4 * 7
    assert two.items() <= four.items()
    assert hashes(tmp_path / "shards") == four
    data = [name for name in four if name.startswith("file_data/")]
    assert len({four[name] for name in data}) == 4


@pytest.mark.slow
def test_killed_simulations_resume_to_the_same_bytes(root: Path, tmp_path: Path) -> None:
    """kill -9 at random moments, workers included, until the folder is complete."""
    work = ["data_gen.nfiles=12", "data_gen.n_catalogs_per_file=2", "data_gen.n_jobs=2"]
    # Two fields per file and larger images than elsewhere: there is something to interrupt.
    work += ["data_gen.image_size=512"]
    finish([start(root, tmp_path, "whole", *work)])
    killed = tmp_path / "killed"
    rng = random.Random(0)
    n_killed, seen = 0, []
    for _ in range(6):
        before = n_files(killed)
        run = start(root, tmp_path, "killed", *work)
        wait_for_more(killed, before + rng.randrange(1, 20), run)
        time.sleep(rng.uniform(0.0, 0.1))
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            n_killed += 1
        run.communicate()
        seen.append(n_files(killed))
    assert n_killed >= 3
    assert seen[0] < len(hashes(tmp_path / "whole"))
    finish([start(root, tmp_path, "killed", *work)])
    # Listed with hidden names: nothing half-written is left behind.
    assert hashes(killed) == hashes(tmp_path / "whole")


def n_files(folder: Path) -> int:
    return sum(len(list((folder / name).glob("[!.]*"))) for name in FOLDERS)


def wait_for_more(folder: Path, wanted: int, run: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while n_files(folder) < wanted and run.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_partial_files_of_a_killed_simulation_are_no_data(tmp_path: Path) -> None:
    paths = write_dummy_file_data(tmp_path, 2, 64, 32, ["g", "r"], seed=1)
    partial = paths[0].with_name(f".partial-abcdefgh-{paths[0].name}")
    partial.write_bytes(paths[0].read_bytes()[:1000])
    assert [file.path for file in index_folder(tmp_path)] == paths
