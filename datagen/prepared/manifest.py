"""What a preparation tells of itself: all its figures as one mapping of plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from datagen.prepared.config import PreparedConfig
from datagen.prepared.pairing import Pairs
from datagen.prepared.prepare import Prepared, count_splits
from datagen.prepared.splitting import count_straddlers, intervals
from datagen.prepared.tables import IDENTITY, OBJECT_KEYS, Suite
from datagen.prepared.version import FORMAT_VERSION
from datagen.version import VERSION

ALL = "all suites"


def build_manifest(
    config: PreparedConfig,
    suites: Sequence[Suite],
    prepared: Prepared,
    scaler: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of `manifest.json`.

    Args:
        config: The settings.
        suites: What came in.
        prepared: What came out.
        scaler: The content of `scaler.json`.
    """
    return {
        "format_version": FORMAT_VERSION,
        "version": VERSION,
        "config_hash": config.content_hash(),
        "settings": config.content(),
        "suites": {suite.name: _suite(suite) for suite in sorted(suites, key=lambda s: s.name)},
        "steps": [dataclasses.asdict(step) for step in prepared.steps],
        "splits": _splits(config, prepared),
        "matches": {one.target: _match(one) for one in prepared.matches},
        "scaler": dict(scaler),
    }


def _suite(suite: Suite) -> dict[str, Any]:
    return {
        "n_files": suite.n_files,
        "n_stamps": len(suite.table),
        "bands": ",".join(suite.bands),
        "side": suite.header["SIDE"],
        "pixel_scale": suite.pixel_scale,
        "zero_point": suite.header.get("ZEROPT"),
        "unit": suite.header["UNIT"],
        "config_hash": suite.header.get("CONFHASH", ""),
    }


def _splits(config: PreparedConfig, prepared: Prepared) -> dict[str, Any]:
    table = prepared.table
    names, splits = np.asarray(table["SUITE"]), np.asarray(table["SPLIT"])
    # Counted from the table as it is written: by id, and by what projections of an object share.
    ids = np.asarray(table[IDENTITY]).astype(str)
    objects = np.array(["/".join(map(str, row)) for row in table[list(OBJECT_KEYS)].iterrows()])
    counts = {name: count_splits(table[names == name]) for name in np.unique(names).tolist()}
    return {
        "intervals": intervals(config.split.fractions),
        "counts": counts | {ALL: count_splits(table)},
        "n_objects": len(np.unique(ids)),
        "n_in_several_splits": max(count_straddlers(x, splits) for x in (ids, objects)),
    }


def _match(one: Pairs) -> dict[str, Any]:
    n_targets = sum(counts["targets"] for counts in one.by_split.values())
    return {
        "pairs": len(one.rows),
        "fraction": len(one.rows) / n_targets,
        "by_split": one.by_split,
        "unknown": one.unknown,
        "balance": one.balance,
        "largest_difference": one.largest_difference,
    }
