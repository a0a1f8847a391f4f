"""Rows that go: which, why, how many; and suites that do not fit each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from datagen.errors import ConfigError, DataFormatError
from datagen.prepared.cleaning import clean
from datagen.prepared.tables import check_suites, join
from tests.datagen.prepared.stamps import columns, make_suite


def edited(labels: dict[str, Any], rows: list[int], **changes: object) -> dict[str, Any]:
    """Return labels with some rows appended again, and then changed."""
    n = len(labels["OBJECT"])
    found = {key: np.concatenate([value, value[rows]]) for key, value in labels.items()}
    for key, value in changes.items():
        found[key][n:] = value
    return found


def test_every_step_counts_what_it_drops() -> None:
    labels = edited(columns(20, 1), [0, 0, 5])  # three copies of rows 0 and 5
    labels["z"][[10, 11]] = [np.nan, np.inf]
    labels["SCALE"][12] = 0.0
    labels["log_mass"][:] = 10.0
    labels["log_mass"][[13, 14, 15, 16]] = [8.9, 9.0, 11.0, 11.1]
    other = columns(20, 2)
    del other["log_mass"]
    table = join([make_suite("a", labels), make_suite("obs", other)], "object")
    found = clean(table, ["z"], {"log_mass": [9.0, 11.0]})
    counts = [(s.name, s.rows_in["a"] - s.rows_out["a"]) for s in found.steps]
    assert counts == [
        ("in conflict", 0),
        ("duplicate", 3),
        ("no id", 0),
        ("no pixel scale", 1),
        ("unknown z", 2),
        ("log_mass out of range", 2),
    ]
    assert all(step.rows_out["obs"] == 40 for step in found.steps)
    assert len(found.table) + len(found.drops) == len(table)
    again = [row["ROW"] for row in found.drops if row["REASON"] == "duplicate"]
    assert sorted(again) == [40, 41, 42]
    for before, after in zip(found.steps, found.steps[1:], strict=False):
        assert before.rows_out == after.rows_in


def test_rows_in_conflict_go_together() -> None:
    labels = edited(columns(20, 1), [4, 8], z=[0.9, np.nan])
    labels["log_mass"][[6, 7]] = np.nan
    labels = edited(labels, [6])  # nan equals nan: a duplicate
    found = clean(join([make_suite("a", labels)], "object"), [], {})
    assert [len(s.rows_in) for s in found.steps] == [1, 1, 1, 1]
    reasons = {(int(row["ROW"]), str(row["REASON"])) for row in found.drops}
    conflict = {(row, "in conflict") for row in (4, 8, 40, 41)}
    assert reasons == conflict | {(42, "duplicate")}


def test_open_ends_and_unknown_values() -> None:
    labels = columns(4, 1)
    labels["z"] = np.array([0.1, 0.2, 0.3, np.nan, 0.5, 0.6, 0.7, -np.inf])
    table = join([make_suite("a", labels)], "object")
    kept = [0.3, 0.5, 0.6, 0.7]
    assert clean(table, [], {"z": [0.3, None]}).table["z"].tolist() == kept
    assert clean(table, [], {"z": [None, 0.2]}).table["z"].tolist() == [0.1, 0.2]


@pytest.mark.parametrize(
    ("finite", "ranges", "message"),
    [
        (
            ["mass"],
            {},
            "clean.finite to name fields out of SCALE, SKYSIGMA, z, log_mass, but got m",
        ),
        ([], {"mass": [0, 1]}, "clean.ranges to name fields out of SCALE, SKYSIGMA"),
        ([], {"z": [0.9, None]}, r"rows of suite a to be left, but of 40 40 .*z outside \[0.9, \]"),
    ],
)
def test_wrong_cuts_are_named(finite: list[str], ranges: dict[str, Any], message: str) -> None:
    table = join([make_suite("a", columns(20, 1))], "object")
    with pytest.raises(ConfigError, match=message):
        clean(table, finite, ranges)


@pytest.mark.parametrize(
    ("cards", "bands", "message"),
    [
        ({"BANDS": "g,r"}, None, r"bands of suite obs .*'i'\], but got \['g', 'r'\]; extract both"),
        ({"BANDS": "g,r"}, ["i"], "bands of every suite, but obs has g, r, and no i"),
        (
            {"SIDE": 32},
            None,
            r"side of a stamp \[px\] of suite obs to be that of a, 16, but got 32",
        ),
        ({"UNIT": "count"}, None, "unit of the pixels of suite obs to be that of a, nmgy, but got"),
        ({"ZEROPT": 30.0}, None, "zero point .* but got 30.0"),
        ({"ZEROPT": None}, None, "zero point .* 22.5, but got None"),
    ],
)
def test_suites_that_differ_are_named(
    cards: dict[str, Any], bands: list[str] | None, message: str
) -> None:
    suites = [make_suite("a", columns(5, 1)), make_suite("obs", columns(5, 2), **cards)]
    with pytest.raises(ConfigError, match=message):
        check_suites(suites, bands, 0.01)


def test_bands_that_all_have_are_enough() -> None:
    suites = [make_suite("a", columns(5, 1)), make_suite("obs", columns(5, 2), BANDS="y,r,g")]
    check_suites(suites, ["g", "r"], 0.01)


@pytest.mark.parametrize("scale", [0.304, 0.2, np.nan])
def test_pixel_scales_that_differ_are_named(scale: float) -> None:
    labels = columns(5, 2) | {"SCALE": np.full(10, scale)}
    suites = [make_suite("a", columns(5, 1)), make_suite("obs", labels)]
    check_suites(suites, None, None)
    if scale == 0.304:
        check_suites(suites, None, 0.02)
    with pytest.raises(ConfigError, match=r"obs .* 0.3 within .*scale_tolerance = 0.01, but got"):
        check_suites(suites, None, 0.01)


def test_joining_sorts_and_fills() -> None:
    one, two = columns(3, 1), columns(4, 2)
    one["SNAPSHOT"] = one["SNAPSHOT"].astype(">i4")
    del two["log_mass"]
    two["kind"] = np.full(8, "dwarf")
    table = join([make_suite("obs", two), make_suite("a", one)], "object")
    assert table["SUITE"].tolist() == ["a"] * 6 + ["obs"] * 8
    assert np.isnan(table["log_mass"][6:]).all()
    assert table["kind"].tolist() == [""] * 6 + ["dwarf"] * 8
    assert table["SNAPSHOT"].dtype.isnative
    assert table["SCALE"].unit == "arcsec"
    # The same number in another suite is taken for the same object: it then shares its split.
    assert table["IDENTITY"][0] == table["IDENTITY"][6]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({"z": np.array(["0.1"] * 10)}, "expected z to be of one type, but got numbers in a, text"),
        ({"z": np.ones((10, 2))}, r"one value of z for each stamp of suite obs, but .*\(10, 2\)"),
        ({"Split": np.ones(10)}, "names differ by more than case, also from .* but got Split"),
        ({"Z": np.ones(10)}, "but got Z; give it another alias"),
    ],
)
def test_labels_that_do_not_fit_are_named(label: dict[str, Any], message: str) -> None:
    suites = [make_suite("a", columns(5, 1)), make_suite("obs", columns(5, 2) | label)]
    with pytest.raises(DataFormatError, match=message):
        join(suites, "object")


def test_units_that_differ_are_named() -> None:
    suites = [make_suite(name, columns(5, 1)) for name in ("a", "obs")]
    suites[1].table["z"].unit = "km/s"
    with pytest.raises(DataFormatError, match=r"unit of z .*none in a, km / s in obs; convert it"):
        join(suites, "object")
