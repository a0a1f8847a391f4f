"""What ClEvaR finds in our catalogues; its own way of reading is written out here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from inference.survey.candidates import empty_catalog
from inference.survey.clevar import Side, matched_tables, to_fits
from inference.survey.matching import PREFERENCES, SkyCatalog, cross_match, multiple_match
from inference.survey.references import make_reference

MATCHES = ("mt_self", "mt_other", "mt_cross", "mt_multi_self", "mt_multi_other")


def read_full(path: Path) -> tuple[str, dict[str, str], dict[str, str], dict[str, Any]]:
    """Name, tags, labels and columns, as `ClCatalog.read_full` takes them from a file."""
    table = Table.read(path)
    tags, labels = (
        {key[len(word) :].lower(): v for key, v in table.meta.items() if key.startswith(word)}
        for word in ("TAG_", "LABEL_")
    )
    columns: dict[str, Any] = {tag: table[column] for tag, column in tags.items()}
    columns["SkyCoord"] = SkyCoord(
        columns["ra"] * units.deg, columns["dec"] * units.deg, frame="icrs"
    )
    for name in MATCHES:
        text = np.array(np.array(table[name], dtype=str), dtype=np.ndarray)
        if "multi" in name:
            columns[name] = [value.split(",") if value else [] for value in text]
        else:
            columns[name] = [value or None for value in text]
    return table.meta["NAME"], tags, labels, columns


def sides(seed: int, n: int, m: int) -> tuple[Side, Side]:
    """Two random catalogues in a square of 3 arcmin across RA 0."""
    rng = np.random.default_rng(seed)
    made = []
    for k in (n, m):
        ra, dec = rng.uniform(-0.025, 0.025, (2, k))
        sky = SkyCatalog(ra % 360, dec, rng.uniform(1, 9, k), rng.uniform(0.1, 0.9, k))
        made.append(sky)
    table = empty_catalog(n)
    table["id"] = np.array([f"T_{number:04d}" for number in range(n)], str)
    ids = np.array([str(1000 + number) for number in range(m)], str)
    place = (made[1].ra, made[1].dec)
    reference = make_reference(ids, place, made[1].redshift, made[1].mass, np.ones(m, bool))
    return Side.of_candidates(table, made[0]), Side.of_reference(reference)


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 12),
    m=st.integers(0, 12),
    preference=st.sampled_from(PREFERENCES),
)
def test_matches_are_mutual(seed: int, n: int, m: int, preference: str) -> None:
    first, second = sides(seed, n, m)
    pairs = multiple_match(first.sky, second.sky, 0.7)
    one, two = matched_tables(first, second, pairs, preference)
    names = [dict(zip(table["id"], table["mt_cross"], strict=True)) for table in (one, two)]
    for here, there in (names, names[::-1]):
        assert all(there[other] == me for me, other in here.items() if other)
    for mine, others in ((one, two), (two, one)):
        chooser = {str(row["mt_self"]): str(row["id"]) for row in others if row["mt_self"]}
        for row in mine:
            assert row["mt_other"] == chooser.get(str(row["id"]), "")
            assert row["mt_cross"] in ("", row["mt_self"])
            reach = str(row["mt_multi_self"]).split(",")
            assert row["mt_self"] in (*reach, "")
            assert row["mt_other"] in (*reach, "")
    partner = cross_match(first.sky, second.sky, pairs, preference)
    assert [str(name) for name in one["mt_cross"]] == [
        str(second.ids[k]) if k >= 0 else "" for k in partner
    ]


def test_a_file_reads_back_as_a_catalogue(tmp_path: Path) -> None:
    first, second = sides(1, 9, 7)
    tables = matched_tables(
        first, second, multiple_match(first.sky, second.sky, 0.7), "angular_proximity"
    )
    columns = []
    for side, table in zip((first, second), tables, strict=True):
        path = tmp_path / f"{side.name}.fits"
        path.write_bytes(to_fits(table))
        assert to_fits(table) == path.read_bytes()
        name, tags, labels, found = read_full(path)
        assert name == side.name
        assert tags == {tag: tag for tag in ("id", "ra", "dec", "z", "mass")}
        assert labels == {"mass": side.mass_label}
        # A unit of its own would make square degrees.
        np.testing.assert_allclose(found["SkyCoord"].dec.deg, side.sky.dec)
        np.testing.assert_allclose(found["SkyCoord"].ra.deg, side.sky.ra)
        np.testing.assert_array_equal(found["mass"], side.mass)
        columns.append(found)
    ours, theirs = columns
    pairs = {(a, b) for a, b in zip(ours["id"], ours["mt_cross"], strict=True) if b}
    assert pairs == {(b, a) for a, b in zip(theirs["id"], theirs["mt_cross"], strict=True) if b}
    assert len(pairs) > 2
    reach = {
        (a, b) for a, names in zip(ours["id"], ours["mt_multi_self"], strict=True) for b in names
    }
    assert reach == {
        (b, a)
        for a, names in zip(theirs["id"], theirs["mt_multi_other"], strict=True)
        for b in names
    }


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
def test_empty_catalogues_keep_their_columns(tmp_path: Path, n: int, m: int) -> None:
    first, second = sides(0, n, m)
    tables = matched_tables(
        first, second, multiple_match(first.sky, second.sky, 1.0), PREFERENCES[0]
    )
    for table, length in zip(tables, (n, m), strict=True):
        path = tmp_path / "side.fits"
        path.write_bytes(to_fits(table))
        found = read_full(path)[3]
        assert len(found["id"]) == length
        assert found["mt_self"] == [None] * length
        assert found["mt_multi_other"] == [[]] * length


def test_richness_stands_for_the_mass_where_all_have_one() -> None:
    table = empty_catalog(2)
    sky = SkyCatalog(*np.zeros((2, 2)), np.array([3.0, 4.0]), np.full(2, np.nan))
    table["richness"] = [30.0, np.nan]
    side = Side.of_candidates(table, sky)
    assert (side.mass.tolist(), side.mass_label) == ([3.0, 4.0], "score")
    table["richness"] = [30.0, 40.0]
    side = Side.of_candidates(table, dataclasses.replace(sky))
    assert (side.mass.tolist(), side.mass_label) == ([30.0, 40.0], "richness")
