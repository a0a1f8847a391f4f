"""Files of the lens simulator: round trips, equal bytes, and messages on damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from datagen import validate
from datagen.errors import DataFormatError, DataNotFoundError
from datagen.files import write_json
from datagen.lenses import format as files
from datagen.lenses.validate import validate_lenses

META: dict[str, str | int | float] = {"SEED": 3, "PRESET": "fair"}


def lens_columns(n: int) -> dict[str, Any]:
    columns = {name: np.linspace(0.0, 1.0, n) for name in files.LENS_COLUMNS}
    return columns | {"INDEX": np.arange(n), "CLASS": np.arange(n) % 3}


def substructure_columns(n: int) -> dict[str, Any]:
    columns = {name: np.linspace(0.0, 1.0, n) for name in files.SUBSTRUCTURE_COLUMNS}
    return columns | {"INDEX": np.arange(n), "KIND": np.zeros(n, int)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a small valid data folder of two files."""
    for number in range(2):
        images = np.random.default_rng(number).normal(size=(6, 1, 9, 9)).astype(np.float32)
        files.write_images(files.images_path(tmp_path, number), images)
        truth = files.truth_path(tmp_path, number)
        files.write_truth(truth, lens_columns(6), substructure_columns(4), META)
    imaging = {"side": 9, "pixel_scale": 0.1, "bands": ["i"]}
    write_json(tmp_path / "settings.json", {"lens": {"name": "fair", "imaging": imaging}})
    return tmp_path


def test_round_trip(folder: Path) -> None:
    paths = files.image_files(folder)
    assert [path.name for path in paths] == ["lenses_000000.npy", "lenses_000001.npy"]
    images = files.read_images(paths[1])
    assert isinstance(images, np.memmap)
    expected = np.random.default_rng(1).normal(size=(6, 1, 9, 9)).astype(np.float32)
    assert np.array_equal(images, expected)
    truth = files.read_truth(files.truth_of(paths[1]))
    assert truth["CLASS"].tolist() == [0, 1, 2, 0, 1, 2]
    assert truth.meta["SEED"] == 3
    assert len(files.read_substructure(files.truth_of(paths[1]))) == 4
    settings = files.read_settings(folder)
    assert (settings["side"], settings["bands"], settings["preset"]) == (9, ["i"], "fair")
    assert validate_lenses(folder) == (f"2 files of images (4 no_sub, 4 cdm, 4 vortex) in {folder}")


def test_columns_have_their_units(folder: Path) -> None:
    path = files.truth_path(folder, 0)
    header = fits.getheader(path, "LENSES")
    units = {
        header[f"TTYPE{k}"]: header.get(f"TUNIT{k}", "") for k in range(1, header["TFIELDS"] + 1)
    }
    assert units == {name: files.UNITS[name] for name in units}
    assert units["SRC_FLUX"] == "count"
    assert files.read_truth(path)["THETA_E"].unit == "arcsec"
    halos = files.read_substructure(path)
    assert (halos["R_T"].unit, halos["ANGLE"].unit, halos["KIND"].unit) == ("arcsec", "rad", None)


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        files.write_truth(tmp_path / name, lens_columns(3), substructure_columns(2), META)
    content = (tmp_path / "a").read_bytes()
    assert content == (tmp_path / "b").read_bytes()
    assert b"CHECKSUM" not in content
    assert b"DATE" not in content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.array([np.zeros(3), np.zeros(4)], dtype=object), "holds pickled objects"),
        (np.zeros((6, 1, 9, 9)), "dtype: expected float32, but got float64"),
        (np.zeros((6, 9, 9), np.float32), r"shape: expected \(n, bands, side, side\), but got \(6"),
        (np.zeros((6, 1, 9, 8), np.float32), r"but got \(6, 1, 9, 8\)"),
        (np.zeros((6, 1, 8, 8), np.float32), r"\(n, 1, 9, 9\) as in settings.json"),
        (np.full((6, 1, 9, 9), np.nan, np.float32), "image 0: expected finite pixels"),
        (np.zeros((5, 1, 9, 9), np.float32), "LENSES: expected one row per image, 5, but got 6"),
    ],
)
def test_bad_images_are_named(folder: Path, content: np.ndarray[Any, Any], message: str) -> None:
    path = files.images_path(folder, 1)
    np.save(path, content, allow_pickle=True)
    with pytest.raises(DataFormatError, match=message) as caught:
        validate_lenses(folder)
    assert path.stem in str(caught.value)


def test_damaged_files_are_named(folder: Path) -> None:
    path = files.images_path(folder, 0)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataFormatError, match=r"cannot read images .*lenses_000000\.npy.*again"):
        files.read_images(path)
    with pytest.raises(DataNotFoundError, match=r"lenses_000009\.npy does not exist"):
        files.read_images(files.images_path(folder, 9))
    truth = files.truth_path(folder, 0)
    truth.write_bytes(b"no FITS")
    with pytest.raises(DataFormatError, match="cannot read truth"):
        files.read_truth(truth)
    truth.unlink()
    with pytest.raises(DataNotFoundError, match=r"truth .* does not exist"):
        files.read_truth(truth)


def test_wrong_truth_is_named(folder: Path) -> None:
    path = files.truth_path(folder, 0)
    columns = lens_columns(6)
    less = {name: values for name, values in columns.items() if name != "Z_LENS"}
    files.write_truth(path, less, substructure_columns(4), META)
    with pytest.raises(DataFormatError, match="table LENSES: expected a column Z_LENS"):
        files.read_truth(path)
    for name, values, message in (
        ("Q", np.full(6, np.nan), "Q: expected finite values"),
        ("CLASS", np.arange(6), "CLASS: expected 0 to 2"),
        ("INDEX", np.arange(100, 106), "SUBSTRUCTURE has rows of images not in LENSES"),
    ):
        files.write_truth(path, columns | {name: values}, substructure_columns(4), META)
        with pytest.raises(DataFormatError, match=message):
            validate_lenses(folder)
    unknown = columns | {name: np.full(6, np.nan) for name in ("DELTA_CHI2", "SNR")}
    files.write_truth(path, unknown, substructure_columns(4), META)
    validate_lenses(folder)


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="holds no images/lenses_"):
        files.image_files(tmp_path)
    write_json(tmp_path / "settings.json", {"prior": {}})
    with pytest.raises(DataFormatError, match="expected the settings of data_gen=lenses"):
        files.read_settings(tmp_path)


def test_validate_knows_lenses(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    validate.main([str(folder)])
    assert capsys.readouterr().out.startswith("OK: 2 files of images (4 no_sub")
    files.truth_path(folder, 1).unlink()
    with pytest.raises(SystemExit) as caught:
        validate.main([str(folder)])
    assert caught.value.code == 2
    assert "lenses_000001.fits does not exist" in capsys.readouterr().err
