"""The stamps of a training: chosen by `data_gen=prepared`, with pixels of `data_gen=stamps`."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray
from torch import Tensor

from datagen.errors import ConfigError, DataFormatError
from datagen.files import content_hash
from datagen.prepared import format as prepared
from datagen.stamps import format as stamps

Numbers = NDArray[np.int64]

# Mapped files that are kept open.
N_OPEN_FILES = 4096
STAMP_KEYS = ("SNAPSHOT", "OBJECT", "PROJECTION")
REDSHIFT = "redshift"


@dataclass(frozen=True)
class Place:
    """Where the pixels of a suite are.

    Args:
        folder: Of the suite.
        planes: Numbers of the wanted bands.
    """

    folder: Path
    planes: list[int]


@dataclass(frozen=True)
class StampSet:
    """Stamps in a fixed order, described; pixels are read when they are asked for.

    Args:
        table: `PREPARED_COLUMNS` and labels, a row per stamp.
        places: By suite.
        bands: In the order of the planes that are read.
        side: Of a stamp [px].
        unit: Of the pixels.
        zero_point: Of pixels that are AB fluxes [mag]; None of others.
        scaler: What `scaler.json` holds.
        split: How objects were split: by, seed, fractions.
        index: A number of each stamp, which no other stamp or suite changes (n,).
        labels: Names of the fields that probes ask for.
        values: Their values, NaN where unknown (n, F), float32.
        identity: Identifies how stamps were made and prepared.
    """

    table: Table
    places: Mapping[str, Place]
    bands: list[str]
    side: int
    unit: str
    zero_point: float | None
    scaler: Mapping[str, Any]
    split: Mapping[str, Any]
    index: Numbers
    labels: list[str]
    values: NDArray[np.float32]
    identity: str

    def __len__(self) -> int:
        return len(self.table)

    @property
    def suites(self) -> list[str]:
        """Names of the suites, sorted."""
        return sorted(self.places)

    @property
    def softening(self) -> float:
        """Where pixels turn from linear to logarithmic [unit of the pixels]."""
        return float(self.scaler["stretch"]["softening"])

    @property
    def objects(self) -> Numbers:
        """Number that stamps of one object share (n,)."""
        return np.asarray(self.table[prepared.IDENTITY], np.int64)

    @functools.cached_property
    def suite(self) -> NDArray[np.str_]:
        """Suite of each stamp (n,)."""
        return np.asarray(self.table["SUITE"], str)

    @functools.cached_property
    def file(self) -> Numbers:
        """Number of the file of each stamp (n,)."""
        return np.asarray(self.table["FILE_NUMBER"], np.int64)

    @functools.cached_property
    def row(self) -> Numbers:
        """Row of each stamp in its file (n,)."""
        return np.asarray(self.table["ROW"], np.int64)

    @property
    def fwhm(self) -> NDArray[np.float32]:
        """Widest PSF of the bands of each stamp, NaN where unknown (n,) [arcsec]."""
        # fmax takes the other value where one is unknown.
        return np.asarray(np.fmax.reduce(self.of_bands("FWHM"), axis=1))

    @property
    def pixel_scale(self) -> float | None:
        """Median pixel scale [arcsec/px]; None where none is known."""
        scales = self.known("SCALE")
        return float(np.nanmedian(scales)) if np.isfinite(scales).any() else None

    def numbers(self, split: str) -> Numbers:
        """Return the numbers of the stamps of a split."""
        return np.flatnonzero(np.asarray(self.table["SPLIT"]) == split).astype(np.int64)

    def names(self, numbers: Numbers) -> list[str]:
        """Return how stamps are called: suite, snapshot, object and projection."""
        return _names(self.table[numbers])

    def known(self, name: str) -> NDArray[np.float32]:
        """Return a column, NaN where there is none (n,)."""
        if name not in self.table.colnames:
            return np.full(len(self.table), np.nan, np.float32)
        return np.asarray(self.table[name], np.float32)

    def of_bands(self, name: str) -> NDArray[np.float32]:
        """Return what is known of each band (n, bands).

        Where no band has a column of its own, the column without a band holds for all.
        """
        if not any(column.startswith(f"{name}_") for column in self.table.colnames):
            return np.repeat(self.known(name)[:, None], len(self.bands), axis=1)
        return np.stack([self.known(f"{name}_{band.upper()}") for band in self.bands], axis=1)

    def read(self, numbers: Numbers) -> Tensor:
        """Return stamps (n, bands, side, side), float32.

        Raises:
            DataFormatError: A file is damaged, or a pixel is not finite.
        """
        found = np.empty((len(numbers), len(self.bands), self.side, self.side), np.float32)
        where = (column[numbers].tolist() for column in (self.suite, self.file, self.row))
        for stamp, suite, file, row in zip(found, *where, strict=True):
            place = self.places[suite]
            path = stamps.stamps_path(place.folder, file)
            stamps.check_row(path, _mapped(path), row)
            stamp[:] = _mapped(path)[row][place.planes]
        is_wrong = ~np.isfinite(found).all(axis=(1, 2, 3))
        if is_wrong.any():
            name = self.names(numbers[is_wrong][:1])[0]
            raise DataFormatError(
                f"expected finite pixels, but stamp {name} has NaN or infinite ones; make it again "
                f"with: {stamps.COMMAND}",
                name,
            )
        return torch.from_numpy(found)


def open_stamps(
    stamps_dir: Path,
    data_dir: Path,
    suites: Sequence[str] | None,
    bands: Sequence[str] | None,
    labels: Sequence[str] | None,
) -> StampSet:
    """Look at the stamps of a training.

    Args:
        stamps_dir: Holds a folder of stamps for each suite.
        data_dir: What `data_gen=prepared` wrote.
        suites: Those that are wanted; None takes all that were prepared.
        bands: Those that are wanted, in this order; None takes those of the stamps.
        labels: Fields that probes ask for; None takes all that are known.

    Raises:
        DataNotFoundError: Stamps or prepared files are missing.
        DataFormatError: They are damaged, or the stamps have changed since they were prepared.
        ConfigError: A suite, band or label is not there.
    """
    table, scaler = prepared.read_prepared(data_dir), prepared.read_scaler(data_dir)
    wanted = _wanted_suites(table, suites)
    table = table[np.isin(np.asarray(table["SUITE"], str), wanted)]
    manifest = prepared.read_manifest(data_dir)
    headers = {suite: _header(stamps_dir / suite, table, manifest, data_dir) for suite in wanted}
    first = headers[wanted[0]]
    wanted_bands = stamps.bands_of(first) if bands is None else list(bands)
    places = {suite: Place(stamps_dir / suite, _planes(suite, header, wanted_bands))
              for suite, header in headers.items()}  # fmt: skip
    names = _labels(scaler, labels)
    hashes = {suite: str(header.get("CONFHASH", "")) for suite, header in headers.items()}
    values = [np.asarray(table[name], np.float32) for name in names]
    return StampSet(
        table=table,
        places=places,
        bands=wanted_bands,
        side=int(first["SIDE"]),
        unit=str(first["UNIT"]),
        zero_point=None if first.get("ZEROPT") is None else float(first["ZEROPT"]),
        scaler=scaler,
        split=manifest["settings"]["split"],
        index=_numbers(_names(table)),
        labels=names,
        values=np.stack(values, axis=1) if names else np.empty((len(table), 0), np.float32),
        identity=content_hash({"suites": hashes, "prepared": str(table.meta.get("CONFHASH", ""))}),
    )


@functools.lru_cache(maxsize=N_OPEN_FILES)
def _mapped(path: Path) -> NDArray[np.float32]:
    return stamps.read_stamps(path)


def _names(rows: Table) -> list[str]:
    keys = ["SUITE", *STAMP_KEYS]
    return ["/".join(map(str, row)) for row in rows[keys].iterrows()]


def _numbers(names: Sequence[str]) -> Numbers:
    """Return a number for each name, of 62 bits: two stamps share one practically never."""
    digests = (hashlib.sha256(name.encode()).digest()[:8] for name in names)
    return np.array([int.from_bytes(digest, "big") >> 2 for digest in digests], np.int64)


def _wanted_suites(table: Table, suites: Sequence[str] | None) -> list[str]:
    there = sorted(set(np.asarray(table["SUITE"], str).tolist()))
    if suites is None:
        return there
    unknown = [suite for suite in suites if suite not in there]
    if unknown or not suites:
        raise ConfigError(
            f"expected data.suites to name suites that were prepared ({', '.join(there)}), but got "
            f"suites = {list(suites)}; prepare others with: {prepared.COMMAND}",
            unknown,
            there,
        )
    return sorted(set(suites))


def _planes(suite: str, header: Mapping[str, Any], bands: Sequence[str]) -> list[int]:
    there = stamps.bands_of(header)
    if not bands or len(set(bands)) < len(bands) or not set(bands) <= set(there):
        raise ConfigError(
            f"expected data.bands to name different bands of suite {suite}, which has "
            f"{', '.join(there)}, but got bands = {list(bands)}",
            list(bands),
            there,
        )
    return [there.index(band) for band in bands]


def _labels(scaler: Mapping[str, Any], labels: Sequence[str] | None) -> list[str]:
    there = stamps.label_names(list(scaler["labels"]))
    if labels is None:
        return there
    unknown = [name for name in labels if name not in there]
    if unknown:
        raise ConfigError(
            f"expected data.labels to name fields of the stamps ({', '.join(there)}), but got "
            f"{', '.join(unknown)}; a suite's yaml (conf/suite) says which columns become fields",
            unknown,
            there,
        )
    return list(labels)


def _header(
    folder: Path, table: Table, manifest: Mapping[str, Any], data_dir: Path
) -> Mapping[str, Any]:
    """Return what the stamps of a suite have in common, if they are those that were prepared."""
    suite, there = folder.name, stamps.read_labels(folder)
    chosen = table[np.asarray(table["SUITE"], str) == suite]
    told = manifest["suites"].get(suite, {}).get("config_hash")
    if not (there.meta.get("CONFHASH", "") == told and _are_unchanged(chosen, there)):
        raise DataFormatError(
            f"the stamps of suite {suite} have changed since {data_dir} was prepared; run again: "
            f"{prepared.COMMAND}",
            suite,
        )
    header: Mapping[str, Any] = there.meta
    return header


def _are_unchanged(chosen: Table, there: Table) -> bool:
    """Tell whether rows still lie where they were prepared."""
    places = zip(there["FILE_NUMBER"].tolist(), there["ROW"].tolist(), strict=True)
    place_of = {place: row for row, place in enumerate(places)}
    wanted = zip(chosen["FILE_NUMBER"].tolist(), chosen["ROW"].tolist(), strict=True)
    rows = [place_of.get(place, -1) for place in wanted]
    return min(rows, default=0) >= 0 and all(
        bool((np.asarray(there[key])[rows] == np.asarray(chosen[key])).all()) for key in STAMP_KEYS
    )
