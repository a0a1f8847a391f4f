"""Trainings that were tested, and tables of what they found."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from astropy.table import Table

from datagen import files
from datagen.errors import DataFormatError, DataNotFoundError

log = logging.getLogger(__name__)

# Where a training writes what it has found.
RESULTS = "results"


def tested_runs(folder: Path, experiment: str) -> list[Path]:
    """Return the folders of the runs below a folder that were tested.

    Args:
        folder: `evaluate.runs_dir`.
        experiment: That makes such runs.

    Raises:
        DataNotFoundError: There is none.
    """
    runs = [config.parent.parent for config in sorted(folder.rglob(".hydra/config.yaml"))]
    tested = [run for run in runs if (run / RESULTS / "test.json").is_file()]
    if not tested:
        raise DataNotFoundError(
            f"evaluate.runs_dir = {folder} holds no runs that were tested; make them with: python "
            f"train.py experiment={experiment}",
            value=str(folder),
        )
    left = sorted(set(runs) - set(tested))
    if left:
        names = ", ".join(str(run) for run in left)
        log.warning("%d of %d runs have no test results: %s", len(left), len(runs), names)
    return tested


def read_test(run: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Return `test.json` of a run; raise `DataFormatError` unless it has some keys."""
    path = run / RESULTS / "test.json"
    found: dict[str, Any] = files.read_json(path)
    missing = [key for key in keys if key not in found]
    if missing:
        raise DataFormatError(
            f"expected {path} to say with which data and network the test was, but it lacks "
            f"{', '.join(missing)}, as the results of older versions do; train and test again",
            value=str(path),
            allowed=missing,
        )
    return found


def damaged(run: Path, kind: str, error: Exception) -> DataFormatError:
    """Return the error for a run whose results cannot be used.

    Args:
        run: Its folder.
        kind: What it may not be instead of damaged.
        error: What reading it has raised.
    """
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataFormatError(
        f"{run} is damaged or no {kind}: {reason}; remove it, or train it again", value=str(run)
    )


def publish(folder: Path, tables: Mapping[str, Table]) -> None:
    """Write tables by name as ECSV to a folder, and to the terminal."""
    for name, table in tables.items():
        stream = io.StringIO()
        table.write(stream, format="ascii.ecsv")
        files.write_text(folder / f"{name}.ecsv", stream.getvalue())
        sys.stdout.write("\n".join(table.pformat(max_lines=-1, max_width=-1)) + "\n")
