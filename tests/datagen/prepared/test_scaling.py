"""Scalers: from the training split alone, and right on known samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.stats import mad_std
from astropy.table import Table

from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.files import write_json
from datagen.prepared import format as files
from datagen.prepared.config import PreparedConfig
from datagen.prepared.scaling import fit_labels, frame_noise, sky_noise
from tests.datagen.prepared.stamps import columns, write_suite
from tests.datagen.prepared.test_prepared_command import run

Settings = Callable[..., PreparedConfig]


def test_only_training_rows_count(settings: Settings, stamps: Path, tmp_path: Path) -> None:
    """What other splits hold may be anything: the scaler stays, to the last bit."""
    run(settings(), stamps, tmp_path / "one")
    table = files.read_prepared(tmp_path / "one")
    trained = {int(row["OBJECT"]) for row in table if row["SPLIT"] == "train"}
    for name, labels in (("a", columns(60, 1)), ("obs", columns(80, 2, 1))):
        is_other = ~np.isin(labels["OBJECT"], list(trained))
        for key in ("z", "log_mass", "SKYSIGMA"):
            labels[key][is_other] = 1e6
        write_suite(stamps, name, labels)
    run(settings(), stamps, tmp_path / "two")
    one, two = (files.read_scaler(tmp_path / name) for name in ("one", "two"))
    assert one == two
    train = table[np.asarray(table["SPLIT"]) == "train"]
    assert one["labels"]["z"]["mean"] == pytest.approx(np.mean(train["z"]), rel=1e-12)
    assert one["labels"]["z"]["std"] == pytest.approx(np.std(train["z"]), rel=1e-12)
    assert one["stretch"]["softening"] == pytest.approx(2 * np.median(train["SKYSIGMA"]), rel=1e-12)


def test_unknown_and_constant_labels() -> None:
    table = Table({"z": [1.0, np.nan, 3.0], "b": [0.1, 0.1, 0.1], "none": [np.nan] * 3})
    found = fit_labels(table, ["z", "b", "none"])
    assert found["z"] == {"mean": 2.0, "std": 1.0, "n": 2, "unit": ""}
    assert found["b"] == {"mean": 0.1, "std": 1.0, "n": 3, "unit": ""}
    assert "none" not in found


def test_noise_of_frames_is_that_of_the_sky() -> None:
    rng = np.random.default_rng(3)
    stamps = rng.normal(5.0, 2.0, (30, 64, 64)).astype(np.float32)
    stamps[:, 10:54, 10:54] += 1000.0
    stamps[0, 0, :3] = np.nan
    stamps[1] = np.nan
    found = frame_noise(stamps)
    assert np.isnan(found[1])
    assert np.median(found[2:]) == pytest.approx(2.0, rel=0.03)
    frame = np.ones((64, 64), bool)
    frame[4:60, 4:60] = False
    assert found[5] == pytest.approx(mad_std(stamps[5][frame].astype(float)), rel=1e-4)


def test_without_a_column_the_noise_is_measured(settings: Settings, tmp_path: Path) -> None:
    labels = columns(60, 1)
    del labels["SKYSIGMA"]
    write_suite(tmp_path / "stamps", "a", labels)
    run(settings("data_gen.stretch.sigmas=3"), tmp_path / "stamps", tmp_path / "out")
    stretch = files.read_scaler(tmp_path / "out")["stretch"]
    assert stretch["softening"] == pytest.approx(4.5, rel=0.05)
    assert stretch["reason"].startswith("3 x the median noise in the frame, first band, of ")


def test_the_sky_of_one_suite_or_a_number_can_be_taken(
    settings: Settings, stamps: Path, tmp_path: Path
) -> None:
    write_suite(stamps, "a", columns(60, 1) | {"SKYSIGMA": np.zeros(120)})
    run(settings("data_gen.stretch.suite=obs"), stamps, tmp_path / "obs")
    assert files.read_scaler(tmp_path / "obs")["stretch"]["sky_noise"] == pytest.approx(1, abs=0.1)
    with pytest.raises(ConfigError, match=r"0 or unknown; set data_gen.stretch.softening"):
        run(settings("data_gen.stretch.suite=a"), stamps, tmp_path / "a")
    assert not (tmp_path / "a" / "scaler.json").exists()
    run(settings("data_gen.stretch.softening=0.5"), stamps, tmp_path / "number")
    assert files.read_scaler(tmp_path / "number")["stretch"]["softening"] == 0.5


def test_zeros_and_nan_are_no_noise() -> None:
    assert sky_noise(np.array([0.0, np.nan, 1.0, 2.0, 4.0])) == (2.0, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"format_version": 0},
            "format_version: expected 1, but got 0; write it again",
        ),
        ({"format_version": 1, "labels": {}}, "expected a part stretch"),
        ([], r"expected 1, but got \[\]"),
    ],
)
def test_a_wrong_scaler_is_named(content: object, message: str, tmp_path: Path) -> None:
    write_json(files.scaler_path(tmp_path), content)
    with pytest.raises(DataFormatError, match=message):
        files.read_scaler(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"scaler.json does not exist"):
        files.read_scaler(tmp_path)
    with pytest.raises(DataNotFoundError, match=r"prepared.fits does not exist; make it with: pyt"):
        files.read_prepared(tmp_path)
