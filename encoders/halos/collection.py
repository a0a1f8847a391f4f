"""All halos of a training: the chosen maps of its sets, with classes and targets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datagen.errors import ConfigError, DataFormatError
from encoders.halos.losses import UNLABELLED
from encoders.halos.sets import CLASS, HELD_OUT, KNOWN, MapSet, Numbers, Wanted, mapped, open_set
from encoders.halos.targets import LogScale

# Pixels may differ in size by so much between sets.
SCALE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Classes:
    """What maps are told apart into: cross-sections, and sets of one that is not known.

    Args:
        names: Cross-sections [cm^2/g] in rising order, then names of sets.
        cross_sections: [cm^2/g], NaN for sets.
        scale: From cross-section to target; None with fewer than two cross-sections.
    """

    names: list[str]
    cross_sections: NDArray[np.float64]
    scale: LogScale | None

    @property
    def targets(self) -> NDArray[np.float64]:
        """Return the target of each class, NaN where unknown."""
        if self.scale is None:
            return np.full(len(self.names), np.nan)
        return self.scale.forward(self.cross_sections)


class Halos:
    """The maps of several sets in a fixed order: set by set, file by file.

    Args:
        sets: The sets.
        channels: Channels to read, in this order.
        zero: Cross-section that stands for none [cm^2/g].

    Raises:
        DataFormatError: A set lacks a channel, or has other pixels than the first one.
        ConfigError: `zero` or a channel does not fit.
    """

    def __init__(self, sets: Sequence[MapSet], channels: Sequence[str], zero: float) -> None:
        self.sets, self.channels = list(sets), list(channels)
        if not channels or len(set(channels)) < len(channels):
            raise ConfigError(
                f"expected data.channels to name different channels, but got {list(channels)}",
                list(channels),
            )
        for one in sets:
            _check_like(sets[0], one, channels)
        first = sets[0]
        self.side, self.pixel_scale = first.side, first.pixel_scale
        self.units = [first.units[first.channels.index(name)] for name in channels]
        self.classes = _classes(sets, zero)
        self.starts = np.cumsum([0, *(len(one.index) for one in sets)])
        self.set_number = np.repeat(np.arange(len(sets)), np.diff(self.starts))
        held_out = [one.wanted.labels == HELD_OUT for one in sets]
        self.is_held_out = np.array(held_out, dtype=bool)[self.set_number]
        self.index = np.concatenate([one.index for one in sets])
        self.cluster = np.concatenate([one.cluster for one in sets])
        self.halo = np.concatenate([one.halo for one in sets])
        self.halo_number = halo_numbers(self.halo)
        self.cross_section = np.concatenate([one.cross_section for one in sets])
        self.labels = np.concatenate([_labels(one, self.classes) for one in sets])
        # What is known in a training; NaN elsewhere, whatever the truth says.
        self.targets = np.append(self.classes.targets, np.nan)[self.labels]

    def __len__(self) -> int:
        return len(self.index)

    def read(self, numbers: Numbers) -> Tensor:
        """Return maps (n, C, side, side), float32, in the units of the files.

        Raises:
            DataFormatError: A pixel is not finite; the message names the map.
        """
        found = np.empty((len(numbers), len(self.channels), self.side, self.side), np.float32)
        for row, number in zip(found, numbers, strict=True):
            one, place = self._place(int(number))
            file, at = one.places[place]
            whole = mapped(one.paths[file])[at]
            for channel, name in zip(row, self.channels, strict=True):
                channel[:] = whole[one.channels.index(name)]
            if not np.isfinite(row).all():
                raise DataFormatError(
                    f"expected finite pixels, but map {self.name(int(number))} has NaN or infinite "
                    "ones; make its file again or take it out",
                    self.name(int(number)),
                )
        return torch.from_numpy(found)

    def numbers_of(self, sets: Numbers, index: Numbers) -> Numbers:
        """Return the numbers of maps in this collection.

        Args:
            sets: Numbers of their sets (n,).
            index: Numbers of the maps in their suites (n,).
        """
        pairs = zip(self.set_number.tolist(), self.index.tolist(), strict=True)
        number_of = {pair: number for number, pair in enumerate(pairs)}
        asked = zip(sets.tolist(), index.tolist(), strict=True)
        return np.array([number_of[pair] for pair in asked], dtype=np.int64)

    def name(self, number: int) -> str:
        """Return how messages call a map."""
        return (
            f"INDEX = {self.index[number]} of set {self.sets[self.set_number[number]].wanted.name}"
        )

    def _place(self, number: int) -> tuple[MapSet, int]:
        at = int(self.set_number[number])
        return self.sets[at], number - int(self.starts[at])


def halo_numbers(halos: NDArray[np.str_]) -> Numbers:
    """Return a number for each halo, which no other map, set or run changes: a hash of its name.

    CLUSTER alone is unique in the suites of one seed only. 48 bits stay exact as floating-point
    numbers; of a hundred thousand halos two share one in 1 of 50 000 collections.
    """
    names, places = np.unique(halos, return_inverse=True)
    hashes = [hashlib.sha256(name.encode()).digest()[:6] for name in names.tolist()]
    return np.array([int.from_bytes(h, "big") for h in hashes], dtype=np.int64)[places]


def open_halos(
    data_dir: Path, wanted: Sequence[Wanted], channels: Sequence[str], zero: float
) -> Halos:
    """Look at the sets of a training; pixels are read later.

    Raises:
        DataNotFoundError: A set is missing.
        DataFormatError: Files are damaged or do not fit one another.
        ConfigError: A setting does not fit the sets.
    """
    return Halos([open_set(data_dir, one) for one in wanted], channels, zero)


def _classes(sets: Sequence[MapSet], zero: float) -> Classes:
    known = [one.cross_section for one in sets if one.wanted.labels == KNOWN]
    values = np.unique(np.concatenate(known)) if known else np.zeros(0)
    unknown = [one.wanted.name for one in sets if one.wanted.labels == CLASS]
    names = [f"{value:g}" for value in values] + unknown
    cross_sections = np.append(values, np.full(len(unknown), np.nan))
    return Classes(names, cross_sections, LogScale.fit(values.tolist(), zero))


def _labels(one: MapSet, classes: Classes) -> Numbers:
    if one.wanted.labels == KNOWN:
        n_known = int(np.isfinite(classes.cross_sections).sum())
        found = np.searchsorted(classes.cross_sections[:n_known], one.cross_section)
        return found.astype(np.int64)
    is_class = one.wanted.labels == CLASS
    label = classes.names.index(one.wanted.name) if is_class else UNLABELLED
    return np.full(len(one.index), label, dtype=np.int64)


def _check_like(first: MapSet, other: MapSet, channels: Sequence[str]) -> None:
    """Raise unless a set has the channels, and the pixels of the first one."""
    missing = [name for name in channels if name not in other.channels]
    if missing:
        raise DataFormatError(
            f"expected data.channels to be some of {', '.join(other.channels)}, which set "
            f"{other.wanted.name} has, but got {', '.join(channels)}",
            missing[0],
            other.channels,
        )
    pairs: list[tuple[str, Any, Any]] = [("SIDE", first.side, other.side)]
    for name in channels:
        units = [one.units[one.channels.index(name)] for one in (first, other)]
        pairs.append((f"the unit of {name}", units[0], units[1]))
    if abs(other.pixel_scale / first.pixel_scale - 1.0) > SCALE_TOLERANCE:
        pairs.append(("PIXSCALE", first.pixel_scale, other.pixel_scale))
    for key, expected, got in pairs:
        if expected != got:
            raise DataFormatError(
                f"expected {key} = {expected} in all data.sets, as set {first.wanted.name} has, "
                f"but set {other.wanted.name} has {got}",
                got,
                expected,
            )
