"""Small suites of stamps that are prepared, and a small encoder of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from numpy.typing import NDArray
from omegaconf import DictConfig

from conf import schema
from conf.build import build_settings
from datagen.stamps import format as stamps

SIDE, BANDS = 20, ("g", "r", "i")
N_PROJECTIONS = 2
SIGMA = 0.004
Compose = Callable[..., DictConfig]


def blob(width: float, colour: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a Gaussian of some width [px] and colour in noise, off the centre by up to a pixel."""
    x = np.arange(SIDE) - 0.5 * (SIDE - 1) + rng.uniform(-1, 1, (2, 1))
    light = np.exp(-0.5 * (x[0] ** 2 + x[1][:, None] ** 2) / width**2) / width**2
    fluxes = 3.0 * np.array([10 ** (-0.4 * colour), 1.0, 10 ** (0.4 * colour)])
    noise = rng.normal(0.0, SIGMA, (len(BANDS), SIDE, SIDE))
    return (fluxes[:, None, None] * light + noise).astype(np.float32)


def write_suite(
    folder: Path, n_objects: int, first: int = 0, drop: str = "", **cards: object
) -> None:
    """Write a suite whose objects have a width, a colour and a kind; one width is not known."""
    rng = np.random.default_rng([5, first])
    objects = np.repeat(np.arange(first, first + n_objects), N_PROJECTIONS)
    n = len(objects)
    width = np.repeat(rng.uniform(1.0, 3.0, n_objects), N_PROJECTIONS)
    colour = np.repeat(rng.uniform(0.0, 1.0, n_objects), N_PROJECTIONS)
    known: dict[str, Any] = {
        "SUITE": np.full(n, folder.name),
        "SNAPSHOT": np.full(n, 84),
        "OBJECT": objects,
        "PROJECTION": np.tile(np.arange(N_PROJECTIONS), n_objects),
        "FILE": np.array([f"{k}.fits" for k in range(n)]),
        "SCALE": np.full(n, 0.3),
        "FWHM": np.full(n, 0.7),
        "SKYSIGMA": np.full(n, SIGMA),
        **{f"SKYSIGMA_{band.upper()}": np.full(n, SIGMA) for band in BANDS},
        "redshift": np.full(n, 0.1),
        "width": np.where(objects == first, np.nan, width),
        "colour": colour,
        "is_red": (colour > 0.5).astype(float),
    }
    known.pop(drop, None)
    header = {"SUITE": folder.name, "BANDS": ",".join(BANDS), "SIDE": SIDE, "UNIT": "nanomaggy"}
    header |= {"ZEROPT": 22.5, "CONFHASH": "0123", **cards}
    for number, rows in enumerate(np.array_split(np.arange(n), 2)):
        part = {name: values[rows] for name, values in known.items()}
        stamps.write_labels(stamps.truth_path(folder, number), part, {"width": "pix"}, header)
        pixels = [blob(width[k], colour[k], np.random.default_rng([7, first, k])) for k in rows]
        stamps.write_stamps(stamps.stamps_path(folder, number), np.stack(pixels))


def prepare(folder: Path, composed: Callable[..., DictConfig], *overrides: str) -> None:
    """Prepare all suites in `folder/stamps`."""
    from datagen.prepared.jobs import make_files

    paths = [f"paths.data_dir={folder}", "data_gen.split.seed=3"]
    splits = "data_gen.split.fractions={train: 0.6, val: 0.2, test: 0.2, domain: 0.0}"
    cfg = composed("datagen", "data_gen=prepared", *paths, splits, *overrides)
    suites = sorted(path.name for path in (folder / "stamps").iterdir())
    make_files(build_settings(cfg.data_gen, "data_gen"), suites)


@pytest.fixture(scope="session")
def galaxies_dir(
    tmp_path_factory: pytest.TempPathFactory, composed: Callable[..., DictConfig]
) -> Path:
    """Return a folder with the suites `a` (30 objects) and `b` (10 others), prepared."""
    folder = tmp_path_factory.mktemp("galaxies")
    write_suite(folder / "stamps" / "a", 30)
    write_suite(folder / "stamps" / "b", 10, first=100)
    prepare(folder, composed)
    return folder


@pytest.fixture(scope="session")
def compose_galaxies(
    galaxies_dir: Path, tmp_path_factory: pytest.TempPathFactory, root: Path
) -> Compose:
    """Return a function that composes a small training in a folder of its own."""

    def composed(*overrides: str) -> DictConfig:
        schema.register()
        GlobalHydra.instance().clear()
        folder = tmp_path_factory.mktemp("run")
        small = [
            "model=simclr",
            f"paths.data_dir={galaxies_dir}",
            f"paths.log_dir={folder / 'logs'}",
            f"paths.output_dir={folder / 'outputs'}",
            "data.train_px=12",
            "data.batch_size=16",
            "model.network.channels=[4,8]",
            "model.network.n_blocks=[0]",
            "model.probes.classes=[is_red]",
            "trainer=cpu",
            "trainer.max_epochs=2",
            "trainer.enable_progress_bar=false",
            "logger=none",
            "callbacks.reports.draws=false",
        ]
        if not any(override.startswith("model=probe") for override in overrides):
            small.append("model.heads.projector=[16,8]")
        else:
            small.remove("model.probes.classes=[is_red]")
        with initialize_config_dir(str(root / "conf"), version_base="1.3"):
            return compose("train", overrides=[*small, *overrides])

    return composed


@pytest.fixture(scope="session")
def trained_galaxies(compose_galaxies: Compose) -> tuple[DictConfig, dict[str, float]]:
    """Return the configuration of a small training, and what it ended with."""
    from encoders.training import train

    cfg = compose_galaxies("seed=0")
    return cfg, train(cfg)
