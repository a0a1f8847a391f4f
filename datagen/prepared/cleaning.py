"""Drops rows that cannot be trained on, and counts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from astropy.table import Table, vstack
from numpy.typing import NDArray

from datagen.errors import ConfigError
from datagen.prepared.tables import (
    IS_KNOWN,
    KEYS,
    STAMP_KEYS,
    check_field,
    count,
    labels,
    numbers,
)

Mask = NDArray[np.bool_]
Range = Sequence[float | None]


@dataclass(frozen=True)
class Step:
    """What one step did to each suite.

    Args:
        name: The reason for which rows are dropped.
        rule: Which rows that are, in words.
        rows_in: Rows before, by suite.
        rows_out: Rows after, by suite.
    """

    name: str
    rule: str
    rows_in: dict[str, int]
    rows_out: dict[str, int]


@dataclass(frozen=True)
class Cleaned:
    """What is left, and what is not.

    Args:
        table: Rows that stay.
        drops: `KEYS` of the others, and the REASON.
        steps: In their order.
    """

    table: Table
    drops: Table
    steps: list[Step]


def clean(table: Table, finite: Sequence[str], ranges: Mapping[str, Range]) -> Cleaned:
    """Drop duplicates, rows without id or pixel scale, with unknown fields, and beyond cuts.

    A suite in which a field is nowhere known is not asked for it.

    Args:
        table: Of all suites, as `join` returns it.
        finite: Fields that must be known.
        ranges: Field -> [lowest, highest] that stays, ends included; None is an open end.

    Raises:
        ConfigError: A field is unknown, or nothing is left of a suite.
    """
    for setting, names in (("finite", finite), ("ranges", ranges)):
        for name in names:
            check_field(table, name, f"data_gen.clean.{setting}")
    suites = sorted(set(table["SUITE"].tolist()))
    asked = {name: _suites_that_know(table, name) for name in {*finite, *ranges}}
    steps, drops = [], []
    for reason, rule, find in _rules(finite, ranges, asked):
        is_bad = find(table)
        left = table[~is_bad]
        steps.append(Step(reason, rule, count(table, suites), count(left, suites)))
        gone = table[list(KEYS)][is_bad]
        gone["REASON"] = np.full(len(gone), reason)
        drops.append(gone)
        table = left
    _check_left(steps)
    return Cleaned(table, vstack(drops, metadata_conflicts="silent"), steps)


def repeated(table: Table) -> tuple[Mask, Mask]:
    """Find rows with the same suite, snapshot, object and projection.

    Args:
        table: Sorted by `KEYS`.

    Returns:
        Whether a row repeats another one, with equal labels; whether it has a twin that says
        something else, so that none of them can be trusted.
    """
    is_new = np.ones(len(table), bool)
    if len(table) > 1:
        changes = [np.asarray(table[key])[1:] != np.asarray(table[key])[:-1] for key in STAMP_KEYS]
        is_new[1:] = np.any(changes, axis=0)
    group = np.cumsum(is_new) - 1
    first = np.flatnonzero(is_new)[group]
    differs = np.zeros(len(table), bool)
    for name in labels(table):
        values = np.asarray(table[name])
        same = values == values[first]
        if values.dtype.kind == "f":
            same |= np.isnan(values) & np.isnan(values[first])
        differs |= ~same
    in_conflict = np.bincount(group, weights=differs, minlength=1)[group] > 0
    return ~is_new & ~in_conflict, in_conflict


def _rules(
    finite: Sequence[str], ranges: Mapping[str, Range], asked: Mapping[str, list[str]]
) -> Iterator[tuple[str, str, Callable[[Table], Mask]]]:
    """Yield reason, rule in words, and what finds such rows."""
    yield (
        "in conflict",
        "several rows for one suite, snapshot, object and projection, with different labels: none "
        "of them stays",
        lambda table: repeated(table)[1],
    )
    yield (
        "duplicate",
        "a row again, with the same labels: the first one stays",
        lambda table: repeated(table)[0],
    )
    yield (
        "no id",
        "no id (data_gen.split.by), so that no split can be chosen",
        lambda table: ~np.asarray(table[IS_KNOWN]),
    )
    yield "no pixel scale", "SCALE is not a number > 0", lambda table: ~_is_scale(table)
    for name in finite:
        yield f"unknown {name}", f"{name} is nan or inf", partial(_unknown, name, asked[name])
    for name, ends in ranges.items():
        low, high = (f"{end:g}" if end is not None else "" for end in ends)
        yield (
            f"{name} out of range",
            f"{name} outside [{low}, {high}], or nan or inf",
            partial(_beyond, name, ends, asked[name]),
        )


def _is_scale(table: Table) -> Mask:
    scale = numbers(table, "SCALE")
    return np.asarray(np.isfinite(scale) & (scale > 0))


def _unknown(name: str, suites: list[str], table: Table) -> Mask:
    return np.asarray(~np.isfinite(numbers(table, name)) & np.isin(table["SUITE"], suites))


def _beyond(name: str, ends: Range, suites: list[str], table: Table) -> Mask:
    low, high = (-np.inf if ends[0] is None else ends[0], np.inf if ends[1] is None else ends[1])
    values = numbers(table, name)
    is_inside = (values >= low) & (values <= high) & np.isfinite(values)
    return np.asarray(~is_inside & np.isin(table["SUITE"], suites))


def _suites_that_know(table: Table, name: str) -> list[str]:
    return sorted(set(np.asarray(table["SUITE"])[np.isfinite(numbers(table, name))].tolist()))


def _check_left(steps: list[Step]) -> None:
    """Raise `ConfigError` where a suite is empty, naming the step that took most of it."""
    for suite, n_left in steps[-1].rows_out.items():
        if not n_left:
            worst = max(steps, key=lambda step: step.rows_in[suite] - step.rows_out[suite])
            n_gone = worst.rows_in[suite] - worst.rows_out[suite]
            raise ConfigError(
                f"expected rows of suite {suite} to be left, but of {steps[0].rows_in[suite]} "
                f"{n_gone} are dropped for: {worst.name} ({worst.rule}); change data_gen.clean, or "
                "leave the suite out (data_gen.suites)",
                worst.name,
            )
