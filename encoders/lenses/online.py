"""Lens images that are simulated where the training runs: nothing is read, nothing is repeated."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datagen.errors import ConfigError
from datagen.files import content_hash
from datagen.lenses.blocks import BLOCK
from datagen.lenses.format import CLASSES
from datagen.lenses.settings import lens_settings
from datagen.lenses.simulate import Simulated, Simulator
from encoders.data import FILLER, LoaderOptions
from encoders.lenses.identity import TASK, identity_of
from encoders.lenses.stretch import fit_side, fit_stretch
from encoders.loaders import SplitLoaders, check_count


class BlockDataset(Dataset[dict[str, Tensor]]):
    """Numbers of images, not their pixels; an item is a block that is simulated as one.

    Args:
        first: Number of the first image, a multiple of `BLOCK`.
        n_images: A multiple of `BLOCK`.
    """

    def __init__(self, first: int, n_images: int) -> None:
        self.first, self.n_blocks = first, n_images // BLOCK

    def __len__(self) -> int:
        return self.n_blocks

    def __getitem__(self, block: int) -> dict[str, Tensor]:
        return self.__getitems__([block])

    def __getitems__(self, blocks: Sequence[int]) -> dict[str, Tensor]:
        """Return `index` and `weight` of the images of some blocks (B,)."""
        wanted = torch.tensor(blocks)
        start = self.first + BLOCK * wanted.clamp_min(0)
        return {
            "index": (start[:, None] + torch.arange(BLOCK)).flatten(),
            "weight": (wanted != FILLER).float().repeat_interleave(BLOCK),
        }


class LensesOnlineDataModule(SplitLoaders):
    """Train, val and test images by their numbers; those of `data_gen=lenses` with its seed.

    Numbers count the validation images first, then the test images, then the training images.
    Images are simulated in blocks of 64 consecutive ones, so that all counts are multiples of 64;
    blocks, not images, are shuffled.

    Args:
        lens: The preset, plain nested values.
        batch_size: Images per batch and device.
        seed: Seed of the simulation and of shuffling.
        n_train: Training images in an epoch.
        n_val: Validation images.
        n_test: Test images, 0 for none.
        is_endless: Simulate other training images in every epoch.
        side: Side to which images are cut or continued [px]; None leaves them as they are.
        stretch: Options of `fit_stretch`, and `n_images`: training images to which it is fitted.
    """

    def __init__(
        self,
        lens: Mapping[str, Any],
        batch_size: int,
        seed: int,
        n_train: int,
        n_val: int,
        n_test: int,
        is_endless: bool,
        side: int | None,
        stretch: Mapping[str, Any],
    ) -> None:
        super().__init__(LoaderOptions(batch_size, 0, seed, rank=0, world_size=1), BLOCK)
        self.counts = {"train": n_train, "val": n_val, "test": n_test}
        for name, count in (("batch_size", batch_size), *self.counts.items()):
            _check_blocks(name if name == "batch_size" else f"n_{name}", count, name == "test")
        check_count("side", side)
        # The preset is in the hash of the card; logged are the numbers of this class.
        self.save_hyperparameters(ignore=["lens"])
        self.content = dict(lens)
        self.settings = lens_settings(lens)
        self.wanted_side, self.stretch, self.is_endless = side, dict(stretch), is_endless

    @functools.cached_property
    def firsts(self) -> dict[str, int]:
        """Number of the first image of each split."""
        n_val, n_test = self.counts["val"], self.counts["test"]
        return {"val": 0, "test": n_val, "train": n_val + n_test}

    def card(self) -> dict[str, Any]:
        """Describe the data in plain values: what a classifier trained on them is for."""
        imaging = self.settings.resolved().imaging
        seed = self.options.seed
        return {
            "task": TASK,
            "classes": list(CLASSES),
            "bands": list(imaging.bands),
            "pixel_scale": float(imaging.pixel_scale),
            "side": self.wanted_side or imaging.side,
            "image_side": imaging.side,
            "stretch": self._fit_stretch(),
            "n_train": self.counts["train"],
            "data_hash": self.data_hash(seed, self.counts),
            "identity": identity_of({"lens": self.content, "seed": seed}),
            "splits": dict(self.counts),
            "split_seed": seed,
            # Numbers of the images of each split, from the first one to before the last one.
            "ranges": {split: self._range(split) for split in self.firsts},
        }

    def _range(self, split: str) -> list[int | None]:
        """Return the first number of a split, and the one after its last; None: there is no end."""
        first = self.firsts[split]
        has_end = split != "train" or not self.is_endless
        return [first, first + self.counts[split] if has_end else None]

    def data_hash(self, seed: int, splits: Mapping[str, float]) -> str:
        """Identify the images that train with some seed and numbers of images by split."""
        identity = identity_of({"lens": self.content, "seed": seed})
        known = {"identity": identity, "is_endless": self.is_endless}
        return content_hash(known | {"splits": dict(splits)})

    def dataset(self, split: str) -> BlockDataset:
        """Return the numbers of a split: train, val or test."""
        return BlockDataset(self.firsts[split], self.counts[split])

    def examples(self, split: str, n_images: int) -> dict[str, Tensor]:
        """Return a batch of the first images of a split, to look at."""
        index = self.firsts[split] + torch.arange(min(n_images, self.counts[split]))
        return _batch(self._simulate(index), index)

    def on_after_batch_transfer(
        self, batch: dict[str, Tensor], dataloader_idx: int
    ) -> dict[str, Tensor]:
        """Simulate the images of a batch on its device.

        In epoch e of an endless training, image i is number i + e n_train of all training images.
        """
        trainer, index = self.trainer, batch["index"]
        if trainer is not None and trainer.training and self.is_endless:
            index = index + trainer.current_epoch * self.counts["train"]
        is_test = trainer is not None and trainer.testing
        made = self._simulate(index, str(index.device), with_delta_chi2=is_test)
        return _batch(made, index) | {"weight": batch["weight"]}

    def _simulate(
        self, index: Tensor, device: str = "cpu", with_delta_chi2: bool = False
    ) -> Simulated:
        simulator = Simulator(
            self.settings, self.options.seed, device, with_delta_chi2=with_delta_chi2
        )
        return simulator(index)

    def _fit_stretch(self) -> dict[str, Any]:
        """Fit the stretch to the first training images, on the CPU for the same bits anywhere."""
        options = dict(self.stretch)
        n_images = options.pop("n_images")
        check_count("stretch.n_images", n_images)
        index = self.firsts["train"] + torch.arange(min(n_images, self.counts["train"]))
        made = self._simulate(index)
        noise = float(made.truth["SKY_SIGMA"].double().median())
        gain = self.settings.resolved().imaging.electrons_per_count
        side = self.wanted_side or made.images.shape[-1]
        return fit_stretch(fit_side(made.images, side), options, noise, gain)


def _batch(made: Simulated, index: Tensor) -> dict[str, Tensor]:
    device = index.device
    return {
        "images": made.images,
        "labels": made.labels.to(device),
        "delta_chi2": made.delta_chi2.to(device),
        "index": index,
    }


def _check_blocks(name: str, count: int, may_be_zero: bool) -> None:
    if count % BLOCK or count < (0 if may_be_zero else BLOCK):
        raise ConfigError(
            f"expected data.{name} to be a multiple of {BLOCK}, since images are simulated in "
            f"blocks, but got {name} = {count}",
            count,
            f"a multiple of {BLOCK}",
        )
