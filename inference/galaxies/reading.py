"""Reads the stamps of a part a few at a time, and says what is wrong with those that are no use."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen.errors import CheckpointError, DataFormatError, DataNotFoundError
from datagen.stamps.format import (
    bands_of,
    label_names,
    read_stamps,
    read_table,
    stamp_files,
    truth_of,
)
from inference.galaxies.training import Training
from inference.part_data import Problems, blank_bad
from inference.results import strings
from inference.stack_parts import StackPart

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Truth:
    """What is known of stamps.

    Args:
        columns: What tells a stamp from others, where it lies, and what it was in the training.
        labels: Under their names.
    """

    columns: Columns
    labels: Columns

    def take(self, rows: NDArray[np.int64]) -> Truth:
        """Return what is known of some rows."""
        return Truth(*({name: values[rows] for name, values in part.items()}
                       for part in (self.columns, self.labels)))  # fmt: skip


@dataclass(frozen=True)
class Expected:
    """What an encoder asks of stamps.

    Args:
        bands: In the order of the network.
        side: Of a stamp [px].
        unit: Of the pixels.
        pixel_scale: Median of the training [arcsec/px]; None for any.
        training: Tells what objects were in the training.
    """

    bands: tuple[str, ...]
    side: int
    unit: str
    pixel_scale: float | None
    training: Training

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> Expected:
        """Return what the card of an encoder says."""
        known = {name: card[name] for name in ("side", "unit", "pixel_scale")}
        return cls(bands=tuple(card["bands"]), **known, training=Training.of(card))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a stamp, as the network sees it."""
        return len(self.bands), self.side, self.side

    def difference(self, header: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
        """Return the first key in which a file differs: its name, what is expected, what is there.

        Args:
            header: Of the truth of the file.
        """
        if not set(self.bands) <= set(bands_of(header)):
            return "bands", ",".join(self.bands), header["BANDS"]
        if int(header["SIDE"]) != self.side:
            return "side [px]", self.side, header["SIDE"]
        if header["UNIT"] != self.unit:
            return "unit", self.unit, header["UNIT"]
        return None


def check_suite(name: str, folder: Path, expected: Expected, tolerance: float | None) -> Table:
    """Compare a suite with what an encoder asks for.

    Args:
        name: Of the suite.
        folder: Of the suite.
        expected: What the encoder asks of stamps.
        tolerance: Of the median pixel scale; None for any.

    Returns:
        The table of the first file, with units.

    Raises:
        CheckpointError: Bands, side, unit or pixel scale differ.
        DataFormatError: The truth of the first file is damaged.
        DataNotFoundError: It is missing.
    """
    first = read_table(truth_of(stamp_files(folder)[0]))
    found, more = expected.difference(first.meta), "other suites with predict.suites"
    if found is None and tolerance is not None and expected.pixel_scale is not None:
        scale = median_scale(folder)
        if abs(scale / expected.pixel_scale - 1.0) > tolerance:
            found = "pixel_scale [arcsec/px]", f"{expected.pixel_scale:g}", f"{scale:g}"
            more += (
                ", or, where stamps are cut to the size of each object, set "
                "predict.scale_tolerance=null"
            )
    if found is not None:
        key, before, now = found
        raise CheckpointError(
            f"the checkpoint was trained on stamps with {key} = {before}, but suite {name} in "
            f"{folder} has {key} = {now}; extract them alike (data_gen=stamps), choose the encoder "
            f"for these stamps with predict.weight_save_path, {more}",
            now,
            before,
        )
    return first


def median_scale(folder: Path) -> float:
    """Return the median pixel scale of a suite [arcsec/px]; NaN where none is known."""
    scales = []
    for path in stamp_files(folder):
        # A file that is damaged fails later, alone.
        with contextlib.suppress(DataFormatError, DataNotFoundError):
            scales.append(np.asarray(read_table(truth_of(path))["SCALE"], np.float64))
    known = np.concatenate(scales)
    known = known[np.isfinite(known)]
    return float(np.median(known)) if len(known) else float("nan")


class StampReader:
    """Stamps in one file.

    Args:
        part: The file.
        expected: What the encoder asks of stamps.

    Raises:
        DataFormatError: File or truth are damaged or do not fit.
        DataNotFoundError: The truth is missing.
    """

    def __init__(self, part: StackPart, expected: Expected) -> None:
        self._stamps, table = read_stamps(part.path), read_table(truth_of(part.path))
        bands = bands_of(table.meta)
        found = expected.difference(table.meta)
        shape = (len(table), len(bands), expected.side, expected.side)
        if found is None and self._stamps.shape != shape:
            found = "shape", shape, self._stamps.shape
        if found is not None:
            key, before, now = found
            raise DataFormatError(
                f"expected {key} = {before} in {part.ids[0]}, but got {now}", now, before
            )
        self._planes = [bands.index(band) for band in expected.bands]
        self._truth = _truth(part, table, expected.training)
        self.rows = np.arange(len(table))

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], Problems]:
        """Return some stamps; see `PartReader`."""
        stamps = np.array(self._stamps[rows][:, self._planes], np.float32)
        return stamps, blank_bad(stamps, rows)

    def truth(self) -> Truth:
        """Return what is known of the stamps."""
        return self._truth


def _truth(part: StackPart, table: Table, training: Training) -> Truth:
    objects, splits = training.look_up(part.group, table)
    number = int(part.path.stem.rpartition("_")[2])
    columns = {
        "SUITE": np.full(len(table), part.group),
        **{name: _plain(table[name]) for name in ("SNAPSHOT", "OBJECT", "PROJECTION", "FILE")},
        "FILE_NUMBER": np.full(len(table), number),
        "ROW": np.arange(len(table)),
        "IDENTITY": objects,
        "SPLIT": splits,
    }
    labels = {name: _plain(table[name]) for name in label_names(table.colnames)}
    return Truth(columns, {name: values for name, values in labels.items() if values.ndim == 1})


def _plain(column: Any) -> NDArray[Any]:  # noqa: ANN401 - astropy's column
    """Return a column in this machine's byte order, text as FITS can hold it."""
    values = np.asarray(column)
    if values.dtype.kind in "SU":
        return strings(values.astype(str))
    return values.astype(values.dtype.newbyteorder("="))
