"""The conversion of pickles as it is shipped, on folders of a test."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from conf.build import build_settings
from datagen.halos.pickles_config import HalosPicklesConfig


@pytest.fixture(scope="module")
def shipped(composed: Callable[..., DictConfig]) -> HalosPicklesConfig:
    settings = build_settings(composed("datagen", "data_gen=halos_pickles").data_gen, "data_gen")
    assert isinstance(settings, HalosPicklesConfig)
    return settings


@pytest.fixture
def config(shipped: HalosPicklesConfig, tmp_path: Path) -> HalosPicklesConfig:
    """Return the shipped settings on folders of this test."""
    (tmp_path / "pickles").mkdir()
    return dataclasses.replace(
        shipped, pickles_dir=str(tmp_path / "pickles"), data_dir=str(tmp_path / "bahamas")
    )
