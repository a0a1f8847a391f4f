"""Matches suites of a table: who is whose partner, and how alike the pairs are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen.errors import ConfigError
from datagen.prepared.balance import balance
from datagen.prepared.matching import match
from datagen.prepared.splitting import SPLITS
from datagen.prepared.tables import check_field, fields, numbers
from datagen.seeds import stream

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Rule:
    """Which rows may be partners.

    Args:
        tolerance: Field -> largest difference of partners, in the unit of the field.
        strategy: `nearest`, `random` or `max`.
        within_splits: Pair only rows of the same split.
        seed: Of the order of the targets.
    """

    tolerance: Mapping[str, float]
    strategy: str
    within_splits: bool
    seed: int


@dataclass(frozen=True)
class Pairs:
    """Partners of one suite in the source.

    Args:
        target: The suite.
        rows: Rows of the table, of target and source (n, 2).
        by_split: Split of the target -> rows of target and source there, and pairs.
        unknown: Suite -> rows that have no partner since a field of the tolerance is nan or inf.
        balance: Field -> how alike the suites are, before and after.
        largest_difference: Field of the tolerance -> largest difference of partners, nan without
            pairs.
    """

    target: str
    rows: Rows
    by_split: dict[str, dict[str, int]]
    unknown: dict[str, int]
    balance: dict[str, dict[str, float]]
    largest_difference: dict[str, float]


def pair(table: Table, source: str, target: str, rule: Rule) -> Pairs:
    """Find partners in one suite for the rows of another one.

    Args:
        table: With SUITE, SPLIT and fields.
        source: Suite in which partners are looked for.
        target: Suite whose rows get one.
        rule: Which rows may be partners.

    Raises:
        ConfigError: A tolerance is that of a field which no suite has, or one of the two lacks.
    """
    _check_known(table, rule, (source, target))
    suites, splits = np.asarray(table["SUITE"]), np.asarray(table["SPLIT"])
    here, there = (np.flatnonzero(suites == name) for name in (target, source))
    values = np.stack([numbers(table, name) for name in rule.tolerance], axis=1)
    partner = np.full(len(here), -1, np.int64)
    for number, names in enumerate([[s] for s in SPLITS] if rule.within_splits else [list(SPLITS)]):
        rng = stream(rule.seed, number, f"match/{source}/{target}")
        i, j = (np.flatnonzero(np.isin(splits[rows], names)) for rows in (here, there))
        limits = np.array(list(rule.tolerance.values()), np.float64)
        found = match(values[here[i]], values[there[j]], limits, rule.strategy, rng)
        partner[i[found >= 0]] = j[found[found >= 0]]
    rows = np.stack([here[partner >= 0], there[partner[partner >= 0]]], axis=1)
    known = [name for name in _known_in(table, target) if name in _known_in(table, source)]
    return Pairs(
        target=target,
        rows=rows,
        by_split={split: _count(splits, here, there, rows, split) for split in SPLITS},
        unknown={
            name: int(np.count_nonzero(~np.isfinite(values[at]).all(axis=1)))
            for name, at in ((target, here), (source, there))
        },
        balance={
            name: balance(numbers(table, name)[here], numbers(table, name)[there], partner)
            for name in known
        },
        largest_difference={name: _largest(numbers(table, name), rows) for name in rule.tolerance},
    )


def _count(
    splits: NDArray[np.str_], here: Rows, there: Rows, pairs: Rows, split: str
) -> dict[str, int]:
    kinds = {"targets": here, "sources": there, "pairs": pairs[:, 0]}
    return {kind: int((splits[rows] == split).sum()) for kind, rows in kinds.items()}


def _largest(values: NDArray[np.float64], pairs: Rows) -> float:
    offsets = np.abs(values[pairs[:, 0]] - values[pairs[:, 1]])
    return float(offsets.max()) if len(offsets) else float("nan")


def _known_in(table: Table, suite: str) -> list[str]:
    is_there = np.asarray(table["SUITE"]) == suite
    return [f for f in fields(table) if np.isfinite(numbers(table, f)[is_there]).any()]


def _check_known(table: Table, rule: Rule, suites: tuple[str, str]) -> None:
    for name in rule.tolerance:
        check_field(table, name, "data_gen.match.tolerance")
        for suite in suites:
            known = _known_in(table, suite)
            if name not in known:
                raise ConfigError(
                    f"expected data_gen.match.tolerance to name fields that {suites[0]} and "
                    f"{suites[1]} know, but {suite} does not know {name}; it knows "
                    f"{', '.join(known)}",
                    name,
                    known,
                )
