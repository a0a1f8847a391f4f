"""What does reading cost when survey tiles are predicted: speed, memory, rows that are decoded?

Usage: python benchmarks/predict.py [--size 10000] [--bands 4] [--tiles 2] [--kinds plain rows ...]

Makes survey tiles of its own, plain and compressed, in a temporary folder. Each measurement is a
whole prediction in a process of its own, on one thread, with an untrained membership network.

- retained: speed relative to as many forward passes over one window in memory, half of them just
  before and half just after. `of bound` is relative to the slower one of these passes and of
  decoding all files in one thread.
- memory: the peak of what is not backed by a file, less what there was before, with an encoder that
  needs none itself, in units of one window (bands x 2560^2 floats).
- decoded: rows that were decoded for each row in the files.
- common loop: `common_loop.py` on the same survey tiles, with two workers. Memory and
  processor time of all processes are relative to ours, once with the same windows and no
  encoder, once with the encoder and each with its own windows.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import common_loop
from benchmarks.resources import PeakMemory, cpu_seconds, in_process
from datagen.fields.format import RiceCompression, write_image
from datagen.tiles.sections import CompressedPixels
from datagen.tiles.survey import SurveySettings
from encoders.devices import quiet_lightning
from encoders.fields.module import MembershipModule
from inference.engine import run
from inference.survey.run import SurveyRun
from inference.survey.settings import PredictSettings
from inference.survey.windows import WindowPlan, WindowShape

BANDS = ("g", "r", "i", "z", "y", "u")
WINDOW_PX, CELL_PX = 2560, 256
# Stride and halo [px]: overlapping windows, and windows side by side as in the common loop.
OVERLAPPING, SIDE_BY_SIDE = (1536, 512), (2560, 0)
SCALE_ARCSEC = 0.263
PIECES: dict[str, tuple[int, int] | None] = {
    "plain": None,
    "squares": (256, 256),
    "rows": (1, 0),
}
SECONDS_OF_AN_IDLE_FORWARD = 0.3
PARTS = ["reading", "loop", "ranks"]


@dataclass(frozen=True)
class Job:
    """One measurement.

    Args:
        folder: Where survey tiles and results are.
        kind: How the survey tiles are stored.
        size: Side of a survey tile [px].
        n_bands: Number of bands.
        n_tiles: Number of survey tiles.
        prefetch: Batches read ahead.
        is_idle: Whether the encoder only waits.
        layout: Stride and halo of the windows [px].
        n_ranks: Processes that share the survey tiles.
    """

    folder: Path
    kind: str
    size: int
    n_bands: int
    n_tiles: int
    prefetch: int = 0
    is_idle: bool = False
    layout: tuple[int, int] = OVERLAPPING
    n_ranks: int = 1

    @property
    def n_windows(self) -> int:
        """Number of windows of all survey tiles."""
        windows = WindowShape(WINDOW_PX, *self.layout, CELL_PX, CELL_PX)
        return len(WindowPlan((self.size, self.size), windows).starts) * self.n_tiles

    @property
    def window_bytes(self) -> int:
        """Memory of one window [bytes]."""
        return 4 * self.n_bands * WINDOW_PX**2


@dataclass(frozen=True)
class Cost:
    """What a measurement found.

    Args:
        seconds: Wall clock.
        cpu_seconds: Of all threads and processes.
        memory: Peak [windows].
        decoded: Rows decoded per row in the files.
        forward: Wall clock of the forward passes alone.
    """

    seconds: float
    cpu_seconds: float = 0.0
    memory: float = 0.0
    decoded: float = 0.0
    forward: float = 0.0


class IdleModule(MembershipModule):
    """Answers the same everywhere, after some time, and needs no memory."""

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Wait, and return a probability of 0.5 per cell."""
        time.sleep(SECONDS_OF_AN_IDLE_FORWARD)
        n, _, height, width = batch["images"].shape
        return {"scores": torch.full((n, height // CELL_PX, width // CELL_PX), 0.5)}


def write_tiles(job: Job) -> None:
    """Write noise with some sources, in one kind of files."""
    pieces = PIECES[job.kind]
    step = SCALE_ARCSEC / 3600
    middle = (job.size + 1) / 2
    cards: dict[str, Any] = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": 10.0,
        "CRVAL2": -30.0,
    }
    cards |= {"CRPIX1": middle, "CRPIX2": middle, "CD1_1": -step, "CD2_2": step}
    rng = np.random.default_rng(0)
    compression = None
    if pieces is not None:
        compression = RiceCompression(16.0, (pieces[0], pieces[1] or job.size), 1)
    for band in BANDS[: job.n_bands]:
        image = rng.standard_normal((job.size, job.size), np.float32)
        image *= 3
        for y, x in rng.integers(0, job.size - 8, ((job.size // 60) ** 2, 2)):
            image[y : y + 8, x : x + 8] += rng.uniform(5, 200)
        for number in range(job.n_tiles):
            path = job.folder / job.kind / f"T{number}" / f"T{number}_{band}.fits"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, image, cards, compression)


def build_module(job: Job) -> MembershipModule:
    """Return the encoder: untrained, or one that waits."""
    torch.manual_seed(0)
    card = {"task": "membership", "bands": list(BANDS[: job.n_bands]), "cell_px": CELL_PX}
    card |= {"pixel_scale": SCALE_ARCSEC, "zero_point": 30.0, "data_hash": "0", "prevalence": 0.1}
    network = {"_target_": "encoders.fields.network.MembershipNetwork", "width": 64, "n_counts": 32}
    loss = {"pos_weight": 1.0, "focal_gamma": 0.0, "redshift_weight": 0.0, "cluster_weight": 0.1}
    kind = IdleModule if job.is_idle else MembershipModule
    return kind(card, network, loss, {}, None).eval()


def settings_of(job: Job) -> tuple[PredictSettings, SurveySettings]:
    """Return the settings of a prediction on one thread."""
    bands = list(BANDS[: job.n_bands])
    survey = SurveySettings(
        name=job.kind,
        pattern="{tile}/{tile}_{band}.fits",
        hdu=0 if PIECES[job.kind] is None else 1,
        bands=bands,
        zero_points=dict.fromkeys(bands, 30.0),
        calibrate=False,
        pixel_scale=SCALE_ARCSEC,
        align=False,
        reference_band=bands[0],
        blank_value=0.0,
    )
    strategy = "ddp_spawn" if job.n_ranks > 1 else "auto"
    predict: dict[str, Any] = {"accelerator": "cpu", "strategy": strategy}
    predict |= {"precision": "32-true", "compile": False, "devices": job.n_ranks}
    predict |= {"batch_size": 1, "num_workers": 0, "num_nodes": 1, "n_threads": 1}
    predict |= {"window_px": WINDOW_PX, "blend": "crop"}
    predict |= dict(zip(("stride_px", "halo_px"), job.layout, strict=True))
    predict |= {"threshold": 0.9, "prevalence": None, "separation_cells": 3, "min_cells": 1}
    predict |= {"merge_radius_arcmin": 1.0, "regions": False, "overwrite": True}
    paths: dict[str, Any] = {
        "cached_data_path": str(job.folder / job.kind),
        "weight_save_path": "untrained",
    }
    out = str(job.folder / "out")
    return PredictSettings(**predict, **paths, output_dir=out, prefetch=job.prefetch), survey


def measure_prediction(job: Job) -> Cost:
    """Predict all survey tiles, between the two halves of the forward passes."""
    torch.set_num_threads(1)
    quiet_lightning()
    settings, survey = settings_of(job)
    module = build_module(job)
    prediction = SurveyRun(settings, survey, module, "0" * 64)
    n_decoded = count_decoded_pixels()
    forward = 0.0 if job.is_idle else time_forward(module, job, job.n_windows // 2)
    memory = PeakMemory() if job.is_idle else None
    if memory is not None:
        memory.start()
    start, cpu = time.perf_counter(), cpu_seconds()
    if run(prediction) != 0:
        raise SystemExit("a survey tile failed")
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    peak = memory.stop() / job.window_bytes if memory is not None else 0.0
    cpu -= memory.cpu_seconds if memory is not None else 0.0
    if not job.is_idle:
        forward += time_forward(module, job, job.n_windows - job.n_windows // 2)
    decoded = sum(n_decoded) / (job.n_tiles * job.n_bands * job.size**2)
    return Cost(seconds, cpu, peak, decoded, forward)


def time_forward(module: MembershipModule, job: Job, n_windows: int) -> float:
    """Return how long it takes to score one window in memory again and again [s]."""
    shape = (1, job.n_bands, WINDOW_PX, WINDOW_PX)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3
    levels = {"background": torch.zeros(1, job.n_bands), "sigma": torch.full((1, job.n_bands), 3.0)}
    with torch.inference_mode():
        module.predict_step({"images": images, **levels})
        start = time.perf_counter()
        for _ in range(n_windows):
            module.predict_step({"images": images, **levels})
    return time.perf_counter() - start


def measure_decoding(job: Job) -> Cost:
    """Decode all files, each at once."""
    start, cpu = time.perf_counter(), cpu_seconds()
    for path in sorted((job.folder / job.kind).glob("*/*.fits")):
        common_loop.read_whole(path)
    return Cost(time.perf_counter() - start, cpu_seconds() - cpu)


def measure_common_loop(job: Job) -> Cost:
    """Predict all survey tiles with the common loop."""
    torch.set_num_threads(1)
    module = build_module(job)
    folders = sorted((job.folder / job.kind).iterdir())
    memory = PeakMemory(with_children=True) if job.is_idle else None
    if memory is not None:
        memory.start()
    start, cpu = time.perf_counter(), cpu_seconds()
    common_loop.predict(module, folders, job.size, WINDOW_PX, job.folder)
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    if memory is None:
        return Cost(seconds, cpu)
    peak = memory.stop() / job.window_bytes
    # To look at large processes takes much time.
    return Cost(seconds, cpu - memory.cpu_seconds, peak)


def count_decoded_pixels() -> list[int]:
    """Let compressed files note how many pixels they decode; return the list they write to."""
    counts: list[int] = []
    decode = CompressedPixels._decode

    def counted(self: CompressedPixels, rows: slice, columns: slice) -> NDArray[Any]:
        unit, height = self._piece_rows, self._shape[0]
        n_rows = min(-(-rows.stop // unit) * unit, height) - rows.start // unit * unit
        counts.append(n_rows * (columns.stop - columns.start))
        return decode(self, rows, columns)

    CompressedPixels._decode = counted  # type: ignore[method-assign]
    return counts


def report_reading(job: Job, n_repeats: int) -> None:
    """Print what reading one kind of files costs, for each number of batches ahead."""
    decoding = 0.0 if PIECES[job.kind] is None else in_process(measure_decoding, job).seconds
    memory = in_process(measure_prediction, replace(job, is_idle=True)).memory
    costs = [in_process(measure_prediction, job) for _ in range(n_repeats)]
    retained = [cost.forward / cost.seconds for cost in costs]
    bound = [max(cost.forward, decoding) / cost.seconds for cost in costs]
    cpu = statistics.median(cost.cpu_seconds for cost in costs) / job.n_tiles
    say(
        f"{job.kind:8} {job.prefetch:8d} {statistics.median(retained):9.3f} "
        f"{statistics.median(bound):9.3f} {memory:8.2f} {costs[0].decoded:8.3f} {cpu:11.1f}"
    )


def report_common_loop(job: Job) -> None:
    """Print what the common loop costs, relative to ours."""
    reading = replace(job, is_idle=True, layout=SIDE_BY_SIDE)
    theirs, ours = (in_process(f, reading) for f in (measure_common_loop, measure_prediction))
    ahead = in_process(measure_prediction, replace(reading, prefetch=1))
    theirs_all, ours_all = (in_process(f, job) for f in (measure_common_loop, measure_prediction))
    say(
        f"{job.kind:8} {theirs.memory:8.1f} {theirs.memory / ours.memory:10.1f} "
        f"{theirs.memory / ahead.memory:10.1f} {theirs.cpu_seconds / ours.cpu_seconds:12.1f} "
        f"{theirs_all.cpu_seconds / ours_all.cpu_seconds:13.1f}"
    )


def report_ranks(job: Job) -> None:
    """Print how much faster two ranks are than one, their start included."""
    one = in_process(measure_prediction, job)
    two = in_process(measure_prediction, replace(job, n_ranks=2))
    say(f"{job.kind:8} two ranks: {one.seconds / two.seconds:.2f} times the speed of one")


def compare(job: Job, options: argparse.Namespace) -> None:
    """Print the tables."""
    jobs = [replace(job, kind=kind) for kind in options.kinds]
    for stored in jobs:
        write_tiles(stored)
    say(f"{job.n_tiles} survey tiles of {job.size} px, {job.n_windows} windows, one thread")
    if "reading" in options.parts:
        say("\nkind     prefetch  retained  of bound   memory  decoded  CPU s/tile")
        for stored in jobs:
            for prefetch in options.prefetch:
                report_reading(replace(stored, prefetch=prefetch), options.repeats)
    if "loop" in options.parts:
        say("\ncommon loop: memory, and relative to ours")
        say("kind       memory / no ahead    / ahead CPU, reading CPU, encoder")
        for stored in jobs:
            report_common_loop(stored)
    if "ranks" in options.parts:
        say("")
        report_ranks(jobs[0])


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=10000, help="side of a survey tile [px]")
    parser.add_argument("--bands", type=int, default=4, choices=range(1, len(BANDS) + 1))
    parser.add_argument("--tiles", type=int, default=2)
    parser.add_argument("--prefetch", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--kinds", nargs="+", default=list(PIECES), choices=PIECES)
    parser.add_argument("--repeats", type=int, default=3, help="of which the median counts")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="skyfold-") as folder:
        job = Job(Path(folder), "plain", options.size, options.bands, options.tiles)
        compare(job, options)


if __name__ == "__main__":
    main()
