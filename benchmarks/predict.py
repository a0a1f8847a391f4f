"""What does reading cost when survey tiles are predicted: speed, memory, rows that are decoded?

Usage: python benchmarks/predict.py [--size 10000] [--bands 4] [--tiles 1] [--kinds plain rows ...]

Makes survey tiles of its own, plain and compressed, in a temporary folder. Each measurement is a
whole prediction in a process of its own, on one thread, with an untrained membership network.
Speed is relative to the same number of forward passes over one window that is in memory. Memory is
relative to one window (bands x 2560^2 floats): the peak of what is not backed by a file, less what
there was before, with an encoder that needs none itself. `classic` is the loop that is usually
written: decode whole survey tiles, unfold them to windows side by side, save the results of each
batch.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.io import fits
from numpy.typing import NDArray
from torch import Tensor

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

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
WINDOW_PX, STRIDE_PX, HALO_PX, CELL_PX = 2560, 1536, 512, 256
SCALE_ARCSEC = 0.263
PIECES: dict[str, tuple[int, int] | None] = {
    "plain": None,
    "squares": (256, 256),
    "rows": (1, 0),
}
SECONDS_BETWEEN_LOOKS = 0.01
SECONDS_OF_A_FORWARD = 0.3


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
    """

    folder: Path
    kind: str
    size: int
    n_bands: int
    n_tiles: int
    prefetch: int = 0
    is_idle: bool = False

    @property
    def n_windows(self) -> int:
        """Number of windows of all survey tiles."""
        windows = WindowShape(WINDOW_PX, STRIDE_PX, HALO_PX, CELL_PX, CELL_PX)
        return len(WindowPlan((self.size, self.size), windows).starts) * self.n_tiles


@dataclass(frozen=True)
class Cost:
    """What a measurement found.

    Args:
        seconds: Wall clock.
        cpu_seconds: Of all threads.
        memory: Peak [windows].
        decoded: Rows decoded per row in the files.
        n_windows: How many windows were scored.
    """

    seconds: float
    cpu_seconds: float
    memory: float
    decoded: float
    n_windows: int


class IdleModule(MembershipModule):
    """Answers the same everywhere, after some time, and needs no memory."""

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Wait, and return a probability of 0.5 per cell."""
        time.sleep(SECONDS_OF_A_FORWARD)
        n, _, height, width = batch["images"].shape
        return {"scores": torch.full((n, height // CELL_PX, width // CELL_PX), 0.5)}


class PeakMemory(threading.Thread):
    """Watches how much memory of this process no file stands behind."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._is_over = threading.Event()
        self._before = self._peak = anonymous_bytes()

    def run(self) -> None:
        """Look until it is over."""
        while not self._is_over.wait(SECONDS_BETWEEN_LOOKS):
            self._peak = max(self._peak, anonymous_bytes())

    def stop(self) -> int:
        """Return how much more than at the start there was [bytes]."""
        self._is_over.set()
        self.join()
        return self._peak - self._before


def anonymous_bytes() -> int:
    """Return the resident memory of this process without pages of files [bytes]."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))


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
    predict: dict[str, Any] = {"accelerator": "cpu", "strategy": "auto", "precision": "32-true"}
    predict |= {"batch_size": 1, "num_workers": 0, "devices": 1, "num_nodes": 1, "n_threads": 1}
    predict |= {"window_px": WINDOW_PX, "stride_px": STRIDE_PX, "halo_px": HALO_PX, "blend": "crop"}
    predict |= {"threshold": 0.9, "prevalence": None, "separation_cells": 3, "min_cells": 1}
    predict |= {"merge_radius_arcmin": 1.0, "regions": False, "overwrite": True}
    paths: dict[str, Any] = {
        "cached_data_path": str(job.folder / job.kind),
        "weight_save_path": "untrained",
    }
    out = str(job.folder / "out")
    return PredictSettings(**predict, **paths, output_dir=out, prefetch=job.prefetch), survey


def measure_prediction(job: Job) -> Cost:
    """Predict all survey tiles."""
    torch.set_num_threads(1)
    quiet_lightning()
    settings, survey = settings_of(job)
    prediction = SurveyRun(settings, survey, build_module(job), "0" * 64)
    n_decoded = count_decoded_pixels()
    memory = PeakMemory() if job.is_idle else None
    if memory is not None:
        memory.start()
    start, cpu = time.perf_counter(), time.process_time()
    assert run(prediction) == 0
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = memory.stop() if memory is not None else 0
    decoded = sum(n_decoded) / (job.n_tiles * job.n_bands * job.size**2)
    return Cost(seconds, cpu, peak / window_bytes(job), decoded, job.n_windows)


def measure_forward(job: Job) -> Cost:
    """Score as many windows, all of them the same one in memory."""
    torch.set_num_threads(1)
    module = build_module(job)
    shape = (1, job.n_bands, WINDOW_PX, WINDOW_PX)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3
    levels = {"background": torch.zeros(1, job.n_bands), "sigma": torch.full((1, job.n_bands), 3.0)}
    with torch.inference_mode():
        module.predict_step({"images": images, **levels})
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(job.n_windows):
            module.predict_step({"images": images, **levels})
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Cost(seconds, cpu, 0.0, 0.0, job.n_windows)


def measure_decoding(job: Job) -> Cost:
    """Decode all files, each at once."""
    start, cpu = time.perf_counter(), time.process_time()
    for path in sorted((job.folder / job.kind).glob("*/*.fits")):
        read_whole(path)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Cost(seconds, cpu, 0.0, 1.0, job.n_windows)


def measure_classic(job: Job) -> Cost:
    """Decode whole survey tiles, unfold them to windows side by side, save each batch's result."""
    torch.set_num_threads(1)
    module = build_module(job)
    memory = PeakMemory()
    memory.start()
    n_windows = 0
    start, cpu = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        for folder in sorted((job.folder / job.kind).iterdir()):
            windows = unfold(np.stack([read_whole(path) for path in sorted(folder.iterdir())]))
            for number, window in enumerate(windows):
                levels = {"background": torch.zeros(1, job.n_bands)}
                levels |= {"sigma": torch.full((1, job.n_bands), 3.0)}
                scores = module.predict_step({"images": window[None], **levels})["scores"]
                torch.save(scores, job.folder / f"classic-{folder.name}-{number}.pt")
            n_windows += len(windows)
            del windows
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Cost(seconds, cpu, memory.stop() / window_bytes(job), 1.0, n_windows)


def unfold(images: NDArray[np.float32]) -> Tensor:
    """Return windows side by side (N, C, h, w) of images (C, H, W), padded with zeros."""
    tensor = torch.from_numpy(images)
    below, right = -tensor.shape[1] % WINDOW_PX, -tensor.shape[2] % WINDOW_PX
    tensor = torch.nn.functional.pad(tensor, (0, right, 0, below))
    parts = tensor.unfold(1, WINDOW_PX, WINDOW_PX).unfold(2, WINDOW_PX, WINDOW_PX)
    return parts.permute(1, 2, 0, 3, 4).reshape(-1, len(images), WINDOW_PX, WINDOW_PX)


def read_whole(path: Path) -> NDArray[np.float32]:
    """Return all pixels of the first image of a file."""
    with fits.open(path) as hdus:
        return np.array(next(hdu.data for hdu in hdus if hdu.data is not None), np.float32)


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


def window_bytes(job: Job) -> int:
    """Return the memory of one window [bytes]."""
    return 4 * job.n_bands * WINDOW_PX**2


def in_process(function: Any, job: Job) -> Cost:  # noqa: ANN401 - one of the above
    """Return what a measurement finds in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        cost: Cost = executor.submit(function, job).result()
    return cost


def report(job: Job, forward: float, bound: float) -> None:
    """Measure one kind of files and print a line of the table.

    Args:
        job: What to measure.
        forward: Time of the forward passes alone [s].
        bound: The same, or the time to decode all files alone if that is more [s].
    """
    memory = in_process(measure_prediction, replace(job, is_idle=True)).memory
    cost = in_process(measure_prediction, job)
    print(
        f"{job.kind:8} {job.prefetch:8d} {forward / cost.seconds:9.3f} "
        f"{bound / cost.seconds:9.3f} {memory:8.2f} {cost.decoded:8.3f} {cost.cpu_seconds:8.1f} "
        f"{cost.n_windows / cost.cpu_seconds:8.3f}",
        flush=True,
    )


def compare(job: Job, kinds: list[str], ahead: list[int]) -> None:
    """Print the table."""
    forward = in_process(measure_forward, job)
    print(f"{job.n_windows} windows, forward only: {forward.seconds:.1f} s")
    print("kind     prefetch  retained  of bound   memory  decoded    CPU s  win/CPU")
    for kind in kinds:
        stored = replace(job, kind=kind)
        write_tiles(stored)
        bound = forward.seconds
        if PIECES[kind] is not None:
            bound = max(bound, in_process(measure_decoding, stored).seconds)
        for prefetch in ahead:
            report(replace(stored, prefetch=prefetch), forward.seconds, bound)
    stored = replace(job, kind=kinds[-1])
    cost = in_process(measure_classic, stored)
    print(
        f"classic  (on {stored.kind}: {cost.n_windows} windows) {cost.memory:18.2f} "
        f"{cost.decoded:8.3f} {cost.cpu_seconds:8.1f} {cost.n_windows / cost.cpu_seconds:8.3f}"
    )


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=10000, help="side of a survey tile [px]")
    parser.add_argument("--bands", type=int, default=4, choices=range(1, len(BANDS) + 1))
    parser.add_argument("--tiles", type=int, default=1)
    parser.add_argument("--prefetch", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--kinds", nargs="+", default=list(PIECES), choices=PIECES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="skyfold-") as folder:
        job = Job(Path(folder), "plain", options.size, options.bands, options.tiles)
        compare(job, options.kinds, options.prefetch)


if __name__ == "__main__":
    main()
