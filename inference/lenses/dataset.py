"""Gives each rank the images of its parts, in batches that do not depend on ranks or workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from datagen.errors import DataFormatError, DataNotFoundError
from inference.lenses.listing import Part
from inference.lenses.reading import Expected, open_part
from inference.ranks import RankData

if TYPE_CHECKING:
    from inference.lenses.run import LensRun

Batch = dict[str, Any]


class LensData(RankData):
    """Gives each rank its parts.

    Args:
        run: The prediction.
    """

    def __init__(self, run: LensRun) -> None:
        super().__init__(run)
        self._run = run

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of this rank's images."""
        trainer = self.trainer
        assert trainer is not None
        settings = self._run.settings
        return DataLoader(
            PartDataset(self.units, self._run.expected, settings.batch_size),
            batch_size=None,
            num_workers=settings.num_workers,
            collate_fn=_as_is,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )


class PartDataset(IterableDataset[Batch]):
    """Yields batches of images; no batch holds images of two parts.

    An image has a fixed place in a fixed batch, whatever is wrong with others. Keys of a batch:
        images: float32 (B, C, side, side); zero where an image is no use.
        part: name of the part; rows: where the images stand in it.
        problems: rows of the part that are no use -> reasons.
        truth: empty, but in the last batch of a part the fields of `Truth` for all its rows.
        failure: why the whole part is no use; empty if it is. Such a part has one batch, without
            images.

    Args:
        parts: The parts of this rank.
        expected: What the encoder asks of images.
        batch_size: Images in a batch.
    """

    def __init__(self, parts: Sequence[Part], expected: Expected, batch_size: int) -> None:
        super().__init__()
        self._parts = list(parts)
        self._expected = expected
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        mine = self._parts if worker is None else self._parts[worker.id :: worker.num_workers]
        for part in mine:
            try:
                yield from self._batches(part)
            except (DataFormatError, DataNotFoundError) as error:
                nothing = torch.zeros(0, *self._expected.shape)
                yield self._batch(part, nothing, failure=str(error))

    def _batches(self, part: Part) -> Iterator[Batch]:
        reader = open_part(part, self._expected)
        n_images = len(reader.rows)
        for first in range(0, max(n_images, 1), self._batch_size):
            rows = reader.rows[first : first + self._batch_size]
            images, problems = reader.read(rows)
            is_last = first + self._batch_size >= n_images
            # Lightning would take a frozen object apart to move it to the device.
            truth = vars(reader.truth()) if is_last else {}
            content = {"rows": rows, "problems": problems, "truth": truth}
            yield self._batch(part, torch.from_numpy(images), **content)

    def _batch(self, part: Part, images: Tensor, **content: Any) -> Batch:  # noqa: ANN401 - of any kind
        rest: Batch = {"rows": [], "problems": {}, "truth": {}, "failure": ""}
        return {"images": images, "part": part.name, **rest, **content}


def _as_is(batch: Any) -> Any:  # noqa: ANN401 - torch's signature
    """Keep a batch as the dataset made it; the default would turn arrays into tensors."""
    return batch
