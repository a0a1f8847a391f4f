"""A small encoder of stamps and a probe on it, both untrained, and suites to predict on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from conf.build import build
from datagen.files import save_torch
from datagen.stamps import format as stamps
from inference.engine import predict_galaxies
from inference.galaxies.settings import GalaxySettings
from tests.galaxy_stamps import Compose, write_suite

# Another order than that of the training, and a band more.
OTHER_BANDS = ("y", "i", "g", "r")


def other_bands(folder: Path) -> None:
    """Give the stamps of a suite, which have g, r and i, other bands."""
    for path in stamps.stamp_files(folder):
        pixels, truth = np.array(stamps.read_stamps(path)), stamps.truth_of(path)
        table = stamps.read_table(truth)
        planes = [pixels[:, 0] - 7.0, pixels[:, 2], pixels[:, 0], pixels[:, 1]]
        stamps.write_stamps(path, np.stack(planes, axis=1))
        columns = {name: np.asarray(table[name]) for name in table.colnames}
        del columns["colour"]
        columns["survey"] = np.full(len(table), "deep")
        meta = {**table.meta, "BANDS": ",".join(OTHER_BANDS)}
        stamps.write_labels(truth, columns, {"width": "pix"}, meta)


@pytest.fixture(scope="session")
def stamps_dir(galaxies_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the suites a and b, which trained, and c with other bands and labels."""
    folder = tmp_path_factory.mktemp("stamps")
    for name in ("a", "b"):
        (folder / name).symlink_to(galaxies_dir / "stamps" / name)
    write_suite(folder / "c", 12, first=200)
    other_bands(folder / "c")
    return folder


def saved(cfg: DictConfig, path: Path) -> Path:
    """Write a checkpoint of a training that has not begun."""
    torch.manual_seed(0)
    data = build(cfg.data)
    module = build(cfg.model, card=data.card() | {"model": str(cfg.task_name)})
    content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    save_torch(path, content)
    return path


@pytest.fixture(scope="session")
def encoder(compose_galaxies: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of an encoder that was set up for the suites a and b."""
    return saved(compose_galaxies(), tmp_path_factory.mktemp("simclr") / "best.ckpt")


@pytest.fixture(scope="session")
def probe(
    encoder: Path, compose_galaxies: Compose, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the checkpoint of a probe of colours."""
    labels = ["data.labels=[colour,is_red]", "+model.classes={is_red: 2}"]
    cfg = compose_galaxies("model=probe", f"model.checkpoint={encoder}", *labels)
    return saved(cfg, tmp_path_factory.mktemp("probe") / "best.ckpt")


@pytest.fixture(scope="session")
def settings(stamps_dir: Path, encoder: Path) -> GalaxySettings:
    return GalaxySettings(
        cached_data_path=str(stamps_dir),
        weight_save_path=str(encoder),
        output_dir="out",
        batch_size=16,
        num_workers=0,
        devices=1,
        accelerator="cpu",
        strategy="auto",
        num_nodes=1,
        precision="32-true",
        n_threads=1,
        overwrite=False,
        suites=None,
        scale_tolerance=0.02,
        evaluate=False,
        n_evaluated=1000,
    )


Predict = Callable[..., int]


@pytest.fixture
def predict(settings: GalaxySettings, tmp_path: Path) -> Predict:
    """Return a function that predicts with changed settings, below `tmp_path / "out"`."""

    def call(**changes: object) -> int:
        ours = {"output_dir": str(tmp_path / "out"), **changes}
        return predict_galaxies(dataclasses.replace(settings, **ours))

    return call


@pytest.fixture(scope="session")
def whole(settings: GalaxySettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results of all suites, evaluated."""
    folder = tmp_path_factory.mktemp("whole")
    ours = {"output_dir": str(folder), "evaluate": True}
    assert predict_galaxies(dataclasses.replace(settings, **ours)) == 0
    return folder
