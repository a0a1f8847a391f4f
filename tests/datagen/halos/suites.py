"""Suites of clusters, read from `conf/halo` with changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from datagen.halos.settings import HaloSettings, halo_settings

FOLDER = Path(__file__).resolve().parents[3] / "conf" / "halo"


def suite(**changes: Any) -> HaloSettings:  # noqa: ANN401 - any value of a setting
    """Return suite a with small maps and no stars felt; `gas__agn="1"` changes `gas.agn`."""
    values = yaml.safe_load((FOLDER / "a.yaml").read_text())
    small = {"imaging__side": 20, "imaging__pixel_scale": 100.0, "stars__is_felt": False}
    for name, value in (small | changes).items():
        node, (*path, last) = values, name.split("__")
        for key in path:
            node = node[key]
        node[last] = value
    return halo_settings(values)
