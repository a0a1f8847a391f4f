"""Cuts survey tiles into windows just in time; each rank and worker has its own tiles."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from datagen.errors import DataFormatError
from inference.survey.reading import TileReader, WholeTileReader
from inference.survey.records import OutputPaths, note_failure
from inference.survey.settings import SurveySettings
from inference.survey.tiles import Tile, shard
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
    """

    survey: SurveySettings
    zero_point: float
    windows: WindowShape
    batch_size: int
    paths: OutputPaths


class WindowDataset(IterableDataset[Batch]):
    """Yields whole batches of windows; no batch holds windows of two survey tiles.

    What a batch holds depends on the survey tile and the batch size alone, never on ranks or
    workers. A survey tile that cannot be read is noted and left out. Keys of a batch:
        images: float32 (B, C, h, w) [counts]; masked and padded pixels hold the background.
        background, sigma: float32 (B, C) [counts], the same for the whole survey tile.
        tile: its name; windows: numbers of the windows in `WindowPlan.starts`; tile_shape (H, W).
        footer: None, but in the last batch of a survey tile what is known about it: WCS cards,
            mask fraction of each cell, seconds.

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
        for tile in shard(self._tiles, rank, world):
            start = time.perf_counter()
            try:
                reader = WholeTileReader(tile, self._source.survey, self._source.zero_point)
            except DataFormatError as error:
                note_failure(self._source.paths, tile.name, str(error))
                continue
            yield from tile_batches(reader, tile.name, self._source, time.perf_counter() - start)
            # Two tiles at once would double the memory.
            del reader


def tile_batches(
    reader: TileReader, name: str, source: TileSource, read_seconds: float
) -> Iterator[Batch]:
    """Yield the batches of one survey tile, its windows in the order of the plan."""
    plan = WindowPlan(reader.shape, source.windows)
    starts = plan.starts
    for first in range(0, len(starts), source.batch_size):
        numbers = list(range(first, min(first + source.batch_size, len(starts))))
        is_last = numbers[-1] == len(starts) - 1
        levels = [np.repeat(a[None], len(numbers), 0) for a in (reader.background, reader.sigma)]
        yield {
            "images": torch.from_numpy(cut(reader, plan, [starts[n] for n in numbers])),
            "background": torch.from_numpy(levels[0]),
            "sigma": torch.from_numpy(levels[1]),
            "tile": name,
            "windows": numbers,
            "tile_shape": reader.shape,
            "footer": _footer(reader, plan, read_seconds) if is_last else None,
        }


def cut(
    reader: TileReader, plan: WindowPlan, starts: Sequence[tuple[int, int]]
) -> NDArray[np.float32]:
    """Return the windows at `starts`, shape (B, C, h, w) [counts].

    Padding and masked pixels hold the background, which the encoder sees as zero.
    """
    height, width = plan.window_shape
    bands = len(reader.background)
    windows = np.empty((len(starts), bands, height, width), np.float32)
    for window, (row, column) in zip(windows, starts, strict=True):
        part = reader.section(slice(row, row + height), slice(column, column + width))
        for image, pixels, level in zip(window, part, reader.background, strict=True):
            image.fill(level)
            rows, columns = pixels.shape
            np.copyto(image[:rows, :columns], pixels, where=np.isfinite(pixels))
    return windows


def cell_coverage(plan: WindowPlan) -> NDArray[np.float32]:
    """Return which fraction of each cell lies on the survey tile, shape `plan.grid_shape`."""
    cell = plan.shape.cell_px
    axes = [
        np.minimum(length - np.arange(n) * cell, cell) / cell
        for length, n in zip(plan.tile_shape, plan.grid_shape, strict=True)
    ]
    return np.outer(axes[0], axes[1]).astype(np.float32)


def cell_mask_fraction(reader: TileReader, plan: WindowPlan) -> NDArray[np.float32]:
    """Return which fraction of each cell's pixels is masked in any band, `plan.grid_shape`."""
    cell = plan.shape.cell_px
    rows, columns = plan.grid_shape
    result = np.empty((rows, columns), np.float32)
    edges = np.arange(columns) * cell
    for row in range(rows):
        strip = reader.section(slice(row * cell, (row + 1) * cell), slice(None))
        bad = ~np.isfinite(strip).all(axis=0)
        masked = np.add.reduceat(bad.sum(axis=0), edges)
        n_pixels = bad.shape[0] * np.minimum(plan.tile_shape[1] - edges, cell)
        result[row] = masked / n_pixels
    return result


def _footer(reader: TileReader, plan: WindowPlan, read_seconds: float) -> dict[str, Any]:
    return {
        "cards": dict(reader.cards),
        "mask_fraction": cell_mask_fraction(reader, plan),
        "read_seconds": read_seconds,
    }
