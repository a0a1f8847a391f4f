"""Sets of maps as a training names them: which of their halos, and what of their truth, is used."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.halos.format import (
    COMMAND,
    channels_of,
    is_dataset,
    map_files,
    read_maps,
    read_truth,
    truth_of,
)

Numbers = NDArray[np.int64]
# What a training is told of the cross-section of a set: each map's; that it is one, but not which;
# nothing at all; not even of its maps, which are only tested.
KNOWN, CLASS, NONE, HELD_OUT = "known", "class", "none", "held_out"
LABELS = (KNOWN, CLASS, NONE, HELD_OUT)
# Digits to which two cross-sections are the same [cm^2/g].
N_DIGITS = 9
# Memory maps are cheap, but each one counts against the limit of the process.
N_OPEN_FILES = 256


@dataclass(frozen=True)
class Wanted:
    """What a training takes of a set.

    Args:
        name: Of the set.
        labels: `known`, `class`, `none` or `held_out`.
        cross_sections: Of the maps to take [cm^2/g]; None takes all.
        accept_unmatched: Split also a suite whose header says that a halo may have other numbers in
            other files, so that maps of it train and test.
        n_clusters: Number of halos to take; fewer are among more. None takes all.
        folder: Folder below `data.data_dir`; None is that of the name.
    """

    name: str
    labels: str
    cross_sections: list[float] | None = None
    accept_unmatched: bool = False
    n_clusters: int | None = None
    folder: str | None = None

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise ConfigError(
                f"expected data.sets.{self.name} to be one of {', '.join(LABELS)}, null, but got "
                f"labels "
                f"= {self.labels}",
                self.labels,
                LABELS,
            )
        if type(self.accept_unmatched) is not bool:
            raise ConfigError(
                f"expected data.sets.{self.name}.accept_unmatched to be true or false, but got "
                f"accept_unmatched = {self.accept_unmatched}",
                self.accept_unmatched,
            )
        if self.n_clusters is not None and self.n_clusters < 1:
            raise ConfigError(
                f"expected data.sets.{self.name}.n_clusters >= 1 or null, but got n_clusters = "
                f"{self.n_clusters}",
                self.n_clusters,
            )


def parse_sets(sets: Mapping[str, Any]) -> list[Wanted]:
    """Return what `data.sets` asks for.

    Args:
        sets: By name `labels`, or a mapping with `labels` and more, or None: the set is not used.

    Raises:
        ConfigError: There is no set to learn from, or a word or number is not allowed.
    """
    found = []
    for name, options in sets.items():
        if options is None:
            continue
        given = options if isinstance(options, Mapping) else {"labels": options}
        try:
            found.append(Wanted(str(name), **given))
        except TypeError as error:
            raise ConfigError(
                f"expected data.sets.{name} to give labels, cross_sections, n_clusters, folder or "
                f"accept_unmatched, but got {dict(given)}",
                dict(given),
            ) from error
    if all(one.labels == HELD_OUT for one in found):
        raise ConfigError(
            "expected data.sets to name a set to learn from, for example {a: known}, but got "
            f"{dict(sets)}",
            dict(sets),
        )
    return found


@dataclass(frozen=True)
class MapSet:
    """The chosen maps of a set; pixels are read later.

    Args:
        wanted: What was asked for.
        channels: Names of all channels of its files.
        units: Of the pixels of each channel.
        side: Side of a map [px].
        pixel_scale: [kpc/px].
        index: Numbers of the maps in their suite (n,).
        cluster: Numbers of the halos in their suite (n,).
        halo: Identity of the halo of each map: sets with the same seed share their halos (n,).
        cross_section: [cm^2/g]; NaN where unknown (n,).
        paths: Its files.
        places: File and row of each map (n, 2).
        identity: Identifies the files.
    """

    wanted: Wanted
    channels: list[str]
    units: list[str]
    side: int
    pixel_scale: float
    index: Numbers
    cluster: Numbers
    halo: NDArray[np.str_]
    cross_section: NDArray[np.float64]
    paths: list[Path]
    places: Numbers
    identity: str


def open_set(data_dir: Path, wanted: Wanted) -> MapSet:
    """Look at a set below a folder.

    Raises:
        DataNotFoundError: There is no such set; the message names those that there are.
        DataFormatError: Its files are damaged, do not fit one another, or lack what is asked for.
        ConfigError: Nothing is left of it, or its halos are not matched across files.
    """
    name = wanted.folder or wanted.name
    folder = data_dir / name
    if not is_dataset(folder):
        there = sorted(path.name for path in data_dir.glob("*") if is_dataset(path))
        raise DataNotFoundError(
            f"expected data.sets to name folders of maps in data.data_dir = {data_dir}, which has "
            f"{', '.join(there) or 'none'}, but got {name}; make it with: {COMMAND} "
            f"halo={name}",
            name,
            there,
        )
    paths = map_files(folder)
    truths = [_truth(path) for path in paths]
    first = truths[0].meta
    channels, cluster = channels_of(first), _column(truths, "CLUSTER", np.int64)
    for path, truth in zip(paths, truths, strict=True):
        _check_file(path, truth, first, (len(channels), int(first["SIDE"])))
        _check_matched(path, truth, wanted)
    seeds = np.concatenate([np.full(len(t), str(t.meta["SEED"])) for t in truths])
    rows = [np.stack((np.full(len(t), k), np.arange(len(t))), axis=1) for k, t in enumerate(truths)]
    index = _column(truths, "INDEX", np.int64)
    _check_unique(index, np.concatenate(rows), paths)
    cross_section = _column(truths, "CROSS_SECTION", np.float64).round(N_DIGITS)
    chosen = _choose(wanted, cluster, cross_section)
    return MapSet(
        wanted=wanted,
        channels=channels,
        units=[str(first[f"UNIT_{k}"]) for k in range(len(channels))],
        side=int(first["SIDE"]),
        pixel_scale=float(first["PIXSCALE"]),
        index=index[chosen],
        cluster=cluster[chosen],
        halo=np.char.add(np.char.add(seeds, "/"), cluster.astype(str))[chosen],
        cross_section=cross_section[chosen],
        paths=paths,
        places=np.concatenate(rows)[chosen],
        identity=_identity(truths),
    )


@functools.lru_cache(maxsize=N_OPEN_FILES)
def mapped(path: Path) -> NDArray[np.float32]:
    """Return a file of maps, mapped into memory."""
    return read_maps(path)


def _truth(path: Path) -> Any:  # noqa: ANN401 - astropy's table
    return read_truth(truth_of(path))


def _column(truths: list[Any], name: str, dtype: type) -> NDArray[Any]:
    """Return a column of all tables, in the byte order of this machine."""
    return np.concatenate([np.asarray(truth[name]) for truth in truths]).astype(dtype)


def _check_file(path: Path, truth: Any, first: Any, shape: tuple[int, int]) -> None:  # noqa: ANN401
    """Raise `DataFormatError` unless a file holds what its truth and the first file say."""
    expected = (len(truth), shape[0], shape[1], shape[1])
    if mapped(path).shape != expected:
        raise DataFormatError(
            f"expected {path} to hold maps of the shape {expected}, as its truth says, but got "
            f"{mapped(path).shape}; make it again with: {COMMAND}",
            mapped(path).shape,
            expected,
        )
    for key in ("CHANNELS", "SIDE", "PIXSCALE", *(f"UNIT_{k}" for k in range(shape[0]))):
        if truth.meta[key] != first[key]:
            raise DataFormatError(
                f"expected {key} = {first[key]} in all files of a set, but {truth_of(path)} has "
                f"{key} = {truth.meta[key]}; make it again with: {COMMAND}",
                truth.meta[key],
                first[key],
            )


def _check_matched(path: Path, truth: Any, wanted: Wanted) -> None:  # noqa: ANN401
    """Raise `ConfigError` where a halo may be in several splits, unless that is accepted."""
    if truth.meta.get("MATCHED", True) or wanted.accept_unmatched:
        return
    raise ConfigError(
        f"expected halos with the same CLUSTER in all files of data.sets.{wanted.name}, but "
        f"{truth_of(path)} has MATCHED = F: maps of one halo would train and test. Convert the "
        "pickles with data_gen.match=order or other data_gen.cluster_labels, or add "
        f"accept_unmatched: true to data.sets.{wanted.name}",
        False,
        True,
    )


def _check_unique(index: Numbers, places: Numbers, paths: list[Path]) -> None:
    """Raise `DataFormatError` if two maps have the same INDEX, by which answers are told apart."""
    order = np.argsort(index, kind="stable")
    twice = np.flatnonzero(np.diff(index[order]) == 0)
    if not len(twice):
        return
    one, other = (f"{truth_of(paths[places[n, 0]])}, row {places[n, 1]}"
                  for n in order[twice[0]:][:2])  # fmt: skip
    number = int(index[order[twice[0]]])
    raise DataFormatError(
        f"expected INDEX to be unique in a set, but INDEX = {number} is that of {one}, and of "
        f"{other}; give each map a number of its own",
        number,
    )


def _choose(wanted: Wanted, cluster: Numbers, cross_section: NDArray[np.float64]) -> Numbers:
    """Return the rows that are wanted, rising."""
    is_chosen = np.ones(len(cluster), dtype=bool)
    if wanted.cross_sections is not None:
        there = np.unique(cross_section[np.isfinite(cross_section)])
        chosen = np.round(np.asarray(wanted.cross_sections, dtype=float), N_DIGITS)
        missing = [float(value) for value in chosen if value not in there]
        if missing or not len(chosen):
            raise ConfigError(
                f"expected data.sets.{wanted.name}.cross_sections to be some of "
                f"{', '.join(f'{value:g}' for value in there) or 'none'} cm2/g, but got "
                f"{wanted.cross_sections}",
                wanted.cross_sections,
                there.tolist(),
            )
        is_chosen &= np.isin(cross_section, chosen)
    if wanted.labels == KNOWN and not np.isfinite(cross_section[is_chosen]).all():
        raise ConfigError(
            f"expected the cross-section of every map of data.sets.{wanted.name} = known, but some "
            "have none; use class or none",
            wanted.labels,
            (CLASS, NONE),
        )
    if wanted.n_clusters is not None:
        is_chosen &= np.isin(cluster, _first(cluster[is_chosen], wanted))
    return np.flatnonzero(is_chosen).astype(np.int64)


def _first(cluster: Numbers, wanted: Wanted) -> list[int]:
    """Return so many halos, always the same ones first."""
    there = sorted(set(cluster.tolist()), key=_rank)
    assert wanted.n_clusters is not None
    if wanted.n_clusters > len(there):
        raise ConfigError(
            f"expected data.sets.{wanted.name}.n_clusters <= {len(there)}, but got n_clusters = "
            f"{wanted.n_clusters}; make more files (data_gen.nfiles)",
            wanted.n_clusters,
            len(there),
        )
    return there[: wanted.n_clusters]


def _rank(cluster: int) -> bytes:
    return hashlib.sha256(f"n_clusters/{cluster}".encode()).digest()


def _identity(truths: list[Any]) -> str:
    """Return what tells the maps of these settings from others, however many there are."""
    kinds = {
        "/".join(str(t.meta.get(key, "")) for key in ("SUITE", "SEED", "ENGINE", "CONFHASH"))
        for t in truths
    }
    return ";".join(sorted(kinds))
