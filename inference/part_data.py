"""Gives each rank the items of its parts, in batches that do not depend on ranks or workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from datagen.errors import DataFormatError, DataNotFoundError
from inference.ranks import RankData

if TYPE_CHECKING:
    from inference.part_run import PartRun

Batch = dict[str, Any]
Problems = dict[int, str]


class Part(Protocol):
    """Items, such as images, that one rank predicts on one after the other, into one file.

    Args:
        name: Name of the results.
        ids: What the table calls each file.
        sizes: Of each file [bytes].
        mtimes_ns: When each of them was changed.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def ids(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def sizes(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def mtimes_ns(self) -> tuple[int, ...]: ...  # noqa: D102

    def content_hash(self, run_hash: str) -> str:
        """Return what identifies the result: checkpoint, settings, names and sizes of the input."""

    def item_id(self, row: int) -> str:
        """Return what the table calls one item."""

    def note(self) -> dict[str, Any]:
        """Return what the manifest says of the part besides sizes and counts."""


class Truth(Protocol):
    """What is known of items; a frozen dataclass of arrays."""

    def take(self, rows: NDArray[np.int64]) -> Truth:
        """Return what is known of some rows."""


class PartReader(Protocol):
    """The items of a part that are wanted."""

    rows: NDArray[np.int64]

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], Problems]:
        """Return the pixels of some items, shape (n, C, side, side), and what is wrong with some.

        An item that is no use is zero, so that the others keep their places.
        """

    def truth(self) -> Truth:
        """Return what is known of the items in `rows`."""


OpenPart = Callable[[Any], PartReader]


@dataclass(frozen=True)
class Batches:
    """How parts become batches.

    Args:
        open_part: Opens a part; raises `DataFormatError` if nothing in it is of use.
        shape: Of the pixels of an item, (C, side, side).
        size: Items in a batch.
    """

    open_part: OpenPart
    shape: tuple[int, int, int]
    size: int


class PartData(RankData):
    """Gives each rank its parts.

    Args:
        run: The prediction.
    """

    def __init__(self, run: PartRun) -> None:
        super().__init__(run)
        self._run = run

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of this rank's items."""
        trainer = self.trainer
        assert trainer is not None
        return DataLoader(
            PartDataset(self.units, self._run.batches()),
            batch_size=None,
            num_workers=self._run.settings.num_workers,
            collate_fn=_as_is,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )


class PartDataset(IterableDataset[Batch]):
    """Yields batches of items; no batch holds items of two parts.

    An item has a fixed place in a fixed batch, whatever is wrong with others. Keys of a batch:
        pixels: float32 (B, C, side, side); zero where an item is no use.
        part: name of the part; rows: where the items stand in it.
        problems: rows of the part that are no use -> reasons.
        truth: empty, but in the last batch of a part the fields of `Truth` for all its rows.
        failure: why the whole part is no use; empty if it is. Such a part has one batch, without
            items.

    Args:
        parts: The parts of this rank.
        batches: How they become batches.
    """

    def __init__(self, parts: Sequence[Part], batches: Batches) -> None:
        super().__init__()
        self._parts = list(parts)
        self._how = batches

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        mine = self._parts if worker is None else self._parts[worker.id :: worker.num_workers]
        for part in mine:
            try:
                yield from self._batches(part)
            except (DataFormatError, DataNotFoundError) as error:
                nothing = torch.zeros(0, *self._how.shape)
                yield self._batch(part, nothing, failure=str(error))

    def _batches(self, part: Part) -> Iterator[Batch]:
        reader, size = self._how.open_part(part), self._how.size
        n_items = len(reader.rows)
        for first in range(0, max(n_items, 1), size):
            rows = reader.rows[first : first + size]
            pixels, problems = reader.read(rows)
            is_last = first + size >= n_items
            # Lightning would take a frozen object apart to move it to the device.
            truth = vars(reader.truth()) if is_last else {}
            content = {"rows": rows, "problems": problems, "truth": truth}
            yield self._batch(part, torch.from_numpy(pixels), **content)

    def _batch(self, part: Part, pixels: Tensor, **content: Any) -> Batch:  # noqa: ANN401 - of any kind
        rest: Batch = {"rows": [], "problems": {}, "truth": {}, "failure": ""}
        return {"pixels": pixels, "part": part.name, **rest, **content}


def blank_bad(pixels: NDArray[np.float32], rows: NDArray[np.int64]) -> Problems:
    """Make items with values that are not finite zero, and return them with their rows."""
    counts = (~np.isfinite(pixels)).sum(axis=(1, 2, 3))
    pixels[counts > 0] = 0
    return {
        int(rows[n]): f"{counts[n]} of {pixels[n].size} values are NaN or infinite"
        for n in np.flatnonzero(counts).tolist()
    }


def look_at(paths: Sequence[Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return sizes [bytes] and times [ns] of files; -1 for one that cannot be looked at."""
    found = []
    for path in paths:
        try:
            status = path.stat()
            found.append((status.st_size, status.st_mtime_ns))
        except OSError:
            found.append((-1, -1))
    sizes, times = zip(*found, strict=True)
    return sizes, times


def _as_is(batch: Any) -> Any:  # noqa: ANN401 - torch's signature
    """Keep a batch as the dataset made it; the default would turn arrays into tensors."""
    return batch
