"""Stamps of galaxies, groups and clusters as batches, in the splits of `data_gen=prepared`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datagen.errors import ConfigError
from datagen.files import content_hash
from datagen.prepared.splitting import assign
from encoders.augment import random_fractions
from encoders.data import FILLER, LoaderOptions
from encoders.galaxies.collection import REDSHIFT, Numbers, StampSet, open_stamps
from encoders.galaxies.draws import About
from encoders.loaders import SplitLoaders, check_count

TASK = "galaxies"
Batch = dict[str, Tensor]


class GalaxiesDataset(Dataset[Batch]):
    """Some stamps of a set; a request for several of them is answered with a batch.

    The index `FILLER` gives a stamp with weight 0 (see `encoders.data.OnceSampler`).

    Args:
        stamps: The set.
        numbers: Which of its stamps (n,).
        in_memory: Answer with places instead of stamps, which `with_stamps` looks up on a device.
    """

    def __init__(self, stamps: StampSet, numbers: Numbers, in_memory: bool) -> None:
        self.stamps, self.numbers, self.in_memory = stamps, numbers, in_memory
        self._known: dict[str, NDArray[Any]] = {
            "index": stamps.index,
            "object": stamps.objects,
            "labels": stamps.values,
            "fwhm": stamps.fwhm,
            "sigma": stamps.of_bands("SKYSIGMA"),
            "scale": stamps.known("SCALE"),
            "redshift": stamps.known(REDSHIFT),
        }
        self._on_device: dict[torch.device, Tensor] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Batch:
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return a batch: stamps (B, bands, H, H), or their places, and what is known of them."""
        wanted = np.asarray(indices)
        places = np.where(wanted == FILLER, 0, wanted)
        pixels = (
            {"place": torch.from_numpy(places)} if self.in_memory else {"stamps": self.read(places)}
        )
        numbers = self.numbers[places]
        known = {key: torch.from_numpy(values[numbers]) for key, values in self._known.items()}
        weight = torch.from_numpy((wanted != FILLER).astype(np.float32))
        return pixels | known | {"weight": weight}

    def read(self, places: Numbers) -> Tensor:
        """Read stamps (n, bands, H, H) by their places in this dataset.

        Raises:
            DataFormatError: A file is damaged, or a pixel is not finite.
        """
        return self.stamps.read(self.numbers[places])

    def about(self, places: Numbers) -> About:
        """Return what is known of some stamps."""
        return about(self.__getitems__(places.tolist()))

    def unknown(self) -> dict[str, dict[str, float]]:
        """Return the shares of stamps of each suite whose FWHM or noise is not known."""
        suites = self.stamps.suite[self.numbers]
        is_unknown = {
            "fwhm": np.isnan(self.stamps.fwhm[self.numbers]),
            "sigma": np.isnan(self._known["sigma"][self.numbers]).any(axis=1),
        }
        return {
            str(suite): {k: float(x[suites == suite].mean()) for k, x in is_unknown.items()}
            for suite in np.unique(suites)
        }

    def names(self, places: Numbers) -> list[str]:
        """Return how stamps are called: suite, snapshot, object and projection."""
        return self.stamps.names(self.numbers[places])

    def places_of(self, index: Numbers) -> Numbers:
        """Return the places of stamps by their numbers."""
        own = self.stamps.index[self.numbers]
        order = own.argsort()
        return order[np.searchsorted(own, index, sorter=order)]

    def with_stamps(self, batch: Batch) -> Batch:
        """Return a batch in which places have become stamps; all move to its device once."""
        places = batch.pop("place", None)
        if places is None:
            return batch
        if places.device not in self._on_device:
            self._on_device[places.device] = self.read(np.arange(len(self))).to(places.device)
        return batch | {"stamps": self._on_device[places.device][places]}


class GalaxiesDataModule(SplitLoaders):
    """Train, val and test stamps; all stamps of an object share a split.

    Args:
        data_dir: Folder of `data_gen=prepared`.
        stamps_dir: Folder of `data_gen=stamps`: a folder for each suite.
        suites: Suites to take; None: all that were prepared.
        bands: Bands to take, in this order; None: those of the stamps.
        train_px: Side that networks see [px], out of the middle of stamps.
        labels: Fields that probes ask for; None: all that are known.
        n_train: Number of training stamps; fewer are among more; None takes all.
        n_val: Most validation stamps; None takes all. Probes take time with their square.
        n_test: Most test stamps; None takes all.
        batch_size: Stamps per batch and device.
        num_workers: Loader processes per device.
        seed: Seed of shuffling and of the choice of training stamps.
        in_memory: Hold all stamps in the memory of the device.
    """

    drops_last = True

    def __init__(
        self,
        data_dir: str,
        stamps_dir: str,
        suites: Sequence[str] | None,
        bands: Sequence[str] | None,
        train_px: int,
        labels: Sequence[str] | None,
        n_train: int | None,
        n_val: int | None,
        n_test: int | None,
        batch_size: int,
        num_workers: int,
        seed: int,
        in_memory: bool,
    ) -> None:
        super().__init__(LoaderOptions(batch_size, num_workers, seed, rank=0, world_size=1))
        # Logged beside the hyper-parameters of the model.
        self.save_hyperparameters()
        counts = {"n_train": n_train, "n_val": n_val, "n_test": n_test, "train_px": train_px}
        for name, count in counts.items():
            check_count(name, count)
        self.data_dir, self.stamps_dir = Path(data_dir), Path(stamps_dir)
        self.suites, self.bands, self.wanted_labels = suites, bands, labels
        self.train_px, self.n_train, self.in_memory = train_px, n_train, in_memory
        self.n_val, self.n_test = n_val, n_test
        self._datasets: dict[str, GalaxiesDataset] = {}

    @functools.cached_property
    def stamps(self) -> StampSet:
        """All stamps, described; read once."""
        wanted = (self.suites, self.bands, self.wanted_labels)
        return open_stamps(self.stamps_dir, self.data_dir, *wanted)

    def card(self) -> dict[str, Any]:
        """Describe the data in plain values: what an encoder trained on them is for."""
        stamps = self.stamps
        if self.train_px > stamps.side:
            raise ConfigError(
                f"expected data.train_px <= {stamps.side}, the side of the stamps, but got "
                f"train_px = {self.train_px}; extract larger ones (data_gen.image.store_px)",
                self.train_px,
                stamps.side,
            )
        if not len(stamps.numbers("val")):
            raise ConfigError(
                f"expected validation stamps of data.suites = {', '.join(stamps.suites)}, but got "
                "none, so that no checkpoint would be written; prepare stamps with a fraction val "
                "(data_gen.split.fractions)",
                0,
            )
        scaler = stamps.scaler["labels"]
        return {
            "task": TASK,
            "suites": stamps.suites,
            "bands": stamps.bands,
            "side": stamps.side,
            "train_px": self.train_px,
            "pixel_scale": stamps.pixel_scale,
            "unit": stamps.unit,
            "zero_point": stamps.zero_point,
            "softening": stamps.softening,
            "labels": {name: scaler[name] for name in stamps.labels},
            "splits": stamps.split["fractions"],
            "split_seed": stamps.split["seed"],
            "split_by": stamps.split["by"],
            "n_train": len(self.dataset("train")),
            "data_hash": self._hash(self.dataset("train").numbers),
            "identity": stamps.identity,
        }

    def data_hash(self, seed: int, splits: Mapping[str, float]) -> str:
        """Identify the stamps that train with some seed and fractions of splits."""
        found = assign(self.stamps.objects, seed, splits)
        return self._hash(self._chosen(np.flatnonzero(found == "train")))

    def dataset(self, split: str) -> GalaxiesDataset:
        """Return the stamps of a split: train, val or test."""
        if split not in self._datasets:
            numbers = self.stamps.numbers(split)
            if split == "train":
                numbers = self._chosen(numbers)
            else:
                # Not suite by suite: losses compare the stamps of a batch.
                most = {"val": self.n_val, "test": self.n_test}[split]
                numbers = numbers[self._order(numbers)[:most]]
            self._datasets[split] = GalaxiesDataset(self.stamps, numbers, self.in_memory)
        return self._datasets[split]

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled training stamps, in whole batches.

        Raises:
            ConfigError: There are fewer stamps than a batch of all processes holds.
        """
        n_processes = self.trainer.world_size if self.trainer else 1
        n_stamps, n_batch = len(self.dataset("train")), self.options.batch_size
        if n_stamps < n_batch * n_processes:
            raise ConfigError(
                f"expected at least {n_batch * n_processes} training stamps (data.batch_size = "
                f"{n_batch} on {n_processes} devices), but got {n_stamps}; lower data.batch_size, "
                "or extract more stamps",
                n_stamps,
            )
        return super().train_dataloader()

    def n_whole(self, split: str) -> int:
        """Return how many batches of a split are whole in all processes; at least one counts."""
        n_processes = self.trainer.world_size if self.trainer else 1
        return max(1, len(self.dataset(split)) // (self.options.batch_size * n_processes))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Look the stamps of a batch up on its device."""
        trainer = self.trainer
        assert trainer is not None
        split = "train" if trainer.training else "test" if trainer.testing else "val"
        return self.dataset(split).with_stamps(batch)

    def _chosen(self, numbers: Numbers) -> Numbers:
        """Return as many training stamps as are wanted."""
        if self.n_train is None:
            return numbers
        if self.n_train > len(numbers):
            raise ConfigError(
                f"expected data.n_train <= {len(numbers)}, the number of training stamps, but got "
                f"n_train = {self.n_train}",
                self.n_train,
                len(numbers),
            )
        return np.sort(numbers[self._order(numbers)[: self.n_train]])

    def _order(self, numbers: Numbers) -> Numbers:
        """Return places of stamps in an order by chance, which other stamps do not change."""
        index = torch.from_numpy(self.stamps.index[numbers])
        order = random_fractions(self.options.seed, 0, index, "choice").argsort(stable=True)
        return order.numpy()

    def _hash(self, numbers: Numbers) -> str:
        names = sorted(self.stamps.names(numbers))
        return content_hash({"identity": self.stamps.identity, "names": names})


def about(batch: Mapping[str, Tensor]) -> About:
    """Return what a batch says of its stamps."""
    return About(batch["fwhm"], batch["sigma"], batch["scale"], batch["redshift"])
