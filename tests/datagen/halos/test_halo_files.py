"""Files of cluster maps: round trips, equal bytes, and messages on damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from datagen.errors import DataFormatError, DataNotFoundError
from datagen.halos import format as files

META: dict[str, Any] = {"SUITE": "a", "CHANNELS": "mass,stars", "UNIT_0": "Msun kpc-2"}
META |= {"UNIT_1": "Msun kpc-2", "SIDE": 9, "PIXSCALE": 40.0, "DEPTH": 1e4, "ENGINE": "jeans"}
META |= {"SEED": 3}


def columns(n: int) -> dict[str, Any]:
    numbers = {"INDEX": np.arange(n), "CLUSTER": np.arange(n) // 2, "PROJECTION": np.arange(n) % 2}
    return numbers | {"CROSS_SECTION": np.full(n, 0.1), "M200": np.full(n, 5e14),
                      "REDSHIFT": np.full(n, 0.2), "AGE": np.full(n, 5.0)}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a small valid folder of two files."""
    for number in range(2):
        maps = np.random.default_rng(number).random((6, 2, 9, 9)).astype(np.float32)
        files.write_maps(files.maps_path(tmp_path, number), maps)
        files.write_truth(files.truth_path(tmp_path, number), columns(6), META)
    return tmp_path


def test_round_trip(folder: Path) -> None:
    paths = files.map_files(folder)
    assert [path.name for path in paths] == ["halos_000000.npy", "halos_000001.npy"]
    maps = files.read_maps(paths[1])
    assert isinstance(maps, np.memmap)
    assert np.array_equal(maps, np.random.default_rng(1).random((6, 2, 9, 9)).astype(np.float32))
    truth = files.read_truth(files.truth_of(paths[1]))
    assert truth["CLUSTER"].tolist() == [0, 0, 1, 1, 2, 2]
    assert (truth["CROSS_SECTION"].unit, truth["AGE"].unit) == ("cm2 g-1", "Gyr")
    header = files.read_header(files.truth_of(paths[1]))
    assert header == truth.meta
    assert {name: header[name] for name in META} == META
    assert files.channels_of(header) == ["mass", "stars"]
    assert files.is_dataset(folder)


def test_equal_content_gives_equal_bytes_without_dates(tmp_path: Path) -> None:
    for name in ("a", "b"):
        files.write_truth(tmp_path / name, columns(4), META, {"AGE": "Myr"})
    content = (tmp_path / "a").read_bytes()
    assert content == (tmp_path / "b").read_bytes()
    assert b"CHECKSUM" not in content
    assert b"DATE" not in content
    assert files.read_truth(tmp_path / "a")["AGE"].unit == "Myr"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.array([np.zeros(3), np.zeros(4)], dtype=object), "holds pickled objects"),
        (np.zeros((6, 2, 9, 9)), "dtype: expected float32, but got float64"),
        (np.zeros((6, 9, 9), np.float32), r"expected \(n, channels, side, side\), but got \(6"),
        (np.zeros((6, 2, 9, 8), np.float32), r"but got \(6, 2, 9, 8\)"),
    ],
)
def test_bad_maps_are_named(folder: Path, content: np.ndarray[Any, Any], message: str) -> None:
    path = files.maps_path(folder, 1)
    np.save(path, content, allow_pickle=True)
    with pytest.raises(DataFormatError, match=message) as caught:
        files.read_maps(path)
    assert path.stem in str(caught.value)


def test_damaged_and_missing_files_are_named(folder: Path) -> None:
    path = files.maps_path(folder, 0)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataFormatError, match=r"cannot read maps .*halos_000000\.npy.*again"):
        files.read_maps(path)
    with pytest.raises(DataNotFoundError, match=r"halos_000009\.npy does not exist"):
        files.read_maps(files.maps_path(folder, 9))
    truth = files.truth_path(folder, 0)
    truth.write_bytes(b"no FITS")
    with pytest.raises(DataFormatError, match="cannot read truth"):
        files.read_truth(truth)
    with pytest.raises(DataNotFoundError, match=r"holds no maps/halos_"):
        files.map_files(folder / "truth")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("M200", None, "table HALOS: expected a column M200"),
        ("INDEX", np.linspace(0.0, 1.0, 4), "INDEX: expected whole numbers, but got float64"),
        ("SEED", None, "header: expected a card SEED"),
        ("UNIT_1", None, "header: expected a card UNIT_1"),
        ("CHANNELS", "mass,light", "CHANNELS: expected distinct names out of mass, xray, stars"),
    ],
)
def test_wrong_truth_is_not_written(tmp_path: Path, name: str, value: object, message: str) -> None:
    table, meta = columns(4), dict(META)
    place = meta if name in meta else table
    if value is None:
        del place[name]
    else:
        place[name] = value
    with pytest.raises(DataFormatError, match=message):
        files.write_truth(tmp_path / "truth.fits", table, meta)
    assert not (tmp_path / "truth.fits").exists()


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "truth.fits"
    files.write_truth(path, columns(4), META)
    fits.setval(path, "FORMATV", value=9)
    expected = f"FORMATV: expected {files.FORMAT_VERSION}, but got 9"
    for read in (files.read_header, files.read_truth):
        with pytest.raises(DataFormatError, match=expected):
            read(path)


def test_cards_may_be_in_small_letters(tmp_path: Path) -> None:
    path = tmp_path / "truth.fits"
    files.write_truth(path, columns(4), {key.lower(): card for key, card in META.items()})
    assert files.read_header(path).items() >= META.items()
