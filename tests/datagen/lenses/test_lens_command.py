"""`data_gen=lenses` as users run it, and the checks of its settings."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from conf.build import build_settings
from datagen import pipeline
from datagen.errors import ConfigError, DataFormatError
from datagen.files import sha256_file
from datagen.lenses.config import LensesConfig
from datagen.lenses.jobs import make_file
from datagen.lenses.settings import lens_settings
from datagen.lenses.simulate import Simulator
from datagen.lenses.validate import validate_lenses
from tests.datagen.lenses.presets import FOLDER, lens_preset, lens_values

PRESETS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SMALL = ["lens.imaging.side=17", "lens.imaging.pixel_scale=0.3"]
SMALL += ["lens.substructure.cdm.profile=point", "lens.substructure.cdm.n_subhalos=5"]
SMALL += ["lens.substructure.min_delta_chi2=5", "lens.substructure.max_draws=2"]


def config(composed: Callable[..., DictConfig], *overrides: str) -> LensesConfig:
    node = composed("datagen", "data_gen=lenses", *overrides).data_gen
    settings = build_settings(node, "data_gen")
    assert isinstance(settings, LensesConfig)
    return settings


@pytest.fixture(scope="module")
def shipped(composed: Callable[..., DictConfig]) -> DictConfig:
    """Return the shipped configuration, composed once."""
    return composed("datagen", "data_gen=lenses")


def hashes(folder: Path) -> dict[str, str]:
    paths = (path for name in ("images", "truth") for path in (folder / name).iterdir())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in paths}


def test_bytes_do_not_depend_on_shards_or_number_of_files(
    composed: Callable[..., DictConfig], tmp_path: Path
) -> None:
    def run(name: str, nfiles: int, **changes: Any) -> None:  # noqa: ANN401
        settings = config(composed, *SMALL, "data_gen.n_images_per_file=20")
        folder = str(tmp_path / name)
        pipeline.run(dataclasses.replace(settings, data_dir=folder, nfiles=nfiles, **changes))

    run("two", 2)
    run("three", 3)
    for part in range(2):
        run("shards", 3, shard=[part, 2])
    two, three = hashes(tmp_path / "two"), hashes(tmp_path / "three")
    assert len(three) == 6
    assert two.items() <= three.items()
    assert hashes(tmp_path / "shards") == three
    assert validate_lenses(tmp_path / "three").startswith("3 files of images (20 no_sub, 20 cdm")


def test_images_are_numbered_through_all_files(
    composed: Callable[..., DictConfig], tmp_path: Path
) -> None:
    from datagen.lenses import format as files

    settings = config(composed, *SMALL, "data_gen.n_images_per_file=10", "data_gen.nfiles=2")
    pipeline.run(dataclasses.replace(settings, data_dir=str(tmp_path)))
    truth = files.read_truth(files.truth_path(tmp_path, 1))
    assert truth["INDEX"].tolist() == list(range(10, 20))
    assert truth["CLASS"].tolist() == [k % 3 for k in range(10, 20)]
    assert truth.meta["CONFHASH"] == settings.content_hash()
    cards = {"PRESET": "fair", "SIDE": 17, "PIXSCALE": 0.3, "BANDS": "i", "FWHM_0": 0.15}
    cards |= {"GAIN": 1.0, "DEVICE": "cpu", "DTYPE": "float32"}
    assert {name: truth.meta[name] for name in cards} == cards
    # Images and tables, without headers.
    substructure = files.read_substructure(files.truth_path(tmp_path, 1))
    made = 2 * (10 * (17**2 * 4 + 8 * 24) + 8 * 9 * len(substructure))
    assert settings.expected_bytes() == pytest.approx(made, rel=0.1)


@pytest.mark.slow
def test_expected_bytes_hold_for_the_fair_preset(
    composed: Callable[..., DictConfig], tmp_path: Path
) -> None:
    settings = config(composed, "data_gen.n_images_per_file=192", "data_gen.nfiles=1")
    settings = dataclasses.replace(settings, data_dir=str(tmp_path))
    make_file(settings, 0)
    made = sum(path.stat().st_size for path in tmp_path.rglob("lenses_*"))
    assert settings.expected_bytes() == pytest.approx(made, rel=0.1)


def test_images_that_are_not_finite_are_not_written(
    composed: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(composed, *SMALL, "data_gen.n_images_per_file=4")
    settings = dataclasses.replace(settings, data_dir=str(tmp_path))
    made = Simulator(settings.lens, 0)(torch.arange(4))
    made.images[2, 0, 3, 3] = torch.inf
    monkeypatch.setattr(Simulator, "__call__", lambda *_: made)
    with pytest.raises(DataFormatError, match="but image 2 of lens = fair has nan or inf"):
        make_file(settings, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_killed_command_of_two_workers_resumes_to_the_bytes_of_one(
    root: Path, tmp_path: Path
) -> None:
    def start(name: str, n_jobs: int) -> subprocess.Popen[bytes]:
        work = ["data_gen=lenses", "data_gen.nfiles=6", "data_gen.n_images_per_file=20"]
        command = [sys.executable, str(root / "datagen/run.py"), f"data_gen.data_dir={name}"]
        return subprocess.Popen(
            [*command, *work, *SMALL, f"data_gen.n_jobs={n_jobs}", f"hydra.run.dir=logs/{name}"],
            cwd=tmp_path,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    assert start("whole", 1).wait(300) == 0
    images = tmp_path / "killed" / "images"
    for n_wanted in (1, 3, 5):
        run = start("killed", 2)
        while run.poll() is None and len(list(images.glob("[!.]*"))) < n_wanted:
            time.sleep(0.005)
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait(300)
    assert start("killed", 2).wait(300) == 0
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "whole")


@pytest.mark.parametrize("name", PRESETS)
def test_flaws_hold_where_they_are_wanted(name: str) -> None:
    right, flawed = (lens_preset(name, legacy_flaws=is_flawed) for is_flawed in (False, True))
    assert right.name == name
    assert right.resolved() == right
    resolved = flawed.resolved()
    for flaw, value in right.flaws.items():
        node, before = resolved, right  # type: Any, Any
        for key in flaw.split("."):
            node, before = getattr(node, key), getattr(before, key)
        assert node == value, flaw
        assert before != value, flaw


def test_settings_of_hydra_and_of_plain_values_are_the_same(
    composed: Callable[..., DictConfig],
) -> None:
    """An encoder that simulates builds them without Hydra."""
    values = yaml.safe_load((FOLDER / "model_j.yaml").read_text())
    assert lens_settings(values).imaging == config(composed, "lens=model_j").lens.imaging


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data_gen.n_images_per_file=0", "got n_images_per_file = 0"),
        ("data_gen.device=tpu", "expected device to be one of cpu, cuda, but got device = tpu"),
        ("data_gen.dtype=half", "expected dtype to be one of float32, float64"),
        ("lens.macro.q=2", r"lens.macro.q in \[0.05, 1\], but got lens.macro.q = 2"),
        ("lens.macro.theta_e=large", "expected lens.macro.theta_e to be a number, uniform"),
        ("lens.macro.z_source=0.9", "lens.macro.z_source to reach z_lens"),
        ("lens.source.position=ring", "lens.source.position to be one of caustic, polar, square"),
        ("lens.imaging.side=4", r"lens.imaging.side in \[8, 1024\]"),
        ("lens.imaging.snr=null", "expected one of lens.imaging.snr and lens.imaging.magnitude"),
        (
            "lens.imaging.bands=[g]",
            r"psf_fwhm to have an entry for each of lens.imaging.bands = \['g'\], .* for i; with",
        ),
        ("lens.substructure.cdm.profile=nfw", "one of point, sis, tnfw"),
        ("lens.substructure.cdm.m_max=1e6", "lens.substructure.cdm.m_max"),
        ("lens.substructure.rod.mass_msun=1e9", "expected one of lens.substructure.rod.mass_frac"),
        ("lens.substructure.has_delta_chi2=false", "has_delta_chi2 = true with min_delta_chi2"),
        ("lens.substructure.colour=red", "colour"),
    ],
)
def test_bad_settings_are_refused(shipped: DictConfig, change: str, message: str) -> None:
    key, value = change.split("=", 1)
    broken = shipped.copy()
    OmegaConf.update(broken, key, yaml.safe_load(value), force_add=True)
    with pytest.raises(ConfigError, match=message):
        build_settings(broken.data_gen, "data_gen")


def test_images_without_noise_are_not_selected_by_it() -> None:
    flawed = lens_preset("model_2", legacy_flaws=True, substructure__min_delta_chi2=9.0)
    with pytest.raises(ConfigError, match=r"min_delta_chi2 = 0 with .* got min_delta_chi2 = 9"):
        flawed.resolved()


def test_bad_flaws_and_keys_of_plain_values_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"lens.flaws to name settings such as macro.q, but got"):
        lens_preset("fair", flaws={"macro.colour": 1})
    values = lens_values("fair")
    del values["macro"]["q"]
    with pytest.raises(ConfigError, match=r"lens.macro .* but got no entry for q"):
        lens_settings(values)


def test_a_gpu_is_asked_for_where_there_is_one(composed: Callable[..., DictConfig]) -> None:
    with pytest.raises(ConfigError, match="workers would share one GPU"):
        config(composed, "data_gen.device=cuda", "data_gen.n_jobs=2")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="torch finds no GPU; take cpu"):
            config(composed, "data_gen.device=cuda").build_phases()
