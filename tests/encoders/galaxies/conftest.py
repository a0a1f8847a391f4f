"""Settings of the data of small suites of stamps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig


@pytest.fixture
def data_options(galaxies_dir: Path) -> dict[str, Any]:
    """Return the arguments of the data module."""
    return {
        "data_dir": str(galaxies_dir / "prepared"),
        "stamps_dir": str(galaxies_dir / "stamps"),
        "suites": None,
        "bands": None,
        "train_px": 12,
        "labels": None,
        "n_train": None,
        "n_val": None,
        "n_test": None,
        "batch_size": 8,
        "num_workers": 0,
        "seed": 1,
        "in_memory": True,
    }


@pytest.fixture(scope="session")
def trained(
    trained_galaxies: tuple[DictConfig, dict[str, float]],
) -> tuple[DictConfig, dict[str, float]]:
    """Return the configuration of a small training, and what it ended with."""
    return trained_galaxies


def read_content(path: Path) -> Mapping[str, Any]:
    """Return the content of a JSON file."""
    content: Mapping[str, Any] = json.loads(path.read_text())
    return content
