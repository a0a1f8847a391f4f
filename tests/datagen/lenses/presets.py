"""Presets of the lens simulator for tests: those of `conf/lens`, with changes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from datagen.lenses.settings import LensSettings, lens_settings

FOLDER = Path(__file__).resolve().parents[3] / "conf" / "lens"


def lens_values(name: str, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever YAML holds
    """Return the values of a preset; `imaging__side=33` changes `imaging.side`."""
    values: dict[str, Any] = copy.deepcopy(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = values
        for key in parents:
            node = node[key]
        node[last] = value
    return values


def lens_preset(name: str, **changes: Any) -> LensSettings:  # noqa: ANN401
    """Return the settings of a preset with changes."""
    return lens_settings(lens_values(name, **changes))
