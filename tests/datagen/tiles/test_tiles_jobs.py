"""The work of `data_gen=tiles`: what is made, skipped, made again, refused, and noted as failed."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from datagen import pipeline
from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.fields.format import read_file_data, write_file_data
from datagen.fields.validate import validate_folder
from datagen.files import sha256_file
from datagen.tiles.config import TilesConfig
from datagen.tiles.jobs import starts
from tests.conftest import Command

MakeConfig = Callable[..., TilesConfig]
IMAGE, CELL, SCALE = 96, 16, 0.263


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.glob("file_data/*"))}


@pytest.fixture
def sky(tmp_path: Path, tile: Callable[..., Path]) -> Path:
    """Three tiles of 150 x 203 px in g and r, side by side."""
    for number, name in enumerate("ABC"):
        tile(tmp_path / "sky", name, seed=number, ra=10.0 + 0.02 * number)
    return tmp_path / "sky"


@pytest.fixture
def members(sky: Path) -> Path:
    """A members table with one member in the middle of each tile."""
    ra = 10.0 + 0.02 * np.arange(3)
    table = Table({"MEM_MATCH_ID": [1, 2, 3], "RA": ra, "DEC": np.full(3, -5.0)})
    table["P"], table["Z"], table["LAMBDA"] = np.ones(3), np.full(3, 0.4), np.full(3, 30.0)
    table.write(sky / "members.fits")
    return sky / "members.fits"


@pytest.fixture
def config_of(make_config: MakeConfig, sky: Path, members: Path) -> MakeConfig:
    survey = {"pattern": "{tile}/{tile}_{band}.fits", "bands": ["g", "r"], "pixel_scale": SCALE}
    base = {"reference": str(members), "reference_band": "r"}

    def make(**changes: Any) -> TilesConfig:  # noqa: ANN401
        own = {**survey, **changes.pop("survey", {})}
        return make_config(changes.pop("tiles_dir", sky), own, **base | changes)

    return make


@pytest.mark.parametrize(
    ("length", "size", "cell"), [(96, 96, 16), (97, 96, 16), (203, 96, 16), (10000, 2560, 256)]
)
def test_images_show_every_cell_of_a_tile(length: int, size: int, cell: int) -> None:
    seen = np.zeros(length, bool)
    for start in starts(length, size, cell):
        assert start % cell == 0
        assert start + size <= length
        seen[start : start + size] = True
    assert seen[: length // cell * cell].all()


def test_bytes_do_not_depend_on_workers_or_shards(config_of: MakeConfig, tmp_path: Path) -> None:
    assert pipeline.run(config_of()) == {"made": 3, "skipped": 0}
    whole = hashes(tmp_path / "tiles")
    names = [f"file_data_{tile}-0_size_4.pt" for tile in "ABC"]
    assert list(whole) == names
    assert pipeline.run(config_of()) == {"made": 0, "skipped": 3}
    for shard in ([1, 2], [0, 2]):
        pipeline.run(config_of(data_dir=str(tmp_path / "shards"), shard=shard))
    assert hashes(tmp_path / "shards") == whole
    pipeline.run(config_of(data_dir=str(tmp_path / "two"), n_jobs=2, nfiles=2))
    assert hashes(tmp_path / "two") == {name: whole[name] for name in names[:2]}
    assert validate_folder(tmp_path / "tiles").startswith("3 file data")


def test_parts_hold_the_same_images(config_of: MakeConfig, tmp_path: Path) -> None:
    pipeline.run(config_of(nfiles=1))
    pipeline.run(config_of(nfiles=1, images_per_file=3, data_dir=str(tmp_path / "parts")))
    whole = read_file_data(tmp_path / "tiles/file_data/file_data_A-0_size_4.pt")
    names = ["file_data_A-0_size_3.pt", "file_data_A-1_size_1.pt"]
    assert list(hashes(tmp_path / "parts")) == names
    parts = [d for name in names for d in read_file_data(tmp_path / "parts/file_data" / name)]
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one["images"], other["images"])
        assert one["meta"]["origin"] == other["meta"]["origin"]


def test_a_changed_band_file_is_read_again(config_of: MakeConfig, sky: Path) -> None:
    pipeline.run(config_of())
    before = hashes(sky.parent / "tiles")
    with fits.open(sky / "B" / "B_g.fits", mode="update") as hdus:
        hdus[0].data[:50] += 1
    assert pipeline.run(config_of()) == {"made": 1, "skipped": 2}
    changed = {name for name, digest in hashes(sky.parent / "tiles").items()
               if before[name] != digest}  # fmt: skip
    assert changed == {"file_data_B-0_size_4.pt"}


def test_damaged_tiles_are_noted_and_tried_again(
    config_of: MakeConfig, sky: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = sky / "B" / "B_g.fits"
    good = path.read_bytes()
    path.write_bytes(good[:40000])
    (sky / "C" / "C_r.fits").unlink()
    with caplog.at_level(logging.WARNING):
        assert pipeline.run(config_of()) == {"made": 1, "skipped": 0, "failed": 2}
    noted = json.loads((sky.parent / "tiles" / "failed-0of1.json").read_text())
    assert "B_g.fits cannot be read; it is damaged" in noted["tile B"]
    assert noted["tile C"] == "band r is missing: no file C/C_r.fits"
    assert "2 jobs failed: see" in caplog.text
    assert validate_folder(sky.parent / "tiles").startswith("1 file data")
    path.write_bytes(good)
    assert pipeline.run(config_of()) == {"made": 1, "skipped": 1, "failed": 1}


def test_a_tile_that_is_damaged_later_leaves_no_file(config_of: MakeConfig, sky: Path) -> None:
    pipeline.run(config_of(images_per_file=2))
    path = sky / "B" / "B_g.fits"
    good = path.read_bytes()
    left = {f"file_data_{tile}-{part}_size_2.pt" for tile in "AC" for part in (0, 1)}
    # It fails before its pixels are read, then while they are.
    for content in (b"junk", good[:40000]):
        path.write_bytes(content)
        assert pipeline.run(config_of(images_per_file=2))["failed"] == 1
        assert set(hashes(sky.parent / "tiles")) == left
        assert validate_folder(sky.parent / "tiles").startswith("4 file data")
        path.write_bytes(good)
        assert pipeline.run(config_of(images_per_file=2)) == {"made": 1, "skipped": 2}
        assert len(hashes(sky.parent / "tiles")) == 6


def test_a_tile_of_another_size_replaces_its_files(
    config_of: MakeConfig, sky: Path, tile: Callable[..., Path]
) -> None:
    # The name of one tile begins like a file of another.
    tile(sky, "A-0", seed=5, ra=10.0)
    pipeline.run(config_of())
    tile(sky, "A", (216, 203), seed=0, ra=10.0)
    assert pipeline.run(config_of()) == {"made": 1, "skipped": 3}
    sizes = {"A-0": 6, "A-0-0": 4, "B-0": 4, "C-0": 4}
    names = {f"file_data_{name}_size_{size}.pt" for name, size in sizes.items()}
    assert set(hashes(sky.parent / "tiles")) == names
    assert validate_folder(sky.parent / "tiles").startswith("4 file data")


def test_masked_pixels_are_nan_and_cells_full_of_them_do_not_count(
    config_of: MakeConfig, sky: Path
) -> None:
    with fits.open(sky / "A" / "A_g.fits", mode="update") as hdus:
        hdus[0].data[:16, :9] = np.nan
        hdus[0].data[16:32, :8] = 0.0
    with fits.open(sky / "A" / "A_r.fits", mode="update") as hdus:
        hdus[0].data[:16, 100:110] = np.inf
    pipeline.run(config_of(nfiles=1))
    path = sky.parent / "tiles/file_data/file_data_A-0_size_4.pt"
    first, second = read_file_data(path)[:2]
    assert first["images"][0].isnan().sum() == 16 * 17
    assert first["tile_catalog"]["cell_weight"][:2, 0, 0, 0].tolist() == [0.0, 1.0]
    assert first["meta"]["masked_fraction"] == [16 * 17 / IMAGE**2, 0.0]
    # Noise is that of what was observed: the simulation's 2 counts.
    assert first["meta"]["noise_sigma"] == pytest.approx([2.0, 2.0], rel=0.1)
    assert second["meta"]["masked_fraction"] == [0.0, 16 * 10 / IMAGE**2]
    data = read_file_data(path)
    data[0]["images"] = data[0]["images"].nan_to_num(1.0)
    write_file_data(path, data)
    with pytest.raises(DataFormatError, match=r"\[0\]\.images: expected the masked fractions"):
        validate_folder(sky.parent / "tiles")


def test_tiles_that_the_reference_may_not_cover_are_left_out(
    config_of: MakeConfig, members: Path
) -> None:
    Table.read(members)[:1].write(members, overwrite=True)
    assert pipeline.run(config_of()) == {"made": 1, "skipped": 0}
    assert pipeline.run(config_of(require_members=False)) == {"made": 2, "skipped": 1}
    folder = Path(config_of().data_dir)
    assert len(hashes(folder)) == 3
    assert pipeline.run(config_of()) == {"made": 0, "skipped": 1}
    assert list(hashes(folder)) == ["file_data_A-0_size_4.pt"]
    assert validate_folder(folder).startswith("1 file data")


def test_real_tiles_need_a_reference(config_of: MakeConfig, sky: Path) -> None:
    truth = "{tile}/{tile}_sources.dat"
    with pytest.raises(
        ConfigError, match=r"data_gen\.reference to name a members .* no truth such"
    ):
        pipeline.run(config_of(reference=truth))
    assert pipeline.run(config_of()) == {"made": 3, "skipped": 0}


def test_one_tile_without_a_truth_fails_alone(
    simulated: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    shutil.copytree(simulated, tmp_path / "sky")
    first, _ = sorted((tmp_path / "sky").glob("DES*"))
    (first / f"{first.name}_sources.dat").unlink()
    assert pipeline.run(make_config(tmp_path / "sky")) == {"made": 1, "skipped": 0, "failed": 1}
    noted = json.loads((tmp_path / "tiles" / "failed-0of1.json").read_text())
    assert f"{first.name} has no truth: no file" in noted[f"tile {first.name}"]


def test_bands_that_disagree_are_resampled(config_of: MakeConfig, sky: Path) -> None:
    with fits.open(sky / "A" / "A_g.fits", mode="update") as hdus:
        hdus[0].header["CRPIX1"] += 1.0
        image = np.array(hdus[0].data)
    assert pipeline.run(config_of(nfiles=1))["failed"] == 1
    aligned = str(sky.parent / "aligned")
    pipeline.run(config_of(nfiles=1, survey={"align": True}, data_dir=aligned))
    data = read_file_data(sky.parent / "aligned/file_data/file_data_A-0_size_4.pt")
    np.testing.assert_allclose(data[0]["images"][0], image[:96, 1:97], atol=1e-3)
    assert WCS(fits.Header(data[0]["meta"]["wcs"])).wcs.crpix.tolist() == [102.0, 75.5]


def no_member(table: Table) -> None:
    table["DEC"] = 5.0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (no_member, ConfigError, r"none of the 3 survey tiles in data_gen\.tiles_dir = .* shows a"),
        (
            lambda t: t.remove_column("P"),
            ConfigError,
            r"members table, but it has no column of mem",
        ),
        (lambda t: t.remove_column("MEM_MATCH_ID"), ConfigError, r"no column of MEM_MATCH_ID"),
        (lambda t: t.remove_column("RA"), DataFormatError, r"no column ra; .*data_gen\.columns"),
        (lambda t: t["P"].fill(1.5), DataFormatError, r"probabilities in \[0, 1\] in column P"),
        (lambda t: t["RA"].fill(np.nan), DataFormatError, "holds no row with a position"),
    ],
)
def test_bad_references_are_explained(
    config_of: MakeConfig,
    members: Path,
    change: Callable[[Table], Any],
    error: type[Exception],
    message: str,
) -> None:
    table = Table.read(members)
    change(table)
    table.write(members, overwrite=True)
    with pytest.raises(error, match=message):
        pipeline.run(config_of())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"reference": "none.fit"}, DataNotFoundError, r"data_gen\.reference = none\.fit does"),
        ({"clusters": "none.fit"}, DataNotFoundError, r"data_gen\.clusters = none\.fit does"),
        ({"tiles_dir": Path("none")}, DataNotFoundError, r"data_gen\.tiles_dir = none is not a"),
        ({"reference": None}, ConfigError, "expected data_gen.reference to name a members table"),
        ({"image_size": 100}, ConfigError, "multiple of data_gen.tile_size = 16, but got .* 100"),
        ({"reference_band": "z"}, ConfigError, "reference_band to be one of g, r"),
        ({"ignore_probability": 0.6}, ConfigError, r"ignore_probability \(at most min_prob"),
        ({"label": "square"}, ConfigError, "label to be one of members, circle"),
        ({"magnitudes": {"z": "MAG"}}, ConfigError, "but got an entry for z"),
        ({"columns": {"colour": "X"}}, ConfigError, "data_gen.columns to map id, ra"),
        ({"magnitudes": {"r": "MAG[3]"}}, DataFormatError, "expected column MAG in"),
        (
            {"reference": "{tile}.dat", "label": "circle"},
            ConfigError,
            "data_gen.label = members for the truth",
        ),
    ],
)
def test_wrong_settings_are_named(
    config_of: MakeConfig, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pipeline.run(config_of(**changes))


def test_tiles_smaller_than_an_image_fail(config_of: MakeConfig, sky: Path) -> None:
    assert pipeline.run(config_of(image_size=160)) == {"made": 0, "skipped": 0, "failed": 3}
    noted = json.loads((sky.parent / "tiles" / "failed-0of1.json").read_text())
    assert (
        "A has shape (150, 203), which holds no image of data_gen.image_size = 160"
        in (noted["tile A"])
    )


def test_the_command_ends_with_status_3_when_a_tile_failed(
    command: Command, sky: Path, members: Path
) -> None:
    (sky / "C" / "C_r.fits").write_bytes(b"junk")
    words = ["data_gen=tiles", "survey=generic", "survey.bands=[g,r]", "data_gen.reference_band=r"]
    words += [f"data_gen.tiles_dir={sky}", f"data_gen.reference={members}"]
    ended = command("datagen", *words, "data_gen.image_size=96", "data_gen.tile_size=16")
    assert ended.status == 3, ended.errors
    assert "tile C failed: C_r.fits cannot be read" in ended.out + ended.errors
    assert "Traceback" not in ended.errors
    assert len(hashes(sky.parent / "data" / "tiles")) == 2
