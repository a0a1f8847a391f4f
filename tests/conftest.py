"""Fixtures that every test may use."""

from __future__ import annotations

import copy
import functools
import gc
import itertools
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from conf import entry, schema

pytest_plugins = ["tests.galaxy_stamps", "tests.survey_tiles"]

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = {
    "datagen": "datagen/run.py",
    "train": "train.py",
    "predict": "inference/predict.py",
    "evaluate": "inference/evaluate.py",
}


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    status: object
    out: str
    errors: str


Command = Callable[..., Ended]


def pytest_collection_finish() -> None:
    """Spare what is imported: the collector would look through torch and astropy many times."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of third-party files, or skip where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the third-party files in ../shared/data are absent")
    return folder


@pytest.fixture(scope="session")
def composed() -> Callable[..., DictConfig]:
    """Return a function that composes a primary config: `composed("train", "model=membership")`.

    Each choice of groups is composed once, the values are set in a copy of it, as Hydra does it.
    """
    parser = OverridesParser.create()

    @functools.cache
    def once(primary: str, *choices: str) -> DictConfig:
        schema.register()
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return compose(primary, overrides=list(choices))

    def call(primary: str, *overrides: str) -> DictConfig:
        is_choice = [is_group(word.split("=")[0]) for word in overrides]
        cfg = copy.deepcopy(once(primary, *itertools.compress(overrides, is_choice)))
        values = [word for word, skip in zip(overrides, is_choice, strict=True) if not skip]
        ConfigLoaderImpl._apply_overrides_to_config(parser.parse_overrides(values), cfg)
        return cfg

    return call


def is_group(key: str) -> bool:
    """Return whether the key of an override names a group, ours or Hydra's."""
    group = key.lstrip("+~").split("@")[0]
    return group.startswith("hydra") or (ROOT / "conf" / group).is_dir()


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Return a function that runs a command where the test is: `command("train", "seed=1")`.

    It runs in this process, which has imported already what a new one would import for seconds.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")  # a training leaves it behind
    level = logging.root.level

    def run(name: str, *arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", [str(ROOT / ENTRIES[name]), *arguments])
        status: object = 0
        try:
            getattr(entry, name)()
        except SystemExit as stopped:
            status = stopped.code
        return Ended(status, *capsys.readouterr())

    yield run
    # Hydra sets up the log of a process, here that of all tests.
    for handler in logging.root.handlers[:]:
        logging.root.removeHandler(handler)
        handler.close()
    logging.root.setLevel(level)


@pytest.fixture
def checkpoint() -> Callable[..., Path]:
    """Return a function that writes a small membership encoder that has learned nothing.

    `checkpoint(path, bands, cell_px, **card)` returns the path.
    """

    def write(path: Path, bands: Sequence[str], cell_px: int, **more: object) -> Path:
        import torch

        from datagen.files import save_torch
        from encoders.fields.module import MembershipModule

        torch.manual_seed(3)
        card = {"task": "membership", "bands": list(bands), "cell_px": cell_px, "data_hash": "0"}
        card |= {"pixel_scale": 0.263, "zero_point": 30.0, "prevalence": 0.2, **more}
        hparams: dict[str, Any] = {
            "card": card,
            "network": {
                "_target_": "encoders.fields.network.MembershipNetwork",
                "width": 4,
                "n_counts": 3,
            },
            "loss": {
                "pos_weight": 1.0,
                "focal_gamma": 0.0,
                "redshift_weight": 0.0,
                "cluster_weight": 0.1,
            },
            "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-3},
            "scheduler": None,
        }
        state = MembershipModule(**hparams).state_dict()
        save_torch(path, {"state_dict": state, "hyper_parameters": hparams})
        return path

    return write
