"""Data, cards and settings that several tests of the encoders use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from datagen.fields.dummy import write_dummy_file_data

CELL_PX = 32
BANDS = ["g", "r"]


@pytest.fixture(scope="session")
def fields_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with 16 file data of one 2-band field of 128 px with 32-px cells."""
    folder = tmp_path_factory.mktemp("fields")
    write_dummy_file_data(folder, 16, 128, CELL_PX, BANDS, seed=1)
    return folder


@pytest.fixture
def card() -> dict[str, Any]:
    return {
        "task": "membership",
        "bands": list(BANDS),
        "pixel_scale": 0.263,
        "zero_point": 30.0,
        "cell_px": CELL_PX,
        "data_hash": "0123456789ab",
        "prevalence": 0.2,
    }


@pytest.fixture
def options() -> dict[str, Any]:
    """Return the arguments of the module besides the card."""
    return {
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
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 3e-3},
        "scheduler": None,
    }


@pytest.fixture
def compose_train(
    fields_dir: Path, tmp_path: Path, composed: Callable[..., DictConfig]
) -> Callable[..., DictConfig]:
    """Return a function that composes a small training, with more overrides."""

    def small_training(*overrides: str, folder: str = "run") -> DictConfig:
        small = [
            f"data.data_dir={fields_dir}",
            "trainer=cpu",
            "trainer.max_steps=100",
            "trainer.enable_progress_bar=false",
            "model.network.width=4",
            "data.batch_size=2",
            "logger=none",
        ]
        cfg = composed("train", *small, *overrides)
        run = tmp_path / folder
        cfg.paths.log_dir, cfg.paths.output_dir = str(run / "logs"), str(run / "outputs")
        return cfg

    return small_training
