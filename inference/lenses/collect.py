"""Puts the results of all parts together when the ranks are done."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from astropy.table import Table

from datagen import files
from datagen.errors import DataFormatError, DataNotFoundError
from inference.lenses import table
from inference.lenses.listing import Part
from inference.lenses.table import Meta, PartResult
from inference.lenses.writer import LensFolder
from inference.outputs import read_record, remove

log = logging.getLogger(__name__)


def collect(
    parts: Sequence[Part],
    run: Mapping[str, Any],
    paths: LensFolder,
    classes: Sequence[str],
    meta: Meta,
) -> tuple[Table, Table]:
    """Write the table of all images, the list of failures and the manifest.

    Args:
        parts: All parts.
        run: The run whose results count, `run.json`.
        paths: Names of the files.
        classes: Names of the classes.
        meta: Keywords of the table.

    Returns:
        Predictions and failures.
    """
    results = [_result(part, paths, classes) for part in parts]
    predictions = table.stacked([result.predictions for result in results])
    failures = table.stacked([result.failures for result in results])
    whole = PartResult(predictions, failures, meta)
    files.write_bytes(paths.predictions, table.to_fits(whole))
    files.write_text(paths.failed, _to_ecsv(failures))
    files.write_json(paths.manifest, _manifest(parts, results, run, paths))
    _report(predictions, failures, paths)
    return predictions, failures


def _result(part: Part, paths: LensFolder, classes: Sequence[str]) -> PartResult:
    """Return the rows of a part; one that cannot be read counts as failed, and is made again."""
    try:
        return table.read_result(paths.part(part.name))
    except (DataFormatError, DataNotFoundError) as error:
        remove(paths.record(part.name))
        failures = table.failure_rows([(part.ids[0], str(error))])
        return PartResult(table.no_rows(classes), failures, {})


def _manifest(
    parts: Sequence[Part],
    results: Sequence[PartResult],
    run: Mapping[str, Any],
    paths: LensFolder,
) -> dict[str, Any]:
    entries = [
        {
            **read_record(paths, part.name),
            "part": part.name,
            "split": part.split,
            "n_images": len(result.predictions),
            "n_failed": len(result.failures),
            "input_bytes": sum(size for size in part.sizes if size > 0),
        }
        for part, result in zip(parts, results, strict=True)
    ]
    totals = {f"n_{key}": sum(e[f"n_{key}"] for e in entries) for key in ("images", "failed")}
    return {**run, **totals, "parts": entries}


def _report(predictions: Table, failures: Table, paths: LensFolder) -> None:
    """Say in one line how it went."""
    if len(failures):
        log.error(
            "%d images classified, %d images or files failed, see %s (%s: %s); repair them and run "
            "the command again, which classifies only what is missing",
            len(predictions),
            len(failures),
            paths.failed,
            failures["id"][0],
            failures["reason"][0],
        )
    else:
        log.info("%d images classified, see %s", len(predictions), paths.predictions)


def _to_ecsv(failures: Table) -> str:
    stream = io.StringIO()
    failures.write(stream, format="ascii.ecsv")
    return stream.getvalue()
