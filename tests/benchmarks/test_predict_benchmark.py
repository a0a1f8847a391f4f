"""The parts of the benchmark of prediction: the loop to compare with, and what is measured."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import common_loop, predict, resources
from benchmarks.predict import Job
from datagen.tiles.sections import CompressedPixels


def test_windows_of_the_common_loop_are_those_of_the_image() -> None:
    images = torch.arange(2 * 5 * 7, dtype=torch.float32).reshape(2, 5, 7)
    windows = common_loop.unfold(images, 3)
    padded = torch.zeros(2, 6, 9)
    padded[:, :5, :7] = images
    assert windows.shape == (6, 2, 3, 3)
    for number, window in enumerate(windows):
        row, column = divmod(number, 3)
        part = padded[:, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
        torch.testing.assert_close(window, part)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Two small survey tiles, of four windows each."""
    monkeypatch.setattr(predict, "WINDOW_PX", 512)
    monkeypatch.setattr(predict, "SECONDS_OF_AN_IDLE_FORWARD", 0.0)
    # What counts decoded pixels stays otherwise, for the tests that follow.
    monkeypatch.setattr(CompressedPixels, "_decode", CompressedPixels._decode)
    job = Job(tmp_path, "rows", 700, 1, 2, layout=(256, 0), prefetch=1)
    predict.write_tiles(job)
    return job


def test_a_prediction_is_measured(job: Job) -> None:
    cost = predict.measure_prediction(job)
    assert job.n_windows == 8
    assert sorted(path.name for path in job.folder.glob("out/scores/*")) == ["T0.fits", "T1.fits"]
    # Each row once, and those again in which the background is measured.
    step = -(-job.size // 125)
    assert cost.decoded == pytest.approx(1 + np.ceil(job.size / step) / job.size)
    assert cost.forward > 0
    assert cost.cpu_seconds > 0
    idle = predict.measure_prediction(Job(**{**vars(job), "is_idle": True}))
    assert idle.forward == 0
    assert idle.memory > 0


def test_the_common_loop_sees_every_window_and_keeps_its_files(job: Job) -> None:
    folders = sorted((job.folder / "rows").iterdir())
    module = predict.build_module(job)
    assert common_loop.predict(module, folders, job.size, 512, job.folder) == 8
    first = torch.load(job.folder / "batch-0.pt", weights_only=True)
    image = torch.zeros(1, 1, 512, 512)
    image[0, 0] = torch.from_numpy(common_loop.read_whole(folders[0] / "T0_g.fits")[:512, :512])
    levels = {"background": torch.zeros(1, 1), "sigma": torch.full((1, 1), 3.0)}
    with torch.inference_mode():
        wanted = module.predict_step({"images": image, **levels})["scores"]
    torch.testing.assert_close(first["scores"], wanted)


def test_memory_of_a_child_counts() -> None:
    watch = resources.PeakMemory(with_children=True)
    watch.start()
    code = "import time; x = bytearray(80_000_000); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 30
        while resources.anonymous_bytes(str(child.pid)) < 80_000_000:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(3 * resources.SECONDS_BETWEEN_LOOKS_AT_CHILDREN)
    finally:
        child.kill()
        child.wait()
    assert watch.stop() > 79_000_000
    assert resources.anonymous_bytes(str(child.pid)) == 0
