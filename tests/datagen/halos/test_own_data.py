"""The worked example of `docs/halos_own_data.md` runs, and its commands exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig

from conf.build import build_settings
from datagen import validate
from datagen.halos import format as files


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "halos_own_data.md").read_text()


def test_the_example_writes_a_valid_suite(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(code, "halos_own_data.md", "exec"), {"__name__": "example"})
    validate.main(["data/halos/mine"])
    assert capsys.readouterr().out == (
        "OK: 1 files of maps (120 of sigma/m 0.1, 120 of sigma/m 1) of 40 clusters in "
        "data/halos/mine\n"
    )
    (path,) = files.map_files(Path("data/halos/mine"))
    maps, truth = files.read_maps(path), files.read_truth(files.truth_of(path))
    assert maps.shape == (240, 1, 100, 100)
    # Cores are larger under a larger cross-section; the projections of both are the same.
    is_large = np.asarray(truth["CROSS_SECTION"]) == 1.0
    middle = maps[:, 0, 40:60, 40:60].mean(axis=(1, 2)) / maps[:, 0].max(axis=(1, 2))
    assert (middle[is_large] > middle[~is_large].max()).all()
    assert truth["CLUSTER"].tolist() == sorted(truth["CLUSTER"])
    assert truth["M200"].unit == "Msun"


def test_the_commands_compose(page: str, composed: Callable[..., DictConfig]) -> None:
    commands = [line for line in page.splitlines() if line.startswith("python datagen/run.py")]
    assert len(commands) == 1
    settings: Any = build_settings(
        composed("datagen", *shlex.split(commands[0])[2:]).data_gen, "data_gen"
    )
    assert settings.data_dir == "data/halos/bahamas"
    assert settings.pattern == "bahamas_*.pkl"
    only_mass = ["data_gen.channels=[mass]", "data_gen.planes={3: [0], 4: [0]}"]
    node = composed("datagen", "data_gen=halos_pickles", *only_mass).data_gen
    only: Any = build_settings(node, "data_gen")
    assert only.planes == {3: [0], 4: [0]}
