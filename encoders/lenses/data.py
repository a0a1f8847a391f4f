"""Lens images as batches: from simulated shards or a public set, split by the hash of their names.

The steps from a folder to a training set stand in `images`, `splits` and `stretch`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datagen.errors import ConfigError
from datagen.lenses.format import CLASSES
from encoders.data import FILLER, LoaderOptions, check_splits
from encoders.lenses.identity import TASK, training_hash
from encoders.lenses.images import ImageSet, Numbers, open_images
from encoders.lenses.splits import choose, deal
from encoders.lenses.stretch import fit_side, fit_stretch
from encoders.loaders import SplitLoaders, check_count

# Images that are read at once where all of them are needed.
BLOCK = 1024


class LensesDataset(Dataset[dict[str, Tensor]]):
    """Some images of a set; a request for several of them is answered with a batch.

    The index `FILLER` gives an image with weight 0 (see `encoders.data.OnceSampler`).

    Args:
        images: The set.
        numbers: Which of its images (n,).
        in_memory: Hold the pixels in memory after the first request.
    """

    def __init__(self, images: ImageSet, numbers: Numbers, in_memory: bool) -> None:
        self.images, self.numbers, self.in_memory = images, numbers, in_memory
        self._pixels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return a batch: images (B, C, H, W), labels, weight, index and delta_chi2 (B,)."""
        wanted = np.asarray(indices)
        places = np.where(wanted == FILLER, 0, wanted)
        numbers = self.numbers[places]
        return {
            "images": self._read(places),
            "labels": torch.from_numpy(self.images.labels[numbers]),
            "weight": torch.from_numpy((wanted != FILLER).astype(np.float32)),
            "index": torch.from_numpy(self.images.index[numbers]),
            "delta_chi2": torch.from_numpy(self.images.delta_chi2[numbers]),
        }

    def _read(self, places: Numbers) -> Tensor:
        if not self.in_memory:
            return self.images.read(self.numbers[places])
        if self._pixels is None:
            self._pixels = read_all(self.images, self.numbers)
        return self._pixels[torch.from_numpy(places)]


def read_all(images: ImageSet, numbers: Numbers) -> Tensor:
    """Read images in blocks, (n, C, H, W)."""
    blocks = [numbers[start : start + BLOCK] for start in range(0, len(numbers), BLOCK)]
    return torch.cat([images.read(block) for block in blocks])


class LensesDataModule(SplitLoaders):
    """Train, val and test images of lenses.

    Args:
        data_dir: Folder of `data_gen=lenses`, or of a public set with `{train,val}/<class>/`.
        batch_size: Images per batch and device.
        num_workers: Loader processes per device.
        seed: Seed of splits, of the choice of training images, and of shuffling.
        splits: Fractions of images by split: train, val, test.
        n_train: Number of training images, as many of each class; None takes all.
        side: Side to which images are cut or continued [px]; None leaves them as they are.
        stretch: Options of `fit_stretch`, and `n_images`: training images to which it is fitted.
        in_memory: Hold all images in memory.
    """

    def __init__(
        self,
        data_dir: str,
        batch_size: int,
        num_workers: int,
        seed: int,
        splits: Mapping[str, float],
        n_train: int | None,
        side: int | None,
        stretch: Mapping[str, Any],
        in_memory: bool,
    ) -> None:
        super().__init__(LoaderOptions(batch_size, num_workers, seed, rank=0, world_size=1))
        # Logged beside the hyper-parameters of the model.
        self.save_hyperparameters()
        for name, count in (("n_train", n_train), ("side", side)):
            check_count(name, count)
        self.data_dir, self.in_memory = Path(data_dir), in_memory
        self.splits = check_splits(splits)
        self.n_train, self.wanted_side = n_train, side
        self.stretch = dict(stretch)
        self._datasets: dict[str, LensesDataset] = {}

    @functools.cached_property
    def images(self) -> ImageSet:
        """All images of the folder, described; read once."""
        return open_images(self.data_dir)

    @functools.cached_property
    def numbers(self) -> dict[str, Numbers]:
        """Numbers of the images of each split."""
        return self._numbers(self.options.seed, self.splits)

    def card(self) -> dict[str, Any]:
        """Describe the data in plain values: what a classifier trained on them is for."""
        images = self.images
        return {
            "task": TASK,
            "classes": list(CLASSES),
            "bands": images.bands,
            "pixel_scale": images.pixel_scale,
            "side": self.wanted_side or images.side,
            "image_side": images.side,
            "stretch": self._fit_stretch(),
            "n_train": len(self.numbers["train"]),
            "data_hash": self.data_hash(self.options.seed, self.splits),
            # Tells prediction which images of this set trained, however many were made since.
            "identity": images.identity,
            "splits": dict(self.splits),
            "split_seed": self.options.seed,
        }

    def data_hash(self, seed: int, splits: Mapping[str, float]) -> str:
        """Identify the images that train with some seed and fractions of splits."""
        train = self._numbers(seed, splits)["train"]
        return training_hash(self.images.identity, [self.images.names[n] for n in train])

    def dataset(self, split: str) -> LensesDataset:
        """Return the images of a split: train, val or test."""
        if split not in self._datasets:
            chosen = self.numbers[split]
            self._datasets[split] = LensesDataset(self.images, chosen, self.in_memory)
        return self._datasets[split]

    def examples(self, split: str, n_images: int) -> dict[str, Tensor]:
        """Return a batch of a few images of a split, evenly chosen, to look at."""
        dataset = self.dataset(split)
        places = np.unique(np.linspace(0, len(dataset) - 1, n_images).round().astype(int))
        return dataset.__getitems__(places.tolist())

    def _numbers(self, seed: int, splits: Mapping[str, float]) -> dict[str, Numbers]:
        images = self.images
        found = deal(images.names, images.given, seed, splits)
        self._check_classes(found["train"])
        if self.n_train is not None:
            found["train"] = choose(found["train"], images.names, images.labels, seed, self.n_train)
        return found

    def _check_classes(self, train: Numbers) -> None:
        """Raise `ConfigError` if a class has no training image."""
        counts = np.bincount(self.images.labels[train], minlength=len(CLASSES))
        if not counts.all():
            words = ", ".join(f"{name} = {n}" for name, n in zip(CLASSES, counts, strict=True))
            raise ConfigError(
                f"expected training images of every class in {self.data_dir}, but got {words}; "
                "make more images (data_gen.nfiles)",
                counts.tolist(),
            )

    def _fit_stretch(self) -> dict[str, Any]:
        """Fit the stretch to the first training images in a shuffled order."""
        options = dict(self.stretch)
        n_images = options.pop("n_images")
        check_count("stretch.n_images", n_images)
        train = self.numbers["train"]
        order = np.random.default_rng(self.options.seed).permutation(len(train))[:n_images]
        images = read_all(self.images, np.sort(train[order]))
        side = self.wanted_side or self.images.side
        return fit_stretch(fit_side(images, side), options, self.images.noise, self.images.gain)
