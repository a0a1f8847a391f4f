"""Gives each rank the windows of its survey tiles, on its device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from inference.ranks import RankData
from inference.survey.dataset import Batch, WindowDataset
from inference.survey.transfer import copied_ahead

if TYPE_CHECKING:
    from inference.survey.run import SurveyRun

_MORE_THAN_ANY_SURVEY = 1 << 40


class SurveyData(RankData):
    """Gives each rank its survey tiles.

    Args:
        run: The prediction.
    """

    def __init__(self, run: SurveyRun) -> None:
        super().__init__(run)
        self._run = run

    @property
    def n_tiles(self) -> int:
        """Number of survey tiles of this rank."""
        return len(self.units)

    def predict_dataloader(self) -> WindowLoader:
        """Return the loader of this rank's windows, in whole batches."""
        trainer = self.trainer
        assert trainer is not None
        device, n_workers = trainer.strategy.root_device, self._run.settings.num_workers
        # Loader processes do not know the GPU: what they read is pinned here.
        is_pinned = device.type == "cuda" and n_workers == 0
        source = replace(self._run.source(), is_pinned=is_pinned)
        return WindowLoader(WindowDataset(source, self.units), n_workers, device)


class WindowLoader:
    """Yields the batches of a dataset and claims a length that it never reaches.

    Without a length, Lightning holds one more batch in memory, to know which is the last one.

    Args:
        dataset: The windows of this rank.
        num_workers: Loader processes; 0 reads in this one.
        device: Where batches shall be.
    """

    def __init__(self, dataset: WindowDataset, num_workers: int, device: torch.device) -> None:
        self._dataset = dataset
        self._num_workers = num_workers
        self._device = device

    def __len__(self) -> int:
        return _MORE_THAN_ANY_SURVEY

    def __iter__(self) -> Iterator[Batch]:
        is_gpu = self._device.type == "cuda"
        batches = DataLoader(
            self._dataset,
            batch_size=None,
            num_workers=self._num_workers,
            collate_fn=_as_is,
            # What waits lies in shared memory, of which containers have little.
            prefetch_factor=1 if self._num_workers else None,
            pin_memory=is_gpu and self._num_workers > 0,
        )
        return copied_ahead(batches, self._device) if is_gpu else iter(batches)


def _as_is(batch: Any) -> Any:  # noqa: ANN401 - torch's signature
    """Keep a batch as the dataset made it; the default would turn arrays into tensors."""
    return batch
