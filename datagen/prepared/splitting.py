"""Which split an object belongs to: a hash puts it on [0, 1), and splits are intervals there.

An object has a fixed place u in [0, 1), which follows from (seed, id) alone. Splits are intervals
of u in the order of `SPLITS`. Hence:

- All projections and snapshots of an object, in whatever suites, are in one split.
- Other objects do not matter: adding or removing them moves none.
- Where fractions change, an object moves only if its u lies between the old and the new place of a
  boundary. The expected share of those is at most the sum over boundaries of how far each moves.
- Where one split gains what its neighbour loses, objects move from the one to the other only. train
  is a neighbour of val, of domain, and of test as long as domain is empty.
- A split whose ends stay or move outwards loses no object: train loses none while neither val nor
  domain and test together grow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.errors import ConfigError, DataFormatError

# In the order of their intervals: train has val and test beside it, as long as domain is empty.
SPLITS = ("val", "train", "domain", "test")
# Not known, so that no split can be chosen.
UNKNOWN = ""
# Digits to which boundaries are the sums of fractions; those of decimal fractions end at 1.
_N_DIGITS = 12
# Whole numbers beyond it are not exact in double precision.
_EXACT = 2.0**53


def check_fractions(fractions: Mapping[str, float]) -> dict[str, float]:
    """Return the fractions in the order of `SPLITS`.

    Raises:
        ConfigError: A name is missing or unknown, a fraction is negative, train is empty, or the
            sum is not 1.
    """
    values = {str(name): float(value) for name, value in fractions.items()}
    is_complete = sorted(values) == sorted(SPLITS)
    is_fine = is_complete and min(values.values()) >= 0 and values["train"] > 0
    if not is_fine or not abs(sum(values.values()) - 1.0) < 1e-6:
        raise ConfigError(
            "expected data_gen.split.fractions to give train (> 0), val, test and domain (>= 0) "
            f"that sum to 1, but got fractions = {values}",
            values,
            SPLITS,
        )
    return {name: values[name] for name in SPLITS}


def intervals(fractions: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Return the part of [0, 1) that each split has, its end excluded."""
    ends = np.round(np.cumsum([0.0, *(fractions[name] for name in SPLITS)]), _N_DIGITS)
    last = max(k for k, name in enumerate(SPLITS) if fractions[name] > 0)
    ends[last + 1 :] = 1.0
    return {name: (float(low), float(high))
            for name, (low, high) in zip(SPLITS, pairwise(ends), strict=True)}  # fmt: skip


def identities(values: NDArray[Any], name: str) -> NDArray[np.str_]:
    """Return ids as text; `UNKNOWN` for negative numbers, nan and empty text.

    Args:
        values: Whole numbers, also as floats, or text (n,).
        name: Of the column, for messages.

    Raises:
        DataFormatError: A number is not whole, or too large to be exact.
    """
    if values.dtype.kind in "SU":
        return np.char.strip(values.astype(str))
    if values.dtype.kind not in "iuf":
        raise DataFormatError(
            f"expected {name} (data_gen.split.by) to be whole numbers or text, but got "
            f"{values.dtype}",
            str(values.dtype),
        )
    # A comparison with nan is false: it is not known.
    is_known = np.asarray(values >= 0)
    if values.dtype.kind == "f":
        known = values[is_known]
        is_wrong = (known != np.floor(known)) | (known >= _EXACT)
        if is_wrong.any():
            raise DataFormatError(
                f"expected {name} (data_gen.split.by) to be whole numbers below 2^53, or stored as "
                f"integers or text, but got {known[is_wrong][0]!s}",
                float(known[is_wrong][0]),
            )
        values = np.where(is_known, values, 0).astype(np.int64)
    return np.where(is_known, values.astype(str), UNKNOWN)


def positions(ids: NDArray[Any], seed: int) -> NDArray[np.float64]:
    """Return the place u in [0, 1) of each id (n,), from SHA-256 of `<seed>/<id>`."""
    distinct, inverse = np.unique(ids, return_inverse=True)
    # 53 bits are exact in double precision, and never round up to 1.
    places = [(_digest(f"{seed}/{name}") >> 11) / _EXACT for name in distinct]
    return np.array(places, np.float64)[inverse.reshape(-1)]


def numbers_of(ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return a number for each id that rows with the same one share, whatever else is there."""
    distinct, inverse = np.unique(ids, return_inverse=True)
    return np.array([_digest(name) >> 1 for name in distinct], np.int64)[inverse.reshape(-1)]


def assign(ids: NDArray[Any], seed: int, fractions: Mapping[str, float]) -> NDArray[np.str_]:
    """Return the split of each row.

    Args:
        ids: What rows of one object share (n,).
        seed: Another seed gives another assignment.
        fractions: Share of each of `SPLITS`.
    """
    ends = [high for _, high in intervals(fractions).values()]
    found = np.searchsorted(ends, positions(ids, seed), side="right")
    return np.array(SPLITS)[found]


def count_straddlers(ids: NDArray[Any], splits: NDArray[np.str_]) -> int:
    """Return how many ids have rows in more than one split."""
    if not len(ids):
        return 0
    pairs = np.unique(np.stack([ids.astype(str), splits.astype(str)]), axis=1)
    return int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
