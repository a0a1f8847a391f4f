"""Loaders of the three splits of datasets that answer with whole batches."""

from __future__ import annotations

import dataclasses
from typing import Any

from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datagen.errors import ConfigError
from encoders.data import LoaderOptions, as_it_is, make_loader


class SplitLoaders(LightningDataModule):
    """Loaders whose datasets answer `__getitems__` with whole batches.

    Args:
        options: Batch size, workers and seed; the trainer tells the place of this process.
        n_per_item: Images that one item of a dataset stands for.
    """

    # Whether a last training batch that is not whole is left out.
    drops_last = False

    def __init__(self, options: LoaderOptions, n_per_item: int = 1) -> None:
        super().__init__()
        self.options, self.n_per_item = options, n_per_item

    def dataset(self, split: str) -> Dataset[dict[str, Tensor]]:
        """Return what a split holds: train, val or test."""
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled training images."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        """Return validation images in order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Return test images in order, or nothing if there are none."""
        return self._loader("test") if len(self.dataset("test")) else []  # type: ignore[arg-type]

    def _loader(self, split: str) -> DataLoader[Any]:
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        options = dataclasses.replace(
            self.options,
            batch_size=self.options.batch_size // self.n_per_item,
            rank=rank,
            world_size=world_size,
        )
        return make_loader(
            self.dataset(split),
            options,
            split == "train",
            collate=as_it_is,
            leaves_single=self.n_per_item == 1,
            drops_last=self.drops_last and split == "train",
        )


def check_count(name: str, count: int | None) -> None:
    """Raise `ConfigError` unless a count of `data` is None or >= 1."""
    if count is not None and count < 1:
        raise ConfigError(f"expected data.{name} >= 1 or null, but got {name} = {count}", count)
