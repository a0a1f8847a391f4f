from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from datagen import pipeline
from datagen.errors import DataFormatError, DataNotFoundError
from datagen.fields.config import FieldsConfig
from datagen.fields.dummy import write_dummy_file_data
from datagen.fields.format import (
    image_path,
    read_file_data,
    read_image,
    write_file_data,
    write_image,
)
from datagen.fields.validate import validate_folder
from datagen.validate import main


@pytest.fixture
def folder(fields_config: FieldsConfig) -> Path:
    config = dataclasses.replace(
        fields_config,
        image_size=64,
        tile_size=32,
        nfiles=1,
        n_catalogs_per_file=2,
        bands=["r", "i"],
    )
    pipeline.run(config)
    return Path(config.data_dir)


def test_a_good_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(folder)])
    expected = "1 file data, 4 images, 2 source catalogs, 2 cluster tables, 1 records"
    assert capsys.readouterr().out == f"OK: {expected} in {folder}\n"


def test_file_data_alone_is_enough(tmp_path: Path) -> None:
    write_dummy_file_data(tmp_path, 3, 64, 16, ["g", "r"], 5)
    assert validate_folder(tmp_path) == f"3 file data in {tmp_path}"


def test_the_first_bad_file_is_named(folder: Path) -> None:
    path = sorted(folder.glob("catalogs/*.dat"))[0]
    path.write_text(path.read_text().replace("FRACDEV", "FRAC"))
    with pytest.raises(DataFormatError, match=r"field_000000\.dat, FRACDEV: .*has no column"):
        validate_folder(folder)


def test_a_key_of_a_file_datum_is_named(folder: Path) -> None:
    path = next(folder.glob("file_data/*.pt"))
    data = [dict(datum) for datum in read_file_data(path)]
    del data[1]["tile_catalog"]["fluxes"]
    write_file_data(path, data)
    with pytest.raises(DataFormatError, match=r"size_2\.pt, \[1\]\.tile_catalog\.fluxes: expected"):
        validate_folder(folder)
    path = path.rename(path.with_name("file_data_0_size_3.pt"))
    with pytest.raises(DataFormatError, match=r"file_data_<number>_size_2\.pt as the name"):
        validate_folder(folder)


def test_a_missing_band_is_named(folder: Path) -> None:
    image_path(folder, 1, "i").unlink()
    with pytest.raises(
        DataFormatError, match=r"expected bands i, r, but field_000001\.fits has only"
    ):
        validate_folder(folder)


def test_a_lost_file_is_named(folder: Path) -> None:
    next(folder.glob("file_data/*.pt")).unlink()
    with pytest.raises(DataFormatError, match=r"size_2\.pt is missing, but the manifest lists it"):
        validate_folder(folder)


def test_bands_must_agree(folder: Path) -> None:
    path = image_path(folder, 1, "r")
    image, header = read_image(path)
    cards = {key: header[key] for key in header if key and not key.startswith("NAXIS")}
    cards["CRVAL1"] += 0.1
    write_image(path, image, cards)
    with pytest.raises(DataFormatError, match=r"field_000001_r\.fits, CRVAL1: expected .* as in"):
        validate_folder(folder)


def test_cards_and_pixels_of_images(folder: Path) -> None:
    path = image_path(folder, 0, "i")
    image, header = read_image(path)
    cards = {key: header[key] for key in header if key and not key.startswith("NAXIS")}
    write_image(path, np.full_like(image, np.nan), cards)
    with pytest.raises(DataFormatError, match=r"_i\.fits, pixels: expected finite values"):
        validate_folder(folder)
    write_image(path, image, cards | {"BAND": "g"})
    with pytest.raises(DataFormatError, match=r"_i\.fits, BAND: expected the band of the file"):
        validate_folder(folder)
    del cards["MAGZERO"]
    write_image(path, image, cards)
    with pytest.raises(DataFormatError, match=r"_i\.fits, MAGZERO: expected this card"):
        validate_folder(folder)


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"holds no simulated data; make some with: python"):
        validate_folder(tmp_path)
    with pytest.raises(DataNotFoundError, match=r"absent is no folder; expected one that a data_g"):
        validate_folder(tmp_path / "absent")


def test_command_ends_with_status_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dummy_file_data(tmp_path, 1, 64, 16, ["g"], 5)[0].write_bytes(b"junk")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path)])
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("skyfold: cannot read file datum")
    assert errors.count("\n") == 1
