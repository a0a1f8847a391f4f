"""`data_gen=galaxies`: files, bytes, settings, checks of a folder."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits
from omegaconf import DictConfig, OmegaConf

from benchmarks import galaxies as benchmark
from conf.build import build_settings
from datagen import pipeline, validate
from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.files import sha256_file
from datagen.galaxies import format as files
from datagen.galaxies.config import GalaxiesConfig
from datagen.galaxies.simulate import Simulator
from datagen.galaxies.validate import validate_galaxies
from tests.datagen.galaxies.suites import FOLDER

SMALL = ("galaxy.imaging.side=24", "data_gen.n_objects_per_file=2", "data_gen.n_projections=2")


@pytest.fixture(scope="module")
def shipped(composed: Callable[..., DictConfig]) -> DictConfig:
    """Return the shipped configuration, composed once."""
    return composed("datagen", "data_gen=galaxies")


@pytest.fixture(scope="module")
def small(composed: Callable[..., DictConfig]) -> GalaxiesConfig:
    """Return settings of small images."""
    cfg = composed("datagen", "data_gen=galaxies", *SMALL)
    settings: GalaxiesConfig = build_settings(cfg.data_gen, "data_gen")
    return settings


@pytest.fixture(scope="module")
def made(small: GalaxiesConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two tables, made once."""
    folder = tmp_path_factory.mktemp("made") / "a"
    pipeline.run(dataclasses.replace(small, data_dir=str(folder), nfiles=2))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """Return a copy of it, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "a"))


def hashes(folder: Path) -> dict[str, str]:
    paths = (path for name in ("images", "labels") for path in (folder / name).iterdir())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in paths}


def test_bytes_do_not_depend_on_shards_or_number_of_files(
    small: GalaxiesConfig, made: Path, tmp_path: Path
) -> None:
    for part in range(2):
        more = dataclasses.replace(small, data_dir=str(tmp_path), nfiles=3, shard=[part, 2])
        pipeline.run(more)
    assert len(hashes(tmp_path)) == 3 * 5
    assert hashes(made).items() <= hashes(tmp_path).items()


@pytest.mark.slow
def test_bytes_do_not_depend_on_workers(small: GalaxiesConfig, made: Path, tmp_path: Path) -> None:
    pipeline.run(dataclasses.replace(small, data_dir=str(tmp_path), nfiles=2, n_jobs=2))
    assert hashes(tmp_path) == hashes(made)


def test_files_are_named_as_users_know_them(small: GalaxiesConfig, folder: Path) -> None:
    table = files.read_labels(files.labels_path(folder, 1))
    assert table["FILE"].tolist() == [f"snap_084-{k}_{p}.fits" for k in (2, 3) for p in (0, 1)]
    assert table["OBJECT"].tolist() == [2, 2, 3, 3]
    assert (table["R_EFF"].unit, table["MERGER_TIME"].unit) == ("kpc", "Gyr")
    assert table["SFR"].unit == "solMass / yr"
    assert {name: table.meta[name] for name in ("SUITE", "KIND", "BANDS", "SEED", "REALIZ")} == {
        "SUITE": "a", "KIND": "galaxies", "BANDS": "g,r,i", "SEED": 0, "REALIZ": 0}  # fmt: skip
    assert table.meta["CONFHASH"] == small.content_hash()
    path = files.images_path(folder, "snap_084-3_1.fits")
    with fits.open(path) as hdus:
        hdus.verify("exception")
        assert hdus[0].data is None
        assert [hdu.name for hdu in hdus[1:]] == ["g", "r", "i"]
        header = hdus["r"].header
        assert header["BITPIX"] == -32
        assert (header["BUNIT"], header["PIXSCALE"], header["ZEROPT"]) == ("nanomaggy", 0.3, 22.5)
        assert (header["FWHM"], header["SKYSIGMA"]) == (0.7, 0.0035)
        drawn = list(Simulator(small.galaxy, 0, 2)(np.array([2, 3])))[-1]
        np.testing.assert_array_equal(hdus["r"].data, drawn.image[1])
    expected = dataclasses.replace(small, nfiles=2).expected_bytes()
    found = sum(path.stat().st_size for path in folder.glob("*/*.fits"))
    assert expected == pytest.approx(found, rel=0.4)


def test_headers_are_those_of_a_library(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((1, 7, 9)).astype(np.float32)
    cards = {"BUNIT": "count", "PIXSCALE": 1.25e-05, "ZEROPT": 0.0, "FWHM": 6, "SKYSIGMA": 1e22}
    files.write_images(tmp_path / "own.fits", image, {"xray": cards})
    hdu = fits.ImageHDU(image[0], name="xray")
    for key, value in cards.items():
        hdu.header[key] = (value, files.CARDS[key])
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "library.fits")
    with fits.open(tmp_path / "own.fits") as own, fits.open(tmp_path / "library.fits") as other:
        for key in cards:
            assert own[1].header[key] == other[1].header[key]
            assert own[1].header.comments[key] == other[1].header.comments[key]
        np.testing.assert_array_equal(own[1].data, other[1].data)
    assert (tmp_path / "own.fits").stat().st_size % 2880 == 0


def test_a_whole_folder_is_valid(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = f"2 tables of labels, 8 images of 4 galaxies in {folder}"
    assert validate_galaxies(folder) == expected
    validate.main([str(folder)])
    assert expected in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Error validating header")
def test_damage_is_named(folder: Path) -> None:
    path = files.images_path(folder, "snap_084-1_0.fits")
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(DataNotFoundError, match=r"snap_084-1_0.fits does not exist"):
        validate_galaxies(folder)
    path.write_bytes(content[:5000])
    with pytest.raises(DataFormatError, match=r"snap_084-1_0.fits"):
        validate_galaxies(folder)
    image, cards = files.read_images(files.images_path(folder, "snap_084-0_0.fits"))
    files.write_images(path, image[:2], dict(list(cards.items())[:2]))
    with pytest.raises(DataFormatError, match="expected bands g, r, i of 24 x 24 px"):
        validate_galaxies(folder)
    files.write_images(path, np.full_like(image, np.nan), cards)
    with pytest.raises(DataFormatError, match="expected finite values"):
        validate_galaxies(folder)


def test_a_name_stands_in_one_row(folder: Path) -> None:
    table = files.read_labels(files.labels_path(folder, 1))
    columns = {name: np.asarray(table[name]) for name in table.colnames}
    columns["FILE"] = np.array(["snap_084-0_0.fits"] * 4)
    meta = {key: table.meta[key] for key in table.meta if key not in ("FORMATV", "")}
    files.write_labels(files.labels_path(folder, 1), columns, meta)
    with pytest.raises(DataFormatError, match="expected names that are unique"):
        validate_galaxies(folder)


def test_a_folder_without_labels_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"holds no labels/labels_\*.fits; make some"):
        files.label_files(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data_gen.n_objects_per_file=0", "got n_objects_per_file = 0"),
        ("data_gen.n_projections=0", "got n_projections = 0"),
        ("galaxy.snapshots={}", r"numbers in \[0, 999\], at least one"),
        ("galaxy.snapshots={84: '3'}", r"galaxy.snapshots.84 in \[0.03, 1.2\]"),
        ("galaxy.imaging.bands=[u]", "distinct names out of g, r, i, z"),
        ("galaxy.imaging.bands=[g,z]", "no entry for z"),
        ("galaxy.imaging.pixel_kpc=2", "one of galaxy.imaging.pixel_scale and pixel_kpc"),
        ("galaxy.imaging.side=4", r"galaxy.imaging.side in \[16, 2048\]"),
        ("galaxy.imaging.sky.g=0", "galaxy.imaging.sky.g > 0"),
        ("galaxy.mergers.rate=10", "galaxy.mergers.rate"),
        ("galaxy.mergers.ratio=many", "galaxy.mergers.ratio to be a number, uniform"),
        ("galaxy.galaxies.bulge=2", "galaxy.galaxies.bulge"),
        ("galaxy.galaxies.log_mass='13'", r"galaxy.galaxies.log_mass in \[8, 11.8\]"),
        ("galaxy.galaxies=null", "expected galaxy to hold galaxies alone"),
        ("galaxy.systematics.neighbours=30", "galaxy.systematics.neighbours"),
        ("galaxy.realization=-1", "galaxy.realization"),
        ("galaxy.colour=red", "colour"),
    ],
)
def test_bad_settings_are_refused(shipped: DictConfig, change: str, message: str) -> None:
    key, value = change.split("=", 1)
    broken = shipped.copy()
    OmegaConf.update(broken, key, yaml.safe_load(value), force_add=True, merge=False)
    with pytest.raises(ConfigError, match=message):
        build_settings(broken.data_gen, "data_gen")


def test_every_suite_is_named_like_its_file(composed: Callable[..., DictConfig]) -> None:
    kinds = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        found = benchmark.suite(path.stem)
        assert found.name == path.stem
        kinds[path.stem] = found.kind
    assert kinds == dict.fromkeys(("a", "a2", "b", "c", "obs"), "galaxies") | {
        "groups": "groups", "clusters": "clusters"}  # fmt: skip
    cfg = composed("datagen", "data_gen=galaxies", "galaxy=clusters")
    assert build_settings(cfg.data_gen, "data_gen").galaxy == benchmark.suite("clusters")
