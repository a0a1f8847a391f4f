"""Suites in memory: no object straddles splits, pairs stay within theirs, links join snapshots."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.errors import ConfigError, DataFormatError
from datagen.prepared.config import MatchSettings, PreparedConfig, SplitSettings
from datagen.prepared.prepare import prepare
from datagen.prepared.tables import Suite
from tests.datagen.prepared.stamps import columns, make_suite

Settings = Callable[..., PreparedConfig]
FRACTIONS = {"train": 0.4, "val": 0.2, "test": 0.2, "domain": 0.2}


@pytest.fixture(scope="module")
def config(settings: Settings) -> PreparedConfig:
    return settings()


def matched(config: PreparedConfig, **changes: Any) -> PreparedConfig:  # noqa: ANN401
    options = {"source": "obs", "targets": ["a"], "tolerance": {"z": 0.05}, "strategy": "nearest"}
    match = MatchSettings(**{**options, "within_splits": True, **changes})
    return dataclasses.replace(config, match=match)


def random_suite(rng: np.random.Generator, name: str, is_shuffled: bool) -> Suite:
    """Objects in several snapshots and projections, repeated, in any order, also of other suites.

    An object of a snapshot has the number of another object in the next one, as in merger trees.
    """
    n = int(rng.integers(30, 120))
    histories, snapshots = rng.integers(0, 25, n), rng.integers(90, 93, n)
    labels = {
        "SNAPSHOT": snapshots,
        "OBJECT": (histories + 7 * snapshots) % 25,
        "PROJECTION": rng.integers(0, 3, n),
        "SCALE": np.full(n, 0.3),
        "tree": histories + 10**12,
        "z": np.round(histories / 25.0 + snapshots, 3),
    }
    order = rng.permutation(n) if is_shuffled else np.arange(n)
    return make_suite(name, {key: value[order] for key, value in labels.items()})


def splits_by(table: Table, *keys: str) -> dict[tuple[Any, ...], set[str]]:
    """Return all splits of rows with equal keys."""
    found: dict[tuple[Any, ...], set[str]] = {}
    for row in table:
        found.setdefault(tuple(row[key] for key in keys), set()).add(row["SPLIT"])
    return found


@given(seed=st.integers(0, 10**6), by=st.sampled_from(["object", "tree"]), split=st.integers(0, 99))
@settings(max_examples=12, deadline=None)
def test_no_object_straddles_splits(config: PreparedConfig, seed: int, by: str, split: int) -> None:
    rng = np.random.default_rng(seed)
    suites = [random_suite(rng, name, True) for name in ("a", "b", "obs")]
    new = dataclasses.replace(config, split=SplitSettings(by, split, FRACTIONS))
    try:
        table = prepare(suites, new).table
    except ConfigError as error:
        assert "expected objects in every split" in str(error)  # noqa: PT017
        return
    keys = ("OBJECT",) if by == "object" else ("tree",)
    for together in (keys, ("IDENTITY",), ("SUITE", "SNAPSHOT", "OBJECT")):
        assert all(len(splits) == 1 for splits in splits_by(table, *together).values())
    few = Suite("a", suites[0].table[:20], suites[0].header, 1)
    try:
        less = prepare([few, suites[1]], new).table
    except ConfigError:
        return
    assert splits_by(less, *keys).items() <= splits_by(table, *keys).items()


def test_links_join_what_object_alone_would_part(config: PreparedConfig) -> None:
    """The same history has another OBJECT in each snapshot."""
    suite = random_suite(np.random.default_rng(3), "a", True)
    by_object = dataclasses.replace(config, split=SplitSettings("object", 0, FRACTIONS))
    by_tree = dataclasses.replace(config, split=SplitSettings("tree", 0, FRACTIONS))
    parted = splits_by(prepare([suite], by_object).table, "tree")
    assert any(len(splits) > 1 for splits in parted.values())
    table = prepare([suite], by_tree).table
    assert all(len(splits) == 1 for splits in splits_by(table, "tree").values())
    ids = {(row["tree"], row["IDENTITY"]) for row in table}
    assert len(ids) == len({tree for tree, _ in ids}) == len({number for _, number in ids})


def test_rows_without_a_link_are_dropped_and_counted(config: PreparedConfig) -> None:
    labels = columns(40, 1)
    labels["tree"] = np.where(labels["OBJECT"] < 3, -1, labels["OBJECT"])
    by_tree = dataclasses.replace(config, split=SplitSettings("tree", 0, FRACTIONS))
    found = prepare([make_suite("a", labels)], by_tree)
    step = next(step for step in found.steps if step.name == "no id")
    assert (step.rows_in["a"], step.rows_out["a"]) == (80, 74)
    assert set(found.drops["REASON"]) == {"no id"}


def test_links_that_are_missing_or_part_projections_are_named(config: PreparedConfig) -> None:
    by_tree = dataclasses.replace(config, split=SplitSettings("tree", 0, FRACTIONS))
    labels = columns(40, 1)
    linked = make_suite("a", labels | {"tree": labels["OBJECT"]})
    with pytest.raises(ConfigError, match="a column of every suite, but obs has no tree; it has S"):
        prepare([linked, make_suite("obs", labels)], by_tree)
    labels = columns(40, 1, 3)
    tree = labels["OBJECT"].astype(float)
    tree[[9, 10, 11]] = [3.0, np.nan, 4.0]  # the last projection belongs to another object
    with pytest.raises(DataFormatError, match="suite a, snapshot 91, object 3 have several"):
        prepare([make_suite("a", labels | {"tree": tree})], by_tree)


@pytest.mark.parametrize("strategy", ["nearest", "random", "max"])
def test_pairs_are_those_of_one_split(config: PreparedConfig, strategy: str) -> None:
    suites = [make_suite("a", columns(80, 1)), make_suite("obs", columns(90, 2, 1))]
    found = prepare(suites, matched(config, strategy=strategy))
    table, (pairs,) = found.table, found.matches
    target, source = pairs.rows.T
    assert len(target) > 50
    assert (table["SPLIT"][target] == table["SPLIT"][source]).all()
    assert set(table["SUITE"][target]) == {"a"}
    assert set(table["SUITE"][source]) == {"obs"}
    largest = np.abs(table["z"][target] - table["z"][source]).max()
    assert pairs.largest_difference == {"z": largest}
    assert largest <= 0.05
    counts = {split: np.sum(table["SPLIT"][target] == split) for split in FRACTIONS}
    assert {split: n["pairs"] for split, n in pairs.by_split.items()} == counts
    assert set(pairs.balance) == {"SCALE", "SKYSIGMA", "z", "log_mass"}
    free = prepare(suites, matched(config, strategy=strategy, within_splits=False)).matches[0]
    assert (table["SPLIT"][free.rows[:, 0]] != table["SPLIT"][free.rows[:, 1]]).any()


def test_each_target_suite_has_the_whole_source(config: PreparedConfig) -> None:
    suites = [make_suite(name, columns(60, k)) for k, name in enumerate(("a", "b", "obs"))]
    both = prepare(suites, matched(config, targets=["b", "a"]))
    alone = prepare([suites[0], suites[2]], matched(config))
    one = next(pairs for pairs in both.matches if pairs.target == "a")
    assert len(one.rows) == len(alone.matches[0].rows)
    partner = np.asarray(both.table["MATCH"])
    for pairs in both.matches:
        np.testing.assert_array_equal(partner[pairs.rows[:, 0]], pairs.rows[:, 1])
    first = both.matches[0]
    np.testing.assert_array_equal(partner[first.rows[:, 1]], first.rows[:, 0])


def test_rows_that_do_not_know_a_field_stay_without_partner(config: PreparedConfig) -> None:
    labels = columns(60, 1)
    labels["z"][labels["OBJECT"] < 5] = np.nan
    found = prepare([make_suite("a", labels), make_suite("obs", columns(60, 2))], matched(config))
    assert found.matches[0].unknown == {"a": 10, "obs": 0}
    is_unknown = np.isnan(np.asarray(found.table["z"]))
    assert is_unknown.sum() == 10
    assert (found.table["MATCH"][is_unknown] == -1).all()


@pytest.mark.parametrize(
    ("tolerance", "message"),
    [
        ({"redshift": 0.1}, "match.tolerance to name fields out of SCALE, .*z.* but got redshift"),
        ({"log_mass": 0.1}, "but obs does not know log_mass; it knows SCALE, SKYSIGMA, z"),
        ({"FILE": 1.0}, "but got FILE"),
    ],
)
def test_tolerance_of_an_unknown_field_is_named(
    config: PreparedConfig, tolerance: dict[str, float], message: str
) -> None:
    observed = columns(60, 2)
    del observed["log_mass"]
    suites = [make_suite("a", columns(60, 1)), make_suite("obs", observed)]
    with pytest.raises(ConfigError, match=message):
        prepare(suites, matched(config, tolerance=tolerance))


def test_an_empty_split_is_named(config: PreparedConfig) -> None:
    with pytest.raises(ConfigError, match=r"every split, but the 2 objects give val = 0, train"):
        prepare([make_suite("a", columns(2, 1))], config)
