"""Cleans, splits and matches the rows of several suites, and says what it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen.errors import ConfigError
from datagen.prepared.cleaning import Step, clean
from datagen.prepared.config import PreparedConfig
from datagen.prepared.pairing import Pairs, Rule, pair
from datagen.prepared.splitting import SPLITS, assign
from datagen.prepared.tables import IDENTITY, KEYS, Suite, check_suites, join, labels


@dataclass(frozen=True)
class Prepared:
    """Rows that are ready, and what became of the others.

    Args:
        table: `KEYS`, IDENTITY, SPLIT, MATCH, labels.
        drops: `KEYS` of dropped rows, and the REASON.
        steps: What each step of the cleaning did.
        matches: Pairs of each target suite.
    """

    table: Table
    drops: Table
    steps: list[Step]
    matches: list[Pairs]


def prepare(suites: Sequence[Suite], config: PreparedConfig) -> Prepared:
    """Clean, split and match.

    Args:
        suites: As `data_gen=stamps` wrote them; their order does not matter.
        config: The settings.

    Raises:
        ConfigError: Suites do not fit each other or the settings, or a suite or split is empty.
        DataFormatError: Labels of suites do not fit each other.
    """
    suites = sorted(suites, key=lambda suite: suite.name)
    check_suites(suites, config.bands, config.scale_tolerance)
    joined = join(suites, config.split.by)
    cleaned = clean(joined, config.clean.finite, config.clean.ranges or {})
    table = cleaned.table
    table["SPLIT"] = assign(np.asarray(table[IDENTITY]), config.split.seed, config.split.fractions)
    check_splits(table, config.split.fractions)
    matches = _match(table, config)
    table["MATCH"] = partners(len(table), matches)
    names = [*KEYS, IDENTITY, "SPLIT", "MATCH", *labels(table)]
    return Prepared(table[names], cleaned.drops, cleaned.steps, matches)


def check_splits(table: Table, fractions: Mapping[str, float]) -> None:
    """Raise `ConfigError` where a split that should have objects has none."""
    counts = {split: n["objects"] for split, n in count_splits(table).items()}
    if any(fractions[split] > 0 and not n for split, n in counts.items()):
        what = ", ".join(f"{split} = {n}" for split, n in counts.items())
        raise ConfigError(
            f"expected objects in every split, but the {sum(counts.values())} objects give {what}; "
            "extract more, or choose another data_gen.split.seed or other data_gen.split.fractions",
            what,
        )


def count_splits(table: Table) -> dict[str, dict[str, int]]:
    """Return the number of objects and stamps in each split."""
    splits, ids = np.asarray(table["SPLIT"]), np.asarray(table[IDENTITY])
    rows = {split: splits == split for split in SPLITS}
    return {s: {"objects": len(np.unique(ids[is_in])), "stamps": int(is_in.sum())}
            for s, is_in in rows.items()}  # fmt: skip


def partners(n_rows: int, matches: Sequence[Pairs]) -> NDArray[np.int64]:
    """Return the row of the partner of each row, -1 for none.

    A row of the source that has partners in several suites names that in the first of them.
    """
    found = np.full(n_rows, -1, np.int64)
    for one in reversed(matches):
        found[one.rows[:, 0]], found[one.rows[:, 1]] = one.rows[:, 1], one.rows[:, 0]
    return found


def _match(table: Table, config: PreparedConfig) -> list[Pairs]:
    wanted = config.match
    if wanted.source is None:
        return []
    rule = Rule(wanted.tolerance or {}, wanted.strategy, wanted.within_splits, config.seed)
    return [pair(table, wanted.source, target, rule) for target in wanted.targets]
