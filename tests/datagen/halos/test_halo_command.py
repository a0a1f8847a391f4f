"""`data_gen=halos`: bytes, settings, checks of a folder."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from benchmarks import halos as benchmark
from conf.build import build_settings
from datagen import pipeline, validate
from datagen.errors import ConfigError, DataFormatError
from datagen.files import sha256_file
from datagen.halos import format as files
from datagen.halos.config import HalosConfig
from datagen.halos.jobs import make_file
from datagen.halos.settings import halo_settings
from datagen.halos.simulate import Simulator
from datagen.halos.validate import validate_halos
from tests.datagen.halos.suites import FOLDER

SMALL = ("halo.imaging.side=8", "halo.imaging.pixel_scale=250", "halo.stars.is_felt=false")
SMALL += ("data_gen.n_clusters_per_file=2", "data_gen.n_projections=1")


@pytest.fixture(scope="module")
def shipped(composed: Callable[..., DictConfig]) -> DictConfig:
    """Return the shipped configuration, composed once."""
    return composed("datagen", "data_gen=halos")


@pytest.fixture(scope="module")
def small(composed: Callable[..., DictConfig]) -> HalosConfig:
    """Return settings of small maps."""
    cfg = composed("datagen", "data_gen=halos", *SMALL)
    settings: HalosConfig = build_settings(cfg.data_gen, "data_gen")
    return settings


@pytest.fixture(scope="module")
def made(small: HalosConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two files, made once."""
    folder = tmp_path_factory.mktemp("made") / "a"
    pipeline.run(dataclasses.replace(small, data_dir=str(folder), nfiles=2))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """Return a copy of it, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "a"))


def hashes(folder: Path) -> dict[str, str]:
    paths = (path for name in ("maps", "truth") for path in (folder / name).iterdir())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in paths}


def test_bytes_do_not_depend_on_shards_or_number_of_files(
    small: HalosConfig, made: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("shards")
    for part in range(2):
        more = dataclasses.replace(small, data_dir=str(other), nfiles=3, shard=[part, 2])
        pipeline.run(more)
    assert len(hashes(other)) == 6
    assert hashes(made).items() <= hashes(other).items()


@pytest.mark.slow
def test_bytes_do_not_depend_on_workers(small: HalosConfig, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "workers"
    pipeline.run(dataclasses.replace(small, data_dir=str(other), nfiles=2, n_jobs=2))
    assert hashes(other) == hashes(folder)


def test_truth_says_how_maps_were_made(small: HalosConfig, folder: Path) -> None:
    truth = files.read_truth(files.truth_path(folder, 1))
    assert truth["INDEX"].tolist() == list(range(8, 16))
    assert truth["CLUSTER"].tolist() == [2] * 4 + [3] * 4
    cards = {"SUITE": "a", "CHANNELS": "mass,xray,stars", "UNIT_0": "Msun kpc-2"}
    cards |= {"UNIT_1": "solLum kpc-2", "SIDE": 8, "PIXSCALE": 250.0, "DEPTH": 1e4}
    cards |= {"ENGINE": "jeans", "CONTENT": "halos", "OBSERVED": False, "SEED": 0}
    assert {name: truth.meta[name] for name in cards} == cards
    assert truth.meta["CONFHASH"] == small.content_hash()
    assert files.read_maps(files.maps_path(folder, 1)).shape == (8, 3, 8, 8)
    # Maps and tables, without headers.
    made = 2 * 8 * (3 * 8**2 * 4 + 8 * len(truth.colnames))
    assert dataclasses.replace(small, nfiles=2).expected_bytes() == pytest.approx(made, rel=0.05)


def test_validate_knows_halos(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    validate.main([str(folder)])
    said = capsys.readouterr().out
    assert said.startswith("OK: 2 files of maps (4 of sigma/m 0, 4 of sigma/m 0.1")
    assert "of 4 clusters" in said
    files.truth_path(folder, 1).unlink()
    with pytest.raises(SystemExit):
        validate.main([str(folder)])
    assert "halos_000001.fits does not exist" in capsys.readouterr().err


def test_validate_takes_files_of_others(folder: Path) -> None:
    """Without settings and manifest, as a user writes them."""
    for path in (*folder.glob("*.json*"),):
        path.unlink()
    assert "of 4 clusters" in validate_halos(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"INDEX": np.zeros(8, int)}, "INDEX: expected numbers that are unique in the suite"),
        ({"INDEX": np.arange(8)}, "INDEX: expected numbers that are unique in the suite"),
        ({"M200": np.full(8, np.nan)}, "M200: expected finite values"),
        ({"SIDE": 9}, r"shape: expected \(n, 3, 9, 9\) as in the header"),
    ],
)
def test_wrong_content_is_named(folder: Path, change: dict[str, Any], message: str) -> None:
    path = files.truth_path(folder, 1)
    truth = files.read_truth(path)
    columns = {name: np.asarray(truth[name]) for name in truth.colnames}
    meta = {key: truth.meta[key] for key in truth.meta if key not in ("FORMATV", "")}
    place = meta if "SIDE" in change else columns
    place.update(change)
    files.write_truth(path, columns, meta)
    with pytest.raises(DataFormatError, match=message):
        validate_halos(folder)


def test_rows_and_maps_belong_together(folder: Path) -> None:
    path = files.maps_path(folder, 0)
    files.write_maps(path, np.ones((7, 3, 8, 8), np.float32))
    with pytest.raises(DataFormatError, match="expected one row per map, 7, but got 8"):
        validate_halos(folder)
    files.write_maps(path, np.full((8, 3, 8, 8), np.nan, np.float32))
    with pytest.raises(DataFormatError, match="map 0: expected finite pixels"):
        validate_halos(folder)


def test_maps_that_are_not_finite_are_not_written(
    small: HalosConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Simulator(small.halo, 0, 1)(np.arange(2))
    made.maps[5, 0, 3, 3] = np.inf
    monkeypatch.setattr(Simulator, "__call__", lambda *_: made)
    with pytest.raises(DataFormatError, match="but map 5 of halo = a has nan or inf"):
        make_file(dataclasses.replace(small, data_dir=str(tmp_path)), 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data_gen.n_clusters_per_file=0", "got n_clusters_per_file = 0"),
        ("data_gen.n_projections=0", "got n_projections = 0"),
        ("data_gen.halo.engine=magic", "halo.engine to be one of jeans, parametric"),
        ("data_gen.halo.content=noise", "halo.content to be one of halos, shuffled, phases, empty"),
        ("data_gen.halo.cross_sections=[0.1,0.0]", r"rising numbers in \[0, 10\]"),
        ("data_gen.halo.cross_sections=[20]", r"rising numbers in \[0, 10\]"),
        ("data_gen.halo.velocity=-1", "halo.velocity > 0"),
        ("data_gen.halo.engine=parametric", "halo.stars.is_felt = false with halo.engine"),
        ("data_gen.halo.population.m_max=1e14", "halo.population.m_max"),
        ("data_gen.halo.population.age=old", "halo.population.age to be a number, uniform"),
        ("data_gen.halo.gas.beta='2'", r"halo.gas.beta in \[0.4, 1.2\]"),
        ("data_gen.halo.substructure.share_max=0.5", "halo.substructure.share_max"),
        (
            "data_gen.halo.substructure.n_subhalos=100",
            "leave mass to the host, but with n_subhalos",
        ),
        ("data_gen.halo.imaging.side=4", r"halo.imaging.side in \[8, 1024\]"),
        ("data_gen.halo.imaging.pixel_scale=200", "side . pixel_scale <= 10000 kpc"),
        ("data_gen.halo.imaging.channels=[light]", "distinct names out of mass, xray, stars"),
        ("data_gen.halo.observation.galaxies=0", "halo.observation.galaxies > 0"),
        ("data_gen.halo.colour=red", "colour"),
    ],
)
def test_bad_settings_are_refused(shipped: DictConfig, change: str, message: str) -> None:
    key, value = change.split("=", 1)
    broken = shipped.copy()
    # Each value once in the suite that data_gen refers to.
    OmegaConf.update(broken, key.replace("data_gen.halo", "halo"), yaml.safe_load(value),
                     force_add=True)  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        build_settings(broken.data_gen, "data_gen")


def test_maps_without_a_halo_are_not_observed(shipped: DictConfig) -> None:
    broken = shipped.copy()
    broken.halo.content, broken.halo.observation.is_on = "shuffled", True
    with pytest.raises(ConfigError, match=r"is_on = false with halo.content = shuffled"):
        build_settings(broken.data_gen, "data_gen")


def test_galaxies_of_a_lensing_map_lie_behind_all_clusters(shipped: DictConfig) -> None:
    broken = shipped.copy()
    broken.halo.observation.z_source = 0.35
    build_settings(broken.data_gen, "data_gen")
    broken.halo.observation.is_on = True
    with pytest.raises(
        ConfigError, match=r"z_source >= 0.4, 0.1 above .* uniform\(0.1, 0.3\), but"
    ):
        build_settings(broken.data_gen, "data_gen")


def test_every_suite_is_named_like_its_file(shipped: DictConfig) -> None:
    assert shipped.data_gen.data_dir == "data/halos/a"
    for path in sorted(FOLDER.glob("*.yaml")):
        assert benchmark.suite(path.stem, 50).name == path.stem
    values = OmegaConf.to_container(shipped.halo)
    assert halo_settings(values) == build_settings(shipped.data_gen, "data_gen").halo


def test_keys_of_plain_values_are_checked(shipped: DictConfig) -> None:
    values: dict[str, Any] = OmegaConf.to_container(shipped.halo)  # type: ignore[assignment]
    del values["gas"]["beta"]
    with pytest.raises(ConfigError, match=r"halo.gas to have an entry .* but got no entry for bet"):
        halo_settings(values)
