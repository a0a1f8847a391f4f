"""Small sets of lens images, and settings of a small classifier."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from omegaconf import DictConfig

from datagen.lenses import format as files
from encoders.training import train

SIDE = 17
N_PER_FILE = 30
N_FILES = 3


def draw(index: NDArray[np.int64], side: int = SIDE) -> NDArray[np.float32]:
    """Noise of 1 count with nothing (class 0), a bright spot (1) or a bar (2) at a random place."""
    images = np.empty((len(index), 1, side, side), dtype=np.float32)
    for image, number in zip(images, index, strict=True):
        rng = np.random.default_rng(int(number))
        image[0] = rng.normal(size=(side, side))
        row, column = rng.integers(3, side - 3, 2)
        if number % 3 == 1:
            image[0, row - 1 : row + 2, column - 1 : column + 2] += 8.0
        elif number % 3 == 2:
            image[0, row] += 6.0
    return images


def truth(index: NDArray[np.int64]) -> dict[str, Any]:
    """Columns of the table LENSES; Delta chi2 grows with the number of the image."""
    columns: dict[str, Any] = {name: np.zeros(len(index)) for name in files.LENS_COLUMNS}
    chi2 = np.where(index % 3 > 0, index.astype(float), 0.0)
    return columns | {
        "INDEX": index,
        "CLASS": index % 3,
        "DELTA_CHI2": chi2,
        "SKY_SIGMA": np.ones(len(index)),
    }


def write_shards(folder: Path, n_files: int = N_FILES) -> None:
    """Write what `data_gen=lenses` would."""
    for number in range(n_files):
        index = np.arange(N_PER_FILE) + number * N_PER_FILE
        files.write_images(files.images_path(folder, number), draw(index))
        nothing = {name: np.zeros(0) for name in files.SUBSTRUCTURE_COLUMNS}
        files.write_truth(files.truth_path(folder, number), truth(index), nothing, {})
    imaging = {"side": SIDE, "pixel_scale": 0.1, "bands": ["i"]}
    settings = {"lens": {"name": "dummy", "imaging": imaging}}
    (folder / "settings.json").write_text(json.dumps(settings))


@pytest.fixture(scope="session")
def lenses_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with 90 simulated images of 17 px."""
    folder = tmp_path_factory.mktemp("lenses")
    write_shards(folder)
    return folder


@pytest.fixture(scope="session")
def public_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a public set of 20 training images and 5 validation images per class, 17 px."""
    folder = tmp_path_factory.mktemp("public")
    for split, start, n_images in (("train", 0, 60), ("val", 600, 15)):
        for number in range(start, start + n_images):
            name = ("no", "sphere", "vort")[number % 3]
            image = draw(np.array([number]))[0]
            path = folder / split / name / f"{number}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, (image - image.min()) / (image.max() - image.min()))
    return folder


@pytest.fixture
def card() -> dict[str, Any]:
    return {
        "task": "lenses",
        "model": "plain_cnn",
        "classes": list(files.CLASSES),
        "bands": ["i"],
        "pixel_scale": 0.1,
        "side": SIDE,
        "image_side": SIDE,
        "stretch": {
            "kind": "asinh",
            "softening": [1.0],
            "scales": [],
            "mean": [0.1],
            "std": [0.9],
            "steps": [],
            "threshold": 0.1,
        },
        "n_train": 60,
        "data_hash": "0123456789ab",
        "splits": {"train": 0.7, "val": 0.1, "test": 0.2},
        "split_seed": 1,
    }


@pytest.fixture
def options() -> dict[str, Any]:
    """Return the arguments of the module besides the card."""
    return {
        "network": {
            "_target_": "encoders.lenses.plain_network.PlainNetwork",
            "channels": [8, 8],
            "n_blocks": [0],
        },
        "loss": {"label_smoothing": 0.0},
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-2},
        "scheduler": None,
        "augment": {"turns": "quarter", "flips": True, "seed": 1},
        "calibration": {"coverage": 0.9},
        "freeze_norm": False,
    }


Compose = Callable[..., DictConfig]


@pytest.fixture(scope="session")
def compose_lenses(
    lenses_dir: Path, tmp_path_factory: pytest.TempPathFactory, composed: Compose
) -> Compose:
    """Return a function that composes a small training in a folder of its own."""

    def small_training(*overrides: str) -> DictConfig:
        small = [
            "model=plain_cnn",
            f"data.data_dir={lenses_dir}",
            "trainer=cpu",
            "trainer.max_epochs=2",
            "trainer.enable_progress_bar=false",
            "model.network.channels=[8,8]",
            "model.network.n_blocks=[0]",
            "data.batch_size=16",
            "logger=none",
        ]
        cfg = composed("train", *small, *overrides)
        folder = tmp_path_factory.mktemp("run")
        cfg.paths.log_dir, cfg.paths.output_dir = str(folder / "logs"), str(folder / "outputs")
        return cfg

    return small_training


@pytest.fixture(scope="session")
def trained(compose_lenses: Compose) -> tuple[DictConfig, dict[str, float]]:
    """Return a training of two epochs and its figures."""
    cfg = compose_lenses("logger=tensorboard")
    return cfg, train(cfg)
