"""Settings of `data_gen=prepared` that do not fit are named, and so are folders."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datagen.errors import ConfigError, DataFormatError, DataNotFoundError, SkyfoldError
from datagen.prepared.config import MatchSettings, PreparedConfig
from datagen.prepared.reading import read_planes, read_suite
from tests.datagen.prepared.stamps import STACKS, columns, make_suite, write_suite
from tests.datagen.prepared.test_prepared_command import run

Settings = Callable[..., PreparedConfig]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("clean.ranges={z: [0.3, 0.1]}", r"clean.ranges.z to be \[lowest, highest\]"),
        ("clean.ranges={z: [0.3]}", r"clean.ranges.z to be .* but got \[0.3\]"),
        ("clean.ranges={z: [null, null]}", r"clean.ranges.z to be"),
        ("split.seed=-1", "expected data_gen.split.seed in >= 0"),
        ("split.fractions.val=0.3", "data_gen.split.fractions to give train"),
        ("match.strategy=best", "match.strategy to be one of nearest, random, max, but got"),
        ("match.tolerance={z: 0}", "expected data_gen.match.tolerance.z > 0"),
        ("match.targets=[a]", r"match.source to name a suite for targets = \['a'\], but got"),
        (
            "match.source=a",
            r"match.targets to name suites other than source = a, .* targets = \[\]",
        ),
        ("stretch.softening=0", "expected data_gen.stretch.softening > 0"),
        ("stretch.n_stamps=0", "expected data_gen.stretch.n_stamps in >= 1"),
        ("scale_tolerance=-1", "scale_tolerance in >= 0"),
        ("suites=[a,a]", r"data_gen.suites to be distinct names, or null, but got \['a', 'a'\]"),
        ("bands=[]", "data_gen.bands to be distinct names"),
        ("split.by=[1]", "data_gen.split.by: "),
    ],
)
def test_bad_settings_are_named(settings: Settings, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(f"data_gen.{override}")


@pytest.mark.parametrize(
    ("targets", "tolerance", "message"),
    [
        (["obs"], {"z": 0.1}, "other than source = obs"),
        (["a", "a"], {"z": 0.1}, "each once, but got targets"),
        (["a"], None, r"match.tolerance to have a field, such as \{z: 0.01\}, but got .* None"),
        (["a"], {}, "match.tolerance to have a field"),
    ],
)
def test_bad_matches_are_named(
    targets: list[str], tolerance: dict[str, float] | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        MatchSettings("obs", targets, tolerance, "max", True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "suites=[b]",
            r"data_gen.stamps_dir = .*, which has a, obs, but got b; make it with: pyth",
        ),
        ("stretch.suite=b", "stretch.suite to be among the prepared suites a, obs, but got b"),
    ],
)
def test_suites_that_are_not_there_are_named(
    settings: Settings, stamps: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(SkyfoldError, match=message):
        run(settings(f"data_gen.{override}"), stamps, tmp_path / "out")


def test_a_folder_without_stamps_is_named(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(
        DataNotFoundError, match="holds no folder with stamps; make some with: pyth"
    ):
        run(settings(), tmp_path, tmp_path / "out")


def test_files_that_do_not_fit_are_named(stamps: Path) -> None:
    second = STACKS.truth_path(stamps / "a", 1)
    kept = second.read_bytes()
    write_suite(stamps.parent / "wide", "a", columns(4, 1), SIDE=32)
    shutil.copy(STACKS.truth_path(stamps.parent / "wide" / "a", 1), second)
    with pytest.raises(DataFormatError, match=r"000001.fits, SIDE: expected 16, but got 32"):
        read_suite(stamps, "a", 9)
    write_suite(stamps.parent / "more", "a", columns(4, 1) | {"extra": np.ones(8)})
    shutil.copy(STACKS.truth_path(stamps.parent / "more" / "a", 1), second)
    with pytest.raises(DataFormatError, match=r"000001.fits, columns: expected SUITE, .*extra"):
        read_suite(stamps, "a", 9)
    second.unlink()
    with pytest.raises(DataNotFoundError, match=r"000001.fits are missing; make them with"):
        read_suite(stamps, "a", 9)
    second.write_bytes(kept)
    rows = make_suite("a", {"SUITE": ["a"], "SCALE": [1.0]}).table
    assert read_planes(stamps, rows).shape == (1, 16, 16)
    rows["ROW"] = 60
    with pytest.raises(DataFormatError, match=r"stamps: expected at least 61, but got 60"):
        read_planes(stamps, rows)


def test_a_suite_without_its_cards_is_named(stamps: Path) -> None:
    path = STACKS.truth_path(stamps / "a", 0)
    table = {"STAMPS": {"SUITE": ["a", "a"]}}
    table["STAMPS"] |= {key: values[:2] for key, values in columns(2, 1).items()}
    STACKS.write_tables(path, table, {}, {"BANDS": "g"})
    with pytest.raises(DataFormatError, match="header: expected a card SUITE"):
        read_suite(stamps, "a", 1)
    del table["STAMPS"]["SCALE"]
    STACKS.write_tables(path, table, {}, {"BANDS": "g"})
    with pytest.raises(DataFormatError, match="table STAMPS: expected a column SCALE"):
        read_suite(stamps, "a", 1)
