"""Which halo trains, which one chooses, which one tests: maps of one halo stay together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from datagen.errors import CheckpointError, ConfigError
from encoders.data import SPLITS, assign_split

Numbers = NDArray[np.int64]
TEST = SPLITS[-1]
Ids = dict[str, list[str]]


def deal_ids(ids: Sequence[str], seed: int, splits: Mapping[str, float]) -> Ids:
    """Deal halos out to train, val and test by the hash of (seed, id).

    A halo keeps its split whatever other halos come or go.

    Args:
        ids: Identity of the halo of each map, in any order, repeated.
        seed: Another seed gives another assignment.
        splits: Fractions by split.

    Returns:
        Sorted ids by split.

    Raises:
        ConfigError: A split that should have halos has none; the message gives the counts.
    """
    found: Ids = {split: [] for split in SPLITS}
    for name in sorted(set(ids)):
        found[assign_split(name, seed, splits)].append(name)
    if any(splits[split] > 0 and not found[split] for split in SPLITS):
        counts = ", ".join(f"{split} = {len(found[split])}" for split in SPLITS)
        raise ConfigError(
            f"expected halos in every split, but the {len(set(ids))} halos give {counts}; make "
            "more (data_gen.nfiles), or choose another data.seed or other data.splits",
            counts,
        )
    return found


def check_ids(ids: Mapping[str, Sequence[str]], there: Sequence[str]) -> Ids:
    """Return the splits that a checkpoint names, if all their halos are there and in one split.

    Args:
        ids: Ids by split, as a card holds them.
        there: Ids of the halos that there are.

    Raises:
        CheckpointError: A halo is missing, or in two splits.
    """
    found = {split: [str(name) for name in ids.get(split, ())] for split in SPLITS}
    named = [name for names in found.values() for name in names]
    missing = sorted(set(named) - set(there))
    if missing:
        raise CheckpointError(
            f"expected the halos with which ckpt_path was trained, but {len(missing)} of "
            f"{len(named)} are missing, the first one is {missing[0]}; put the files back, or "
            "leave ckpt_path out to train from the start",
            missing[0],
        )
    if len(set(named)) < len(named):
        raise CheckpointError("ckpt_path is corrupt: its card has a halo in two splits", None)
    return found


def numbers_of(
    ids: Ids, halos: Sequence[str], is_held_out: NDArray[np.bool_] | None = None
) -> dict[str, Numbers]:
    """Return the numbers of the maps of each split, rising.

    Args:
        ids: Ids by split.
        halos: Identity of the halo of each map.
        is_held_out: Whether a map may only be tested (n,); those of halos that train or choose
            are in no split. None: no map is.
    """
    split_of = {name: split for split, names in ids.items() for name in names}
    given = np.array([split_of.get(name, "") for name in halos], dtype="U8")
    if is_held_out is not None:
        is_free = np.isin(given, ("", TEST))
        given = np.where(is_held_out, np.where(is_free, TEST, ""), given)
    return {split: np.flatnonzero(given == split).astype(np.int64) for split in SPLITS}
