"""Small sets of maps, and settings of a small encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from omegaconf import DictConfig

from datagen.halos import format as files
from encoders.training import train

SIDE = 16
N_PROJECTIONS = 2
SIGMAS = (0.0, 0.1, 1.0)


def blob(width: float, rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """Return a Gaussian of some width [half sides], round, with 2 % of noise, in mass and stars."""
    x = np.linspace(-1.0, 1.0, side)
    centre = 0.05 * rng.normal(size=2)
    r2 = (x - centre[0]) ** 2 + (x[:, None] - centre[1]) ** 2
    mass = 1e8 * np.exp(-0.5 * r2 / width**2) * (1.0 + 0.02 * rng.normal(size=r2.shape)) + 1e5
    return np.stack((mass, 0.01 * mass)).astype(np.float32)


def write_set(
    folder: Path,
    n_clusters: int = 24,
    sigmas: Sequence[float] = SIGMAS,
    n_files: int = 2,
    side: int = SIDE,
    width_of: Callable[[Any], Any] = lambda sigma: 0.15 + 0.3 * np.log10(1.0 + 9.0 * sigma),
    **meta: Any,  # noqa: ANN401 - cards of the header
) -> None:
    """Write a suite in which the width of a halo grows with its cross-section."""
    header = {"SUITE": folder.name, "CHANNELS": "mass,stars", "UNIT_0": "Msun kpc-2"}
    header |= {"UNIT_1": "Msun kpc-2", "SIDE": side, "PIXSCALE": 20.0, "DEPTH": 1e4}
    header |= {"ENGINE": "blob", "SEED": 0, "CONFHASH": "0123", **meta}
    n_each = len(sigmas) * N_PROJECTIONS
    for number in range(n_files):
        first, last = (k * n_clusters // n_files for k in (number, number + 1))
        index = np.arange(first * n_each, last * n_each)
        sigma = np.array(sigmas)[index // N_PROJECTIONS % len(sigmas)]
        width = width_of(np.nan_to_num(sigma))
        rngs = [np.random.default_rng([header["SEED"], int(i)]) for i in index]
        maps = np.stack([blob(w, rng, side) for w, rng in zip(width, rngs, strict=True)])
        columns = {name: np.ones(len(index)) for name in files.TRUTH_COLUMNS}
        columns |= {"INDEX": index, "CLUSTER": index // n_each, "CROSS_SECTION": sigma}
        columns |= {"PROJECTION": index % N_PROJECTIONS}
        files.write_maps(files.maps_path(folder, number), maps)
        files.write_truth(files.truth_path(folder, number), columns, header)


@pytest.fixture(scope="session")
def halos_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sets `a` and `b`, which share their halos, and `c` of another seed.

    24 halos (`c`: 8) of 16 px with 3 cross-sections in 2 projections.
    """
    folder = tmp_path_factory.mktemp("halos")
    write_set(folder / "a")
    write_set(folder / "b", CONFHASH="4567")
    write_set(folder / "c", n_clusters=8, SEED=1)
    return folder


@pytest.fixture
def data_options(halos_dir: Path) -> dict[str, Any]:
    """Return the arguments of the data module."""
    return {
        "data_dir": str(halos_dir),
        "sets": {"a": "known"},
        "channels": ["mass"],
        "transform": "log10",
        "zero_cross_section": 0.01,
        "batch_size": 16,
        "num_workers": 0,
        "seed": 1,
        "splits": {"train": 0.6, "val": 0.2, "test": 0.2},
        "n_fit": 64,
        "in_memory": True,
    }


Compose = Callable[..., DictConfig]


@pytest.fixture(scope="session")
def compose_halos(
    halos_dir: Path, tmp_path_factory: pytest.TempPathFactory, composed: Compose
) -> Compose:
    """Return a function that composes a small training in a folder of its own."""

    def small_training(*overrides: str) -> DictConfig:
        small = [
            "model=compact_reduced",
            f"data.data_dir={halos_dir}",
            "trainer=cpu",
            "trainer.max_epochs=2",
            "trainer.enable_progress_bar=false",
            "data.batch_size=32",
            "logger=none",
            "callbacks.reports.draws=false",
        ]
        names = [override.split("=")[0] for override in overrides]
        if "model" not in names:
            small += ["model.network.encoder.channels=[4,8]", "model.network.n_hidden=16"]
        cfg = composed("train", *small, *overrides)
        folder = tmp_path_factory.mktemp("run")
        cfg.paths.log_dir, cfg.paths.output_dir = str(folder / "logs"), str(folder / "outputs")
        return cfg

    return small_training


@pytest.fixture(scope="session")
def trained(compose_halos: Compose) -> tuple[DictConfig, dict[str, float]]:
    """Return a training of two epochs and its figures."""
    cfg = compose_halos()
    return cfg, train(cfg)
