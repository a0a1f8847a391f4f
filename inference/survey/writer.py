"""Collects scores while a prediction runs and saves each survey tile as soon as it is complete."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from datagen import files
from inference.outputs import write_record
from inference.survey.blending import Mosaic
from inference.survey.candidates import CandidateRule, find_candidates, to_ecsv
from inference.survey.dataset import Batch, cell_coverage
from inference.survey.estimates import given
from inference.survey.progress import Progress
from inference.survey.records import OutputPaths, note_failure
from inference.survey.scores import ScoreMap, to_fits
from inference.survey.windows import WindowPlan, WindowShape

log = logging.getLogger(__name__)

Correction = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Product:
    """How scores become files.

    Args:
        paths: Names of the files.
        windows: Size and step of windows.
        blend: See `Mosaic`.
        correct: Moves probabilities to another prevalence, or None.
        rule: What counts as a candidate.
        meta: CKPTSHA, RUNHASH and VERSION.
        hashes: TILEHASH of every survey tile.
        mtimes_ns: When the files of every survey tile were changed; see `Tile`.
    """

    paths: OutputPaths
    windows: WindowShape
    blend: str
    correct: Correction | None
    rule: CandidateRule
    meta: Mapping[str, str]
    hashes: Mapping[str, str]
    mtimes_ns: Mapping[str, tuple[int, ...]]


@dataclass
class OpenTile:
    """A survey tile whose windows are still arriving.

    Args:
        mosaic: Scores and, as further planes, the `estimates`.
        plan: The windows.
        estimates: What the encoder gives besides scores; see `estimates.ESTIMATES`.
        seconds_wait: How long its windows were waited for.
        seconds_predict: How long they were computed with, and their scores put together.
        footer: What the last batch of the survey tile says about it; see `WindowDataset`.
    """

    mosaic: Mosaic
    plan: WindowPlan
    estimates: tuple[str, ...]
    seconds_wait: float = 0.0
    seconds_predict: float = 0.0
    footer: dict[str, Any] | None = None


@dataclass(frozen=True)
class TileReport:
    """What there is to say of a survey tile of which all windows have arrived.

    Args:
        windows: Their number.
        seconds_read: How long they were read, in part ahead of their turn.
        seconds_wait: How long they were waited for.
        seconds_predict: How long they were computed with, and their scores put together.
        masked_fraction: Share of its pixels that are masked in any band.
        candidates: Their number, or None if the encoder gave no scores.
    """

    windows: int
    seconds_read: float
    seconds_wait: float
    seconds_predict: float
    masked_fraction: float
    candidates: int | None

    def scalars(self) -> dict[str, float]:
        """Return what loggers get."""
        seconds = max(self.seconds_wait + self.seconds_predict, 1e-9)
        return {
            "windows_per_s": self.windows / seconds,
            "seconds_read": self.seconds_read,
            "seconds_predict": self.seconds_predict,
            "wait_share": self.seconds_wait / seconds,
            "masked_fraction": self.masked_fraction,
            "candidates": self.candidates or 0,
        }


class TileWriter(Callback):
    """Writes scores, catalogue and record of a survey tile when its last window has arrived.

    Args:
        product: What to write and where.
        n_threads: CPU threads of this rank.
        is_compiled: Whether to compile the encoder.
    """

    def __init__(self, product: Product, n_threads: int, is_compiled: bool = False) -> None:
        self._product = product
        self._n_threads = n_threads
        self._is_compiled = is_compiled
        self._open: dict[str, OpenTile] = {}
        self._progress = Progress(0, "predict", is_shown=False)
        self._n_tiles = self._n_ended = self._n_failed = 0
        self._started = self._batch_began = self._batch_ended = 0.0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fix the number of threads and begin to count."""
        # Launchers divide the cores among ranks, and sums depend on the number of threads.
        torch.set_num_threads(self._n_threads)
        if self._is_compiled:
            # In the rank itself: what is compiled cannot be sent to another process.
            pl_module.compile_network()  # type: ignore[operator] # of our encoders
        data = getattr(trainer, "datamodule")  # noqa: B009 - typed as a plain module
        self._n_tiles = data.n_tiles
        ranks = f", rank 0 of {trainer.world_size}" if trainer.world_size > 1 else ""
        self._progress = Progress(self._n_tiles, f"predict{ranks}", is_shown=trainer.is_global_zero)
        self._started = self._batch_ended = time.perf_counter()

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note when a batch has arrived."""
        self._batch_began = time.perf_counter()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the scores of a batch; save the survey tile if it is complete."""
        for given_up in batch["given_up"]:
            self._open.pop(given_up, None)
            self._end(given_up, failed=True)
        name = batch["tile"]
        tile = self._open.get(name)
        if tile is None:
            plan = WindowPlan(tuple(batch["tile_shape"]), self._product.windows)
            mosaic = Mosaic(plan, self._product.blend)
            tile = self._open[name] = OpenTile(mosaic, plan, given(outputs))
        tile.seconds_wait += self._batch_began - self._batch_ended
        # The loop keeps the batch while the next one is read: its memory could not be used again.
        batch["images"].set_()
        planes = torch.stack([outputs[key] for key in ("scores", *tile.estimates)], dim=1)
        windows = planes.float().cpu().numpy()
        for number, window in zip(batch["windows"], windows, strict=True):
            tile.mosaic.add(int(number), window)
        if batch["footer"] is not None:
            tile.footer = batch["footer"]
        self._batch_ended = time.perf_counter()
        tile.seconds_predict += self._batch_ended - self._batch_began
        self._progress.add(name, len(batch["windows"]), len(tile.plan.starts))
        if tile.mosaic.is_complete:
            del self._open[name]
            self._finish(name, tile, trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the other ranks, so that the first one finds all results."""
        # Survey tiles that proved to be damaged when no batch followed.
        for name in [*self._open, *[""] * (self._n_tiles - self._n_ended - len(self._open))]:
            self._end(name, failed=True)
        self._open.clear()
        self._progress.close()
        self._log(trainer, {"failed_tiles": self._n_failed})
        trainer.strategy.barrier("all survey tiles predicted")

    def _finish(self, name: str, tile: OpenTile, trainer: Trainer) -> None:
        report = save_tile(name, tile, self._product, trainer.global_rank)
        self._end(name, failed=report.candidates is None)
        # What was done after the last batch is not waiting.
        self._batch_ended = time.perf_counter()
        rate = self._n_ended / (self._batch_ended - self._started)
        counts = {"tiles_per_s": rate, "failed_tiles": self._n_failed}
        self._log(trainer, {**report.scalars(), **counts})

    def _end(self, name: str, failed: bool) -> None:
        self._n_ended += 1
        self._n_failed += failed
        self._progress.end(name)

    def _log(self, trainer: Trainer, values: Mapping[str, float]) -> None:
        """Give scalars to the loggers, if there are any; they write on the first rank only."""
        for logger in trainer.loggers:
            try:
                named = {f"predict/{key}": float(value) for key, value in values.items()}
                logger.log_metrics(named, self._n_ended)
            except OSError as error:
                # Scalars are for people to watch; results are what the run is for.
                log.warning("cannot log scalars: %s", error)


def save_tile(name: str, tile: OpenTile, product: Product, rank: int) -> TileReport:
    """Write results and record of a survey tile; the score map last: it makes the tile count.

    A survey tile with values that are not finite has no results: it is noted as failed.
    """
    begin = time.perf_counter()
    scores = score_map(name, tile, product)
    reason = _problem(scores)
    if reason:
        note_failure(product.paths, name, reason)
        return report(tile, scores, None, begin)
    table = find_candidates(scores, product.rule)
    catalog, image = to_ecsv(table).encode(), to_fits(scores)
    files.write_bytes(product.paths.candidates(name), catalog)
    found = report(tile, scores, len(table), begin)
    record = {
        "tile": name,
        **{key: round(value, 6) for key, value in dataclasses.asdict(found).items()},
        "status": "done",
        "shape": list(tile.plan.tile_shape),
        "rank": rank,
        "mtimes_ns": list(product.mtimes_ns[name]),
        "result_bytes": [len(image), len(catalog)],
    }
    write_record(product.paths, name, record)
    files.write_bytes(product.paths.scores(name), image)
    return found


def report(tile: OpenTile, scores: ScoreMap, candidates: int | None, begin: float) -> TileReport:
    """Return what there is to say of a survey tile, whose scores came together at `begin` [s]."""
    assert tile.footer is not None
    masked = float(np.average(scores.mask_fraction, weights=scores.coverage))
    seconds = tile.seconds_predict + time.perf_counter() - begin
    times = (tile.footer["read_seconds"], tile.seconds_wait, seconds)
    return TileReport(len(tile.plan.starts), *times, masked, candidates)


def score_map(name: str, tile: OpenTile, product: Product) -> ScoreMap:
    """Return the blended planes of a complete survey tile."""
    assert tile.footer is not None
    planes = tile.mosaic.result()
    if product.correct is not None:
        planes[0] = product.correct(planes[0])
    mask_fraction = tile.footer["mask_fraction"]
    score, *more = np.where(mask_fraction < 1, planes, np.float32(np.nan))
    height, width = tile.plan.tile_shape
    meta: dict[str, str | int | float] = {
        "TILE": name,
        "CELL_PX": product.windows.cell_px,
        "NPIX_X": width,
        "NPIX_Y": height,
        "THRESH": product.rule.threshold,
        "NWINDOWS": len(tile.plan.starts),
        "TILEHASH": product.hashes[name],
        **product.meta,
    }
    estimates = dict(zip(tile.estimates, more, strict=True))
    cards = tile.footer["cards"]
    return ScoreMap(score, cell_coverage(tile.plan), mask_fraction, cards, meta, estimates)


def _problem(scores: ScoreMap) -> str:
    """Return why a score map is no result; nothing if it is one."""
    was_seen = scores.mask_fraction < 1
    for name, plane in {"score": scores.score, **scores.estimates}.items():
        is_error = name.endswith("_error")
        is_good = np.isfinite(plane) & (plane > 0 if is_error else True)
        n_lost = int((was_seen & ~is_good).sum())
        if n_lost:
            kind = f"finite {name} above 0" if is_error else f"finite {name}"
            return f"the encoder gave no {kind} for {n_lost} of {plane.size} cells"
    return ""
