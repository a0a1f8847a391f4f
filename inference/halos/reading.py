"""Reads the maps of a part a few at a time, and says what is wrong with those that are no use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datagen.errors import CheckpointError, DataFormatError
from datagen.halos.format import (
    channels_of,
    map_files,
    read_header,
    read_maps,
    read_truth,
    truth_of,
)
from encoders.halos.collection import SCALE_TOLERANCE, halo_numbers
from encoders.halos.inputs import are_negative
from encoders.halos.sets import N_DIGITS
from inference.part_data import Problems, blank_bad
from inference.stack_parts import StackPart


@dataclass(frozen=True)
class Truth:
    """What is known of maps, one entry each.

    Args:
        index: Number of the map in its suite.
        cluster: Number of its halo in its suite.
        halo: Number of its halo, the same in all sets and encoders.
        projection: Number of the direction.
        cross_section: [cm^2/g]; NaN where unknown.
        sets: Name of the set.
        splits: What the halo was in the training, empty where it had no part.
    """

    index: NDArray[np.int64]
    cluster: NDArray[np.int64]
    halo: NDArray[np.int64]
    projection: NDArray[np.int64]
    cross_section: NDArray[np.float64]
    sets: NDArray[np.str_]
    splits: NDArray[np.str_]

    def take(self, rows: NDArray[np.int64]) -> Truth:
        """Return what is known of some rows."""
        return Truth(*(values[rows] for values in vars(self).values()))


@dataclass(frozen=True)
class Expected:
    """What an encoder asks of maps.

    Args:
        channels: Their names, in the order of the network.
        units: Of the pixels of each channel.
        kinds: Transform of each channel, which says whether a pixel may be negative.
        side: Side of a map [px].
        pixel_scale: [kpc/px].
        split_of: Split of each halo of the training, by its identity.
    """

    channels: tuple[str, ...]
    units: tuple[str, ...]
    kinds: tuple[str, ...]
    side: int
    pixel_scale: float
    split_of: Mapping[str, str]

    @classmethod
    def of(cls, card: Mapping[str, Any], split_of: Mapping[str, str]) -> Expected:
        """Return what the card of an encoder says.

        Args:
            card: Of the encoder.
            split_of: Split of each halo.
        """
        names = tuple(card["channels"])
        kinds, units = tuple(card["inputs"]["kind"]), tuple(card.get("units", ()))
        return cls(names, units, kinds, int(card["side"]), float(card["pixel_scale"]), split_of)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a map."""
        return len(self.channels), self.side, self.side

    def difference(self, header: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
        """Return the first key in which a file differs: its name, what is expected, what is there.

        Args:
            header: Of the truth of the file.
        """
        names = channels_of(header)
        missing = [name for name in self.channels if name not in names]
        if missing:
            return "channels", ",".join(self.channels), header["CHANNELS"]
        if int(header["SIDE"]) != self.side:
            return "side [px]", self.side, header["SIDE"]
        if abs(float(header["PIXSCALE"]) / self.pixel_scale - 1.0) > SCALE_TOLERANCE:
            return "pixel_scale [kpc/px]", self.pixel_scale, header["PIXSCALE"]
        for name, unit in zip(self.channels, self.units, strict=False):
            found = header[f"UNIT_{names.index(name)}"]
            if found != unit:
                return f"unit of {name}", unit, found
        return None


def check_set(name: str, folder: Path, expected: Expected) -> None:
    """Compare the first file of a set with what an encoder asks for.

    Raises:
        CheckpointError: Channels, their units, side or pixel scale differ.
        DataFormatError: The truth of the file is damaged.
        DataNotFoundError: It is missing.
    """
    found = expected.difference(read_header(truth_of(map_files(folder)[0])))
    if found is not None:
        key, before, now = found
        raise CheckpointError(
            f"the checkpoint was trained on maps with {key} = {before}, but set {name} in {folder} "
            f"has {key} = {now}; choose the encoder for these maps with predict.weight_save_path, "
            "or other sets with predict.sets",
            now,
            before,
        )


class MapReader:
    """Maps in one file.

    Args:
        part: The file.
        expected: What the encoder asks of maps.

    Raises:
        DataFormatError: File or truth are damaged or do not fit.
        DataNotFoundError: The truth is missing.
    """

    def __init__(self, part: StackPart, expected: Expected) -> None:
        self._maps, self._expected = read_maps(part.path), expected
        table = read_truth(truth_of(part.path))
        self._check(part, table)
        self._columns = [channels_of(table.meta).index(name) for name in expected.channels]
        truth = _truth(part, table, expected)
        self.rows = np.flatnonzero([part.wanted in (None, split) for split in truth.splits])
        self._truth = truth.take(self.rows)

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], Problems]:
        """Return some maps; see `PartReader`."""
        maps = np.array(self._maps[rows][:, self._columns], np.float32)
        problems = blank_bad(maps, rows)
        is_wrong = are_negative(torch.from_numpy(maps), self._expected.kinds).numpy()
        maps[is_wrong] = 0
        words = f"negative pixels, which data.transform = {', '.join(self._expected.kinds)} refuses"
        return maps, dict.fromkeys(rows[is_wrong].tolist(), words) | problems

    def truth(self) -> Truth:
        """Return what is known of the maps."""
        return self._truth

    def _check(self, part: StackPart, table: Any) -> None:  # noqa: ANN401 - astropy's table
        found = self._expected.difference(table.meta)
        shape = (len(table), len(channels_of(table.meta)), *(2 * [self._expected.side]))
        if found is None and self._maps.shape != shape:
            found = "shape", shape, self._maps.shape
        if found is not None:
            key, before, now = found
            raise DataFormatError(
                f"expected {key} = {before} in {part.ids[0]}, but got {now}", now, before
            )


def _truth(part: StackPart, table: Any, expected: Expected) -> Truth:  # noqa: ANN401 - astropy's table
    cluster = np.asarray(table["CLUSTER"], np.int64)
    halos = [f"{table.meta['SEED']}/{number}" for number in cluster.tolist()]
    return Truth(
        index=np.asarray(table["INDEX"], np.int64),
        cluster=cluster,
        halo=halo_numbers(np.array(halos, dtype=str)),
        projection=np.asarray(table["PROJECTION"], np.int64),
        cross_section=np.asarray(table["CROSS_SECTION"], np.float64).round(N_DIGITS),
        sets=np.full(len(table), part.group),
        splits=np.array([expected.split_of.get(halo, "") for halo in halos], dtype=str),
    )
