"""Maps of halos as batches, split by halo.

The steps from folders to a training set stand in `sets`, `collection`, `splits` and `inputs`.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datagen.errors import ConfigError, DataFormatError
from datagen.files import content_hash
from encoders.data import FILLER, LoaderOptions, check_splits
from encoders.halos.collection import Halos, open_halos
from encoders.halos.inputs import first_negative, fit_inputs, kinds_of
from encoders.halos.sets import HELD_OUT, Numbers, parse_sets
from encoders.halos.splits import Ids, check_ids, deal_ids, numbers_of
from encoders.loaders import SplitLoaders, check_count

log = logging.getLogger(__name__)

TASK = "halos"
Batch = dict[str, Tensor]


class HalosDataset(Dataset[Batch]):
    """Some maps of a collection; a request for several of them is answered with a batch.

    The index `FILLER` gives a map with weight 0 (see `encoders.data.OnceSampler`).

    Args:
        halos: The collection.
        numbers: Which of its maps (n,).
        kinds: Transforms of the channels, which say whether a pixel may be negative.
        in_memory: Answer with places instead of maps, which `with_maps` looks up on a device.
    """

    def __init__(
        self, halos: Halos, numbers: Numbers, kinds: Sequence[str], in_memory: bool
    ) -> None:
        self.halos, self.numbers, self.kinds = halos, numbers, list(kinds)
        self.in_memory = in_memory
        self._on_device: dict[torch.device, Tensor] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Batch:
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return a batch: maps (B, C, H, H), or their places, and what is known of them (B,)."""
        wanted = np.asarray(indices)
        places = np.where(wanted == FILLER, 0, wanted)
        numbers, halos = self.numbers[places], self.halos
        maps = (
            {"place": torch.from_numpy(places)} if self.in_memory else {"maps": self.read(places)}
        )
        return maps | {
            "class": torch.from_numpy(halos.labels[numbers]),
            "target": torch.from_numpy(halos.targets[numbers].astype(np.float32)),
            "weight": torch.from_numpy((wanted != FILLER).astype(np.float32)),
            "index": torch.from_numpy(halos.index[numbers]),
            "cluster": torch.from_numpy(halos.halo_number[numbers]),
            "set": torch.from_numpy(halos.set_number[numbers]),
        }

    def read(self, places: Numbers) -> Tensor:
        """Read maps (n, C, H, H) by their places in this dataset.

        Raises:
            DataFormatError: A pixel is NaN, infinite, or negative where it must not be.
        """
        numbers = self.numbers[places]
        maps = self.halos.read(numbers)
        wrong = first_negative(maps, self.kinds)
        if wrong is not None:
            name = self.halos.name(int(numbers[wrong]))
            raise DataFormatError(
                f"expected pixels >= 0 for data.transform = {', '.join(self.kinds)}, but map "
                f"{name} has negative ones; use data.transform=asinh",
                name,
            )
        return maps

    def with_maps(self, batch: Batch) -> Batch:
        """Return a batch in which the places have become maps; all maps move to its device once."""
        places = batch.pop("place", None)
        if places is None:
            return batch
        if places.device not in self._on_device:
            whole = self.read(np.arange(len(self)))
            self._on_device[places.device] = whole.to(places.device)
        return batch | {"maps": self._on_device[places.device][places]}


class HalosDataModule(SplitLoaders):
    """Train, val and test maps; all maps of a halo, whatever set they are in, share a split.

    Args:
        data_dir: Folder of the sets.
        sets: What to take of them, see `encoders.halos.sets.parse_sets`.
        channels: Channels to read, in this order.
        transform: `log10`, `asinh` or `max`, for all channels or by name, see `Inputs`.
        zero_cross_section: What stands for a cross-section of 0 on a logarithmic axis [cm^2/g].
        batch_size: Maps per batch and device.
        num_workers: Loader processes per device.
        seed: Seed of splits and of shuffling.
        splits: Fractions of halos by split: train, val, test.
        n_fit: Training maps to which the transform is fitted.
        in_memory: Hold all maps in the memory of the device.
    """

    def __init__(
        self,
        data_dir: str,
        sets: Mapping[str, Any],
        channels: Sequence[str],
        transform: str | Mapping[str, str],
        zero_cross_section: float,
        batch_size: int,
        num_workers: int,
        seed: int,
        splits: Mapping[str, float],
        n_fit: int,
        in_memory: bool,
    ) -> None:
        super().__init__(LoaderOptions(batch_size, num_workers, seed, rank=0, world_size=1))
        # Logged beside the hyper-parameters of the model.
        self.save_hyperparameters()
        check_count("n_fit", n_fit)
        self.data_dir, self.wanted = Path(data_dir), parse_sets(sets)
        self.channels, self.kinds = list(channels), kinds_of(transform, channels)
        self.zero, self.n_fit, self.in_memory = zero_cross_section, n_fit, in_memory
        self.splits = check_splits(splits)
        self._datasets: dict[str, HalosDataset] = {}
        self._ids: Ids | None = None

    @functools.cached_property
    def halos(self) -> Halos:
        """All chosen maps, described; read once."""
        return open_halos(self.data_dir, self.wanted, self.channels, self.zero)

    @property
    def ids(self) -> Ids:
        """Identities of the halos of each split."""
        if self._ids is None:
            self._ids = deal_ids(self._learned, self.options.seed, self.splits)
        return self._ids

    @functools.cached_property
    def numbers(self) -> dict[str, Numbers]:
        """Numbers of the maps of each split."""
        found = self._numbers_of(self.ids)
        self._check_classes(found["train"])
        return found

    def reuse_splits(self, card: Mapping[str, Any]) -> None:
        """Use the splits of a checkpoint, so that halos made since then change nothing.

        Args:
            card: Of a training with the same sets; another one is left for others to refuse.

        Raises:
            CheckpointError: A halo of the card is missing.
        """
        is_like = all(card.get(key) == value for key, value in self._asked().items())
        if not is_like or not isinstance(card.get("ids"), Mapping):
            return
        there = self._learned
        self._ids = check_ids(card["ids"], there)
        self.__dict__.pop("numbers", None)
        n_new = len(set(there)) - sum(len(names) for names in self._ids.values())
        if n_new:
            log.info("%d halos that ckpt_path does not know are left out", n_new)

    def card(self) -> dict[str, Any]:
        """Describe the data in plain values: what an encoder trained on them is for."""
        halos, classes = self.halos, self.halos.classes
        return self._asked() | {
            "task": TASK,
            "classes": classes.names,
            "cross_sections": [None if np.isnan(x) else float(x) for x in classes.cross_sections],
            "target": classes.scale.plain() if classes.scale else None,
            "units": halos.units,
            "side": halos.side,
            "pixel_scale": halos.pixel_scale,
            "inputs": self._fit_inputs(),
            "n_train": len(self.numbers["train"]),
            "data_hash": self.data_hash(self.options.seed, self.splits),
            "ids": self.ids,
        }

    def data_hash(self, seed: int, splits: Mapping[str, float]) -> str:
        """Identify the maps that train with some seed and fractions of splits."""
        is_own = (seed, dict(splits)) == (self.options.seed, self.splits)
        halos = self.halos
        train = self._numbers_of(self.ids if is_own else deal_ids(self._learned, seed, splits))[
            "train"
        ]
        names = [f"{halos.set_number[n]}/{halos.index[n]}" for n in train]
        identities = [one.identity for one in halos.sets if one.wanted.labels != HELD_OUT]
        return content_hash({"sets": identities, "names": names})

    def dataset(self, split: str) -> HalosDataset:
        """Return the maps of a split: train, val or test."""
        if split not in self._datasets:
            chosen = self.numbers[split]
            self._datasets[split] = HalosDataset(self.halos, chosen, self.kinds, self.in_memory)
        return self._datasets[split]

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Look the maps of a batch up on its device."""
        trainer = self.trainer
        assert trainer is not None
        split = "train" if trainer.training else "test" if trainer.testing else "val"
        return self.dataset(split).with_maps(batch)

    @property
    def _learned(self) -> list[str]:
        """Identity of the halo of each map that may train."""
        found: list[str] = self.halos.halo[~self.halos.is_held_out].tolist()
        return found

    def _numbers_of(self, ids: Ids) -> dict[str, Numbers]:
        return numbers_of(ids, self.halos.halo.tolist(), self.halos.is_held_out)

    def _check_classes(self, train: Numbers) -> None:
        """Raise `ConfigError` if a class has no training map."""
        labels, names = self.halos.labels[train], self.halos.classes.names
        counts = np.bincount(labels[labels >= 0], minlength=len(names))
        if not counts.all():
            words = ", ".join(f"{name} = {n}" for name, n in zip(names, counts, strict=True))
            raise ConfigError(
                f"expected training maps of every class, but got {words}; make more maps "
                "(data_gen.nfiles), or choose another data.seed or other data.splits",
                counts.tolist(),
            )

    def _asked(self) -> dict[str, Any]:
        """Return what the user asked for, as a card holds it."""
        sets = {one.name: dataclasses.asdict(one) for one in self.wanted}
        return {
            "sets": sets,
            "channels": self.channels,
            "splits": dict(self.splits),
            "split_seed": self.options.seed,
        }

    def _fit_inputs(self) -> dict[str, Any]:
        """Fit the transform to the first training maps in a shuffled order."""
        dataset = self.dataset("train")
        order = np.random.default_rng(self.options.seed).permutation(len(dataset))[: self.n_fit]
        return fit_inputs(dataset.read(np.sort(order)), self.kinds, self.channels)
