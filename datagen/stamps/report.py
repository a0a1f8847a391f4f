"""What became of all images and rows of a suite: `report.json` and `drops.ecsv`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from datagen.files import atomic_path, write_json
from datagen.stamps import format as files
from datagen.stamps.config import StampsConfig
from datagen.stamps.drops import Drop
from datagen.stamps.plan import Plan


def write_report(config: StampsConfig, plan: Plan, numbers: Sequence[int]) -> None:
    """Gather what the files of stamps say, and write both files.

    Args:
        config: The settings.
        plan: What was left out before.
        numbers: Of the files of stamps; those that are not there yet, or failed, are passed over.
    """
    folder = Path(config.data_dir)
    drops, tables = list(plan.drops), []
    for number in numbers:
        path = files.truth_path(folder, number)
        if path.exists():
            drops += files.read_drops(path)
            tables.append(files.read_table(path))
    write_json(folder / "report.json", _report(config, plan, drops, tables))
    listed = Table(
        {
            "file": [drop.file for drop in drops] or np.empty(0, "U1"),
            "kind": [drop.kind for drop in drops] or np.empty(0, "U1"),
            "reason": [drop.reason for drop in drops] or np.empty(0, "U1"),
        }
    )
    with atomic_path(folder / "drops.ecsv") as temporary:
        listed.write(temporary, format="ascii.ecsv", overwrite=True)


def _report(
    config: StampsConfig, plan: Plan, drops: Sequence[Drop], tables: Sequence[Table]
) -> dict[str, Any]:
    suite = config.suite
    counts = Counter(drop.kind for drop in drops)
    if plan.n_without_image:
        counts["no image"] = plan.n_without_image
    labels = {
        alias: {"unit": column.unit, "text": column.text} | _range(tables, alias)
        for alias, column in suite.columns.items()
    }
    return {
        "suite": suite.name,
        "bands": config.bands,
        "side_px": config.image.store_px,
        "config_hash": config.content_hash(),
        "n_stamps": sum(len(table) for table in tables),
        "n_objects": len({int(number) for table in tables for number in table["OBJECT"]}),
        "n_limited": sum(int(table["LIMITED"].sum()) for table in tables),
        "n_not_taken": plan.n_not_taken,
        "dropped": dict(counts),
        "pixel_scale_arcsec": _range(tables, "SCALE"),
        "labels": labels,
    }


def _range(tables: Sequence[Table], name: str) -> dict[str, Any]:
    """Return the range of a column and how many of its values are missing."""
    values = np.concatenate([np.empty(0), *(np.asarray(table[name], float) for table in tables)])
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (None, None)
    return {"low": low, "high": high, "n_missing": int(len(values) - len(known))}
