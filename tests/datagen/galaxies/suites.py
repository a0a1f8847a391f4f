"""Suites of galaxies, groups and clusters, read from `conf/galaxy` with changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.galaxies import suite as shipped
from datagen.galaxies.settings import GalaxySettings

FOLDER = Path(__file__).resolve().parents[3] / "conf" / "galaxy"


def suite(name: str = "a", **changes: Any) -> GalaxySettings:  # noqa: ANN401 - any value
    """Return a suite with changes: `imaging__side=32` changes `imaging.side`."""
    nested: dict[str, Any] = {}
    for key, value in changes.items():
        node, (*path, last) = nested, key.split("__")
        for step in path:
            node = node.setdefault(step, {})
        node[last] = value
    return shipped(name, nested)
