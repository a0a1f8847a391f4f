"""`data_gen=prepared`: what it writes, when it runs again, and that only training rows scale."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from omegaconf import DictConfig

from conf.build import build_settings
from datagen import pipeline
from datagen.prepared import format as files
from datagen.prepared.config import PreparedConfig
from datagen.validate import main as validate
from tests.datagen.prepared.stamps import columns, write_suite

Settings = Callable[..., PreparedConfig]
MATCH = ("data_gen.match.source=obs", "data_gen.match.targets=[a]")
MATCH += ("data_gen.match.tolerance={z: 0.02, log_mass: 0.3}",)


def run(config: PreparedConfig, stamps: Path, folder: Path, **changes: object) -> dict[str, int]:
    new = dataclasses.replace(config, stamps_dir=str(stamps), data_dir=str(folder), **changes)
    return pipeline.run(new)


def test_everything_is_written_and_told(
    composed: Callable[..., DictConfig], stamps: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    config = build_settings(composed("datagen", "data_gen=prepared", *MATCH).data_gen, "data_gen")
    assert run(config, stamps, out) == {"made": 1, "skipped": 0}
    table = files.read_prepared(out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert table.colnames[:9] == list(files.PREPARED_COLUMNS)
    assert table["SCALE"].unit == "arcsec"
    assert len(table) == 200
    assert manifest["splits"]["counts"]["all suites"]["train"]["stamps"] == int(
        (np.asarray(table["SPLIT"]) == "train").sum()
    )
    partner = np.asarray(table["MATCH"])
    pairs = np.flatnonzero(partner >= 0)
    np.testing.assert_array_equal(partner[partner[pairs]], pairs)
    is_a = np.asarray(table["SUITE"]) == "a"
    assert 2 * manifest["matches"]["a"]["pairs"] == len(pairs) > 40
    assert (is_a[pairs] != is_a[partner[pairs]]).all()
    text = (out / "report.md").read_text()
    for words in (
        "200 stamps of 2 suites came in, 200 stay",
        "| duplicate | a row again, with the same labels: the first one stays | 120 -> 120 |",
        "Leak check: 0 of 80 objects have stamps in more than one split.",
        "Partners in obs, strategy nearest, in the same split: z within 0.02, log_mass within 0.3.",
        "2 x the median SKYSIGMA of",
    ):
        assert words in text
    assert len(Table.read(out / "drops.ecsv")) == 0


def test_it_runs_again_when_stamps_come(settings: Settings, stamps: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(settings(), stamps, out)
    before = files.read_prepared(out)
    assert run(settings(), stamps, out) == {"made": 0, "skipped": 1}
    write_suite(stamps, "a", columns(90, 1))
    assert run(settings(), stamps, out) == {"made": 1, "skipped": 0}
    after = files.read_prepared(out)
    split_of = dict(zip(after["OBJECT"], after["SPLIT"], strict=True))
    assert all(split_of[row["OBJECT"]] == row["SPLIT"] for row in before)
    assert len(after) == 260


def test_bytes_depend_on_nothing_else(settings: Settings, stamps: Path, tmp_path: Path) -> None:
    run(settings(*MATCH), stamps, tmp_path / "one", suites=["a", "obs"])
    run(settings(*MATCH), stamps, tmp_path / "two", suites=["obs", "a"], n_jobs=2)
    for name in files.NAMES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_fewer_files_keep_their_splits(settings: Settings, stamps: Path, tmp_path: Path) -> None:
    run(settings(), stamps, tmp_path / "all")
    run(settings(), stamps, tmp_path / "first", nfiles=1)
    split_of = {
        (row["SUITE"], row["OBJECT"]): row["SPLIT"] for row in files.read_prepared(tmp_path / "all")
    }
    few = files.read_prepared(tmp_path / "first")
    assert len(few) == 100
    assert all(split_of[row["SUITE"], row["OBJECT"]] == row["SPLIT"] for row in few)


def test_a_prepared_folder_is_validated(
    settings: Settings, stamps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(settings(), stamps, out)
    validate([str(out)])
    assert capsys.readouterr().out.startswith("OK: ")
    table = files.read_prepared(out)
    table["SPLIT"][0] = "test" if table["SPLIT"][0] != "test" else "val"
    meta = {key: table.meta[key] for key in ("SUITES", "SPLITBY", "CONFHASH", "VERSION")}
    files.write_prepared(out, table, meta)
    with pytest.raises(SystemExit):
        validate([str(out)])
    assert "SPLIT: expected each object in one split, but got 1" in capsys.readouterr().err
