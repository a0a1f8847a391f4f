"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from conf import schema

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
