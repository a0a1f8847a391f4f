"""Labels of a pickle of maps: numbers and texts by map, and which maps show the same halo."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.errors import DataFormatError
from datagen.halos.pickles_config import ORDER, HalosPicklesConfig

log = logging.getLogger(__name__)

# Numbers of maps, and of clusters that are not matched, begin at so many times that of their file.
STRIDE = 1_000_000
# Characters of a text; a short pickle may use a long text many times.
MAX_TEXT = 200


@dataclass(frozen=True)
class Simulation:
    """What a pickle holds.

    Args:
        path: The pickle.
        labels: Labels by name: one value, or one per map.
        images: Maps (n, channels, side, side).
    """

    path: Path
    labels: Mapping[str, Any]
    images: NDArray[Any]

    def __len__(self) -> int:
        return len(self.images)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return a label as one number per map (n,).

        Raises:
            DataFormatError: It is missing, no number, or of another length.
        """
        if name not in self.labels:
            raise self.error(name, "a label", f"only {', '.join(self.labels)[:200]}")
        found = array_of(self.labels[name])
        if found.dtype.kind not in "iuf" or found.shape not in ((), (1,), (len(self),)):
            allowed = f"one number, or one for each of {len(self)} maps"
            raise self.error(name, allowed, f"{found.dtype} of shape {found.shape}")
        return np.array(np.broadcast_to(found, len(self)), np.float64)

    def whole_numbers(self, name: str) -> NDArray[np.int64]:
        """Return a label as one whole number per map (n,), 0 at least.

        Raises:
            DataFormatError: It is missing, or no such number.
        """
        found = self.numbers(name)
        self.check(name, found, (found >= 0) & (found < 2**53) & (found == np.floor(found)),
                   "whole numbers >= 0")  # fmt: skip
        return found.astype(np.int64)

    def texts(self, name: str) -> list[str] | None:
        """Return a label as one text per map; None where it holds something else.

        Raises:
            DataFormatError: A text is too long.
        """
        items = self.labels.get(name)
        if isinstance(items, np.ndarray) and items.dtype.kind == "U":
            items = items.tolist()
        if not isinstance(items, list | tuple) or len(items) != len(self):
            return None
        if not all(isinstance(item, str) for item in items):
            return None
        longest = max(map(len, items))
        if longest > MAX_TEXT:
            raise self.error(name, f"texts of at most {MAX_TEXT} characters", f"{longest}")
        return list(items)

    def check(
        self, name: str, values: NDArray[Any], is_fine: NDArray[np.bool_], allowed: str
    ) -> None:
        """Raise `DataFormatError` that names the first map whose label is not fine."""
        if not is_fine.all():
            bad = int(np.argmin(is_fine))
            raise self.error(name, allowed, f"{values[bad]} for map {bad}")

    def error(self, name: str, allowed: str, got: object) -> DataFormatError:
        """Return the error that says what is wrong with a label, or with the maps."""
        return DataFormatError(
            f"{self.path}, {name}: expected {allowed}, but got {got}", got, allowed
        )


def array_of(label: object) -> NDArray[Any]:
    """Return a label as an array; only numbers are unpacked, anything else is an object.

    numpy would give each text in a list the length of the longest one.
    """
    if isinstance(label, np.ndarray):
        return label
    items = label if isinstance(label, list | tuple) else [label]
    if not all(isinstance(item, int | float | np.number) for item in items):
        return np.empty(len(items), object)
    return np.asarray(label)


def is_matched(simulation: Simulation, config: HalosPicklesConfig) -> bool:
    """Tell whether the halos of a pickle have the same numbers in other pickles."""
    return config.match == ORDER or all(key in simulation.labels for key in config.cluster_labels)


def clusters(
    simulation: Simulation,
    config: HalosPicklesConfig,
    mass: NDArray[np.float64],
    redshift: NDArray[np.float64],
    number: int,
) -> NDArray[np.int64]:
    """Return a number per map that its cluster's other maps share (n,).

    Args:
        simulation: The pickle.
        config: The settings; `match` says how halos are recognised.
        mass: Of the halos (n,).
        redshift: Of the halos (n,).
        number: Number of the file.
    """
    if config.match != ORDER and is_matched(simulation, config):
        return _named(simulation, config.cluster_labels)
    rank = _by_mass(mass, redshift)
    n_clusters, n_redshifts = rank.max() + 1, len(np.unique(redshift))
    if config.match != ORDER:
        log.warning(
            "%s has no label %s: its %d maps show %d clusters, told apart by mass and redshift. "
            "Halos of the same initial conditions in other simulations or snapshots are not "
            "recognised; data_gen.cluster_labels or data_gen.match=order can match them",
            simulation.path, " or ".join(config.cluster_labels), len(simulation), n_clusters,
        )  # fmt: skip
        return number * STRIDE + rank
    if n_redshifts > 1:
        log.warning(
            "%s has %d redshifts: data_gen.match=order takes a halo in another snapshot for "
            "another one; only data_gen.cluster_labels can match them",
            simulation.path, n_redshifts,
        )  # fmt: skip
    return rank


def projections(simulation: Simulation, cluster: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of the projection of each map (n,).

    It is the label `projection`: whole numbers, or the place of a name among all names. Without
    one, maps of a cluster are counted.
    """
    if "projection" not in simulation.labels:
        order = np.argsort(cluster, kind="stable")
        counts = np.unique(cluster, return_counts=True)[1]
        place = np.empty(len(cluster), np.int64)
        place[order] = np.arange(len(cluster)) - np.repeat(np.cumsum(counts) - counts, counts)
        return place
    names = simulation.texts("projection")
    if names is None:
        return simulation.whole_numbers("projection")
    rank = {name: place for place, name in enumerate(sorted(set(names)))}
    return np.array([rank[name] for name in names], np.int64)


def _named(simulation: Simulation, keys: list[str]) -> NDArray[np.int64]:
    """Return the number of each halo by its labels (n,): a single number itself, else a hash."""
    if len(keys) == 1 and simulation.texts(keys[0]) is None:
        return simulation.whole_numbers(keys[0])
    columns = []
    for key in keys:
        texts: list[Any] | None = simulation.texts(key)
        if texts is None:
            numbers = simulation.numbers(key)
            simulation.check(key, numbers, np.isfinite(numbers), "finite numbers")
            texts = numbers.tolist()
        columns.append(texts)
    rows = (json.dumps(row).encode() for row in zip(*columns, strict=True))
    hashed = [int.from_bytes(hashlib.sha256(row).digest()[:8], "big") >> 1 for row in rows]
    return np.array(hashed, np.int64)


def _by_mass(mass: NDArray[np.float64], redshift: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return clusters numbered in the order in which they first appear (n,).

    Maps whose mass and redshift are the same to the last digit show the same halo.
    """
    pairs = np.stack([mass, redshift], axis=1)
    _, where, inverse = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(where), np.int64)
    rank[np.argsort(where)] = np.arange(len(where))
    return np.asarray(rank[inverse.reshape(-1)])
