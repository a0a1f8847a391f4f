"""Suites as they are shipped, on small raw files of a test."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from conf.build import build_settings
from datagen.stamps.config import StampsConfig
from tests.datagen.stamps.raw import write_suite

Configured = Callable[..., StampsConfig]
RUN = {"data_dir", "n_stamps_per_file", "n_jobs", "seed"}


@pytest.fixture(scope="session")
def shipped(composed: Callable[..., DictConfig]) -> StampsConfig:
    """Return the settings of all suites with the bands g, r, i."""
    suites = "suite=[a,obs,groups,tng]"
    found = build_settings(composed("datagen", "data_gen=stamps", suites).data_gen, "data_gen")
    assert isinstance(found, StampsConfig)
    return found


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of raw files that tests only read: 4 objects, 2 projections each."""
    return write_suite(tmp_path_factory.mktemp("raw"))


@pytest.fixture
def configured(shipped: StampsConfig, raw: Path, tmp_path: Path) -> Configured:
    """Return a function that gives suite a, or the named ones, on small files.

    `configured("a", "obs", store_px=16, n_stamps_per_file=4, crop__kind="petrosian")`; names with a
    double underscore are settings of the parts of suites.
    """

    def call(*names: str, **changes: Any) -> StampsConfig:  # noqa: ANN401 - any value of a setting
        suites = {name: copy.deepcopy(shipped.suites[name]) for name in names or ("a",)}
        image = dataclasses.replace(shipped.image, store_px=changes.pop("store_px", 16))
        run = {"data_dir": str(tmp_path / "stamps"), "n_stamps_per_file": 5}
        run |= {name: changes.pop(name) for name in RUN & changes.keys()}
        for suite in suites.values():
            if suite.crop.kind == "fraction":
                suite.crop.factor = 1.0
            for name, value in ({"folder": str(raw)} | changes).items():
                part, _, key = name.rpartition("__")
                setattr(getattr(suite, part) if part else suite, key, value)
        # Built again, so that settings are checked.
        suites = {name: dataclasses.replace(suite) for name, suite in suites.items()}
        return dataclasses.replace(shipped, suites=suites, image=image, **run)

    return call
