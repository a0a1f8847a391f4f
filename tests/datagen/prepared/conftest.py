"""The settings as they are shipped, and folders of small suites."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from conf.build import build_settings
from datagen.prepared.config import PreparedConfig
from tests.datagen.prepared.stamps import columns, write_suite


@pytest.fixture(scope="session")
def settings(composed: Callable[..., DictConfig]) -> Callable[..., PreparedConfig]:
    """Return a function that builds the shipped settings, composed once, with other values."""
    shipped = composed("datagen", "data_gen=prepared")

    def call(*changes: str) -> PreparedConfig:
        cfg = copy.deepcopy(shipped)
        cfg.merge_with_dotlist(list(changes))
        built = build_settings(cfg.data_gen, "data_gen")
        assert isinstance(built, PreparedConfig)
        return built

    return call


@pytest.fixture
def stamps(tmp_path: Path) -> Path:
    """Return a folder with the suites a and obs."""
    write_suite(tmp_path / "stamps", "a", columns(60, 1))
    write_suite(tmp_path / "stamps", "obs", columns(80, 2, 1))
    return tmp_path / "stamps"
