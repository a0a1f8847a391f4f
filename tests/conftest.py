"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from conf import schema

pytest_plugins = ["tests.galaxy_stamps", "tests.survey_tiles"]

ROOT = Path(__file__).resolve().parents[1]


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
    """Return a function that composes a primary config: `composed("train", "model=membership")`."""

    def call(primary: str, *overrides: str) -> DictConfig:
        schema.register()
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return compose(primary, overrides=list(overrides))

    return call


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
