"""Cuts survey tiles into windows just in time; each rank and worker has its own tiles."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from datagen.errors import DataFormatError
from datagen.tiles.listing import Tile, shard
from datagen.tiles.sections import strips
from datagen.tiles.survey import SurveySettings
from inference.survey.buffers import Buffers, read_ahead
from inference.survey.masking import MaskCount
from inference.survey.opening import OpenedTile, TileQueue
from inference.survey.reading import TileReader, open_tile
from inference.survey.records import OutputPaths, note_failure
from inference.survey.windows import WindowPlan, WindowShape

Batch = dict[str, Any]


@dataclass(frozen=True)
class TileSource:
    """All that is needed to read survey tiles in another process.

    Args:
        survey: How they are stored.
        zero_point: Zero point of the encoder [mag].
        windows: Size and step of windows.
        batch_size: Windows in a batch.
        paths: Where failures are noted.
        prefetch: Batches that a thread reads ahead.
        is_pinned: Whether batches lie where a GPU can fetch them by itself.
    """

    survey: SurveySettings
    zero_point: float
    windows: WindowShape
    batch_size: int
    paths: OutputPaths
    prefetch: int = 0
    is_pinned: bool = False


class WindowDataset(IterableDataset[Batch]):
    """Yields whole batches of windows; no batch holds windows of two survey tiles.

    What a batch holds depends on the survey tile and the batch size alone, never on ranks or
    workers. A survey tile that cannot be read is noted and left out; if it turns out on the way,
    the next batch says so. Keys of a batch:
        images: float32 (B, C, h, w) [counts]; masked and padded pixels hold the background. The
            memory is used again when nobody refers to it any more.
        background, sigma: float32 (B, C) [counts], the same for the whole survey tile.
        tile: its name; windows: numbers of the windows in `WindowPlan.starts`; tile_shape (H, W).
        footer: None, but in the last batch of a survey tile what is known about it: WCS cards,
            mask fraction of each cell, seconds.
        given_up: names of survey tiles of which there were batches, but will be no more.

    Args:
        source: How to read.
        tiles: The tiles of this rank.
    """

    def __init__(self, source: TileSource, tiles: Sequence[Tile]) -> None:
        super().__init__()
        self._source = source
        self._tiles = list(tiles)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        rank, world = (0, 1) if worker is None else (worker.id, worker.num_workers)
        queue = TileQueue(
            shard(self._tiles, rank, world), self._open, self._source.windows.window_px
        )
        return read_ahead(self._batches(queue), self._source.prefetch, queue.work_ahead)

    def _batches(self, queue: TileQueue) -> Generator[Batch]:
        buffers = Buffers(self._source.is_pinned)
        given_up: list[str] = []
        with contextlib.closing(queue):
            while (opened := queue.take()) is not None:
                try:
                    for batch in tile_batches(opened, self._source, buffers):
                        batch["given_up"], given_up = given_up, []
                        yield batch
                        # The frame of a generator would keep it while the next one is made.
                        del batch
                except DataFormatError as error:
                    note_failure(self._source.paths, opened.name, str(error))
                    given_up.append(opened.name)

    def _open(self, tile: Tile) -> TileReader:
        return open_tile(tile, self._source.survey, self._source.zero_point)


def tile_batches(opened: OpenedTile, source: TileSource, buffers: Buffers) -> Iterator[Batch]:
    """Yield the batches of one survey tile, its windows in the order of the plan.

    Raises:
        DataFormatError: The survey tile could not be opened, or is damaged where it is read.
    """
    reader = opened.reader
    plan = WindowPlan(reader.shape, source.windows)
    starts, mask = plan.starts, MaskCount(plan)
    shape = (source.batch_size, len(reader.background), *plan.window_shape)
    for first in range(0, len(starts), source.batch_size):
        begin = time.perf_counter()
        numbers = list(range(first, min(first + source.batch_size, len(starts))))
        levels = [np.repeat(a[None], len(numbers), 0) for a in (reader.background, reader.sigma)]
        batch: Batch = {
            "images": buffers.lend(shape, len(numbers)),
            "background": torch.from_numpy(levels[0]),
            "sigma": torch.from_numpy(levels[1]),
            "tile": opened.name,
            "windows": numbers,
            "tile_shape": reader.shape,
            "footer": None,
        }
        cut(reader, plan, [starts[n] for n in numbers], batch["images"].numpy(), mask)
        reader.forget(*plan.passed(numbers[-1]))
        opened.seconds += time.perf_counter() - begin
        if numbers[-1] == len(starts) - 1:
            batch["footer"] = {
                "cards": dict(reader.cards),
                "mask_fraction": mask.fraction(),
                "read_seconds": opened.seconds,
            }
        yield batch
        del batch


def cut(
    reader: TileReader,
    plan: WindowPlan,
    starts: Sequence[tuple[int, int]],
    out: NDArray[np.float32] | None = None,
    mask: MaskCount | None = None,
) -> NDArray[np.float32]:
    """Return the windows at `starts`, shape (B, C, h, w) [counts].

    Padding and masked pixels hold the background, which the encoder sees as zero.

    Args:
        reader: The survey tile.
        plan: Its windows.
        starts: First (row, column) of each window [px].
        out: Where to put them, or None.
        mask: Counts the masked pixels, or None.
    """
    if out is None:
        out = np.empty((len(starts), len(reader.background), *plan.window_shape), np.float32)
    for window, (row, column) in zip(out, starts, strict=True):
        rows = slice(row, min(row + window.shape[1], plan.tile_shape[0]))
        columns = slice(column, min(column + window.shape[2], plan.tile_shape[1]))
        height, width = rows.stop - row, columns.stop - column
        reader.read(rows, columns, window[:, :height, :width])
        for image, level in zip(window, reader.background, strict=True):
            image[height:] = level
            image[:height, width:] = level
        for first, masked in _replace_masked(window[:, :height, :width], reader.background):
            if mask is not None:
                mask.add((row, column), first, masked)
    return out


def cell_coverage(plan: WindowPlan) -> NDArray[np.float32]:
    """Return which fraction of each cell lies on the survey tile, shape `plan.grid_shape`."""
    cell = plan.shape.cell_px
    axes = [
        np.minimum(length - np.arange(n) * cell, cell) / cell
        for length, n in zip(plan.tile_shape, plan.grid_shape, strict=True)
    ]
    return np.outer(axes[0], axes[1]).astype(np.float32)


def _replace_masked(
    window: NDArray[np.float32], background: NDArray[np.float32]
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Put the background where a band is masked.

    Yields:
        Of each few rows with such pixels the first one, and where any band is masked.
    """
    for rows in strips(window.shape[1]):
        masked: NDArray[np.bool_] | None = None
        for image, level in zip(window, background, strict=True):
            lost = ~np.isfinite(image[rows])
            if lost.any():
                np.copyto(image[rows], level, where=lost)
                masked = lost if masked is None else masked | lost
        if masked is not None:
            yield rows.start, masked
