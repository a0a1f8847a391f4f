"""Collects scores while a prediction runs and saves each survey tile as soon as it is complete."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from tqdm import tqdm

from datagen import files
from inference.survey.blending import Mosaic
from inference.survey.candidates import CandidateRule, find_candidates, to_ecsv, to_regions
from inference.survey.dataset import Batch, cell_coverage
from inference.survey.estimates import given
from inference.survey.records import OutputPaths, note_failure, write_record
from inference.survey.scores import ScoreMap, to_fits
from inference.survey.windows import WindowPlan, WindowShape

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
        regions: Whether to write DS9 regions as well.
        meta: CKPTSHA, RUNHASH and VERSION.
        hashes: TILEHASH of every survey tile.
        mtimes_ns: When the files of every survey tile were changed; see `Tile`.
    """

    paths: OutputPaths
    windows: WindowShape
    blend: str
    correct: Correction | None
    rule: CandidateRule
    regions: bool
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
        started: When the first window arrived [s].
        footer: What the last batch of the survey tile says about it.
    """

    mosaic: Mosaic
    plan: WindowPlan
    estimates: tuple[str, ...]
    started: float
    footer: dict[str, Any] | None = None


class TileWriter(Callback):
    """Writes scores, catalogue and record of a survey tile when its last window has arrived.

    Args:
        product: What to write and where.
        n_threads: CPU threads of this rank.
    """

    def __init__(self, product: Product, n_threads: int) -> None:
        self._product = product
        self._n_threads = n_threads
        self._open: dict[str, OpenTile] = {}
        self._progress: Any = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fix the number of threads and open the progress bar."""
        # Launchers divide the cores among ranks, and sums depend on the number of threads.
        torch.set_num_threads(self._n_threads)
        total = getattr(trainer, "datamodule").n_tiles  # noqa: B009 - typed as a plain module
        hidden = not trainer.is_global_zero
        self._progress = tqdm(total=total, unit="tile", desc="predict", disable=hidden)

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
        name = batch["tile"]
        tile = self._open.get(name)
        if tile is None:
            plan = WindowPlan(tuple(batch["tile_shape"]), self._product.windows)
            mosaic = Mosaic(plan, self._product.blend)
            tile = OpenTile(mosaic, plan, given(outputs), time.perf_counter())
            self._open[name] = tile
        # The loop keeps the batch while the next one is read: its memory could not be used again.
        batch["images"].set_()
        planes = torch.stack([outputs[key] for key in ("scores", *tile.estimates)], dim=1)
        windows = planes.float().cpu().numpy()
        for number, window in zip(batch["windows"], windows, strict=True):
            tile.mosaic.add(int(number), window)
        if batch["footer"] is not None:
            tile.footer = batch["footer"]
        if tile.mosaic.is_complete:
            del self._open[name]
            self._finish(name, tile, trainer.global_rank)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the other ranks, so that the first one finds all results."""
        # Survey tiles that proved to be damaged when no batch followed.
        self._open.clear()
        self._progress.close()
        trainer.strategy.barrier("all survey tiles predicted")

    def _finish(self, name: str, tile: OpenTile, rank: int) -> None:
        seconds = save_tile(name, tile, self._product, rank)
        rate = len(tile.plan.starts) / max(seconds, 1e-9)
        self._progress.set_postfix_str(f"{name}, {rate:.1f} windows/s", refresh=False)
        self._progress.update()


def save_tile(name: str, tile: OpenTile, product: Product, rank: int) -> float:
    """Write results and record of a survey tile; the score map last: it makes the tile count.

    A survey tile with values that are not finite has no results: it is noted as failed.

    Returns:
        Seconds since the first window arrived.
    """
    scores = score_map(name, tile, product)
    reason = _problem(scores)
    if reason:
        note_failure(product.paths, name, reason)
        return time.perf_counter() - tile.started
    table = find_candidates(scores, product.rule)
    if product.regions:
        files.write_text(product.paths.regions(name), to_regions(table))
    catalog, image = to_ecsv(table).encode(), to_fits(scores)
    files.write_bytes(product.paths.candidates(name), catalog)
    assert tile.footer is not None
    seconds = time.perf_counter() - tile.started
    record = {
        "status": "done",
        "shape": list(tile.plan.tile_shape),
        "windows": len(tile.plan.starts),
        "rank": rank,
        "seconds_read": round(tile.footer["read_seconds"], 3),
        "seconds_predict": round(seconds, 3),
        "mtimes_ns": list(product.mtimes_ns[name]),
        "result_bytes": [len(image), len(catalog)],
    }
    write_record(product.paths, name, record)
    files.write_bytes(product.paths.scores(name), image)
    return seconds


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
