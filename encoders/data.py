"""What the data of all tasks share: splits by hash, resumable samplers, one loader factory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from datagen.errors import ConfigError
from datagen.seeds import stream_seed

SPLITS = ("train", "val", "test")
FILLER = -1
# File data of `data_gen=tiles`: survey tile, number of the part, images in it.
_PART = re.compile(r"file_data_(?P<tile>.+)-\d+_size_\d+\.pt")


def check_splits(splits: Mapping[str, float]) -> dict[str, float]:
    """Return the fractions of train, val and test.

    Raises:
        ConfigError: A name is missing or unknown, a fraction out of range, or the sum is not 1.
    """
    fractions = {str(name): float(value) for name, value in splits.items()}
    is_complete = sorted(fractions) == sorted(SPLITS)
    is_one = abs(sum(fractions.values()) - 1.0) < 1e-6
    if not (is_complete and is_one and fractions["test"] >= 0) or not (
        fractions["train"] > 0 and fractions["val"] > 0
    ):
        raise ConfigError(
            "expected data.splits to give fractions of train (> 0), val (> 0) and test (>= 0) that "
            f"sum to 1, but got splits = {dict(splits)}",
            dict(splits),
            SPLITS,
        )
    return fractions


def assign_split(name: str, seed: int, splits: Mapping[str, float]) -> str:
    """Return the split that a file belongs to.

    The hash of (seed, name) is a number in [0, 1) that falls into one of the fractions, so a file
    keeps its split whatever other files come or go. The parts of a survey tile count as one file:
    their images overlap.

    Args:
        name: File name without folder.
        seed: Another seed gives another assignment.
        splits: Fractions by split.
    """
    part = _PART.fullmatch(name)
    digest = hashlib.sha256(f"{seed}/{part['tile'] if part else name}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2.0**64
    for split in SPLITS:
        position -= splits[split]
        if position < 0:
            return split
    return max(SPLITS, key=lambda split: splits[split])  # rounding in the sum of the fractions


def split_names(
    names: Sequence[str], seed: int, splits: Mapping[str, float]
) -> dict[str, list[str]]:
    """Sort file names into splits.

    Raises:
        ConfigError: A split that should have files has none; the message gives the counts.
    """
    found: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name in sorted(names):
        found[assign_split(name, seed, splits)].append(name)
    empty = [split for split in SPLITS if splits[split] > 0 and not found[split]]
    if empty:
        counts = ", ".join(f"{split} = {len(found[split])}" for split in SPLITS)
        raise ConfigError(
            f"expected files in every split, but the {len(names)} files give {counts}; generate "
            "more files (data_gen.nfiles), or choose another data.seed or other data.splits",
            counts,
        )
    return found


@dataclass(frozen=True)
class LoaderOptions:
    """How samples become batches.

    Args:
        batch_size: Samples per batch and device.
        num_workers: Loader processes per device; 0 loads in the training process.
        seed: Seed of the shuffling.
        rank: Number of this process.
        world_size: Number of processes.
    """

    batch_size: int
    num_workers: int
    seed: int
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        for name, value, least in (("batch_size", self.batch_size, 1),
                                   ("num_workers", self.num_workers, 0)):  # fmt: skip
            if value < least:
                raise ConfigError(
                    f"expected data.{name} >= {least}, but got {name} = {value}", value
                )


class ShuffleSampler(Sampler[int]):
    """A permutation for each (seed, epoch), dealt out to the processes in turn.

    It depends on nothing else, so that a resumed training sees what an uninterrupted one sees. The
    permutation is repeated from its start until every process has equally many samples.

    Args:
        n_samples: Number of samples.
        options: Batch size, seed and place of this process.
        leaves_single: Leave out the last sample of each process where it would be a batch alone,
            of which batch normalisation cannot learn; in each epoch it is another one.
    """

    def __init__(self, n_samples: int, options: LoaderOptions, leaves_single: bool = False) -> None:
        self.n_samples, self.options, self.epoch = n_samples, options, 0
        n_turns = -(-n_samples // options.world_size)
        is_single = n_turns > 1 and n_turns % options.batch_size == 1
        self.n_turns = n_turns - 1 if leaves_single and is_single else n_turns

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch; Lightning calls this before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n_turns

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(stream_seed(self.options.seed, self.epoch, "shuffle"))
        order = torch.randperm(self.n_samples, generator=generator).tolist()
        for turn in range(len(self)):
            yield order[(turn * self.options.world_size + self.options.rank) % self.n_samples]


class OnceSampler(Sampler[int]):
    """All samples in order, dealt out in turn; `FILLER` fills up the last turn.

    A dataset answers `FILLER` with a sample of weight 0, so that every sample counts once on any
    number of processes, which still do equally many steps.

    Args:
        n_samples: Number of samples.
        options: Place of this process.
    """

    def __init__(self, n_samples: int, options: LoaderOptions) -> None:
        self.n_samples, self.options = n_samples, options

    def __len__(self) -> int:
        return -(-self.n_samples // self.options.world_size)

    def __iter__(self) -> Iterator[int]:
        for turn in range(len(self)):
            index = turn * self.options.world_size + self.options.rank
            yield index if index < self.n_samples else FILLER


def as_it_is(batch: dict[str, Any]) -> dict[str, Any]:
    """Collate nothing: the dataset answers `__getitems__` with a whole batch."""
    return batch


def make_loader(
    dataset: Dataset[Any],
    options: LoaderOptions,
    shuffle: bool,
    collate: Callable[[Any], Any] | None = None,
    leaves_single: bool = False,
    drops_last: bool = False,
) -> DataLoader[Any]:
    """Build the loader of a map-style dataset with a length.

    Args:
        dataset: With `__len__`; evaluation datasets also accept the index `FILLER`.
        options: Batch size, workers, seed and place of this process.
        shuffle: A new order each epoch (training) or every sample once, in order.
        collate: Makes a batch of what the dataset returns; None stacks samples.
        leaves_single: See `ShuffleSampler`.
        drops_last: Leave out a last batch that is not whole.
    """
    n_samples = len(dataset)  # type: ignore[arg-type] # Dataset does not declare __len__
    sampler: Sampler[int] = OnceSampler(n_samples, options)
    if shuffle:
        sampler = ShuffleSampler(n_samples, options, leaves_single)
    generator = torch.Generator()
    generator.manual_seed(stream_seed(options.seed, options.rank, "workers"))
    return DataLoader(
        dataset,
        batch_size=options.batch_size,
        sampler=sampler,
        num_workers=options.num_workers,
        collate_fn=collate,
        drop_last=drops_last,
        generator=generator,
        persistent_workers=options.num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
