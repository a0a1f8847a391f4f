"""The report of a preparation, written from its manifest: what came in, what each step did."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

# Splits in the order in which they are read.
_COLUMNS = ("train", "val", "test", "domain")
_FILES = """\
| file | content |
|---|---|
| prepared.fits | a row per stamp that stays: its place, IDENTITY, SPLIT, MATCH, labels |
| drops.ecsv | the rows that do not stay, and why |
| scaler.json | mean and standard deviation of labels, softening of pixels |
| manifest.json | all figures of this report, and the settings |"""


def report(manifest: Mapping[str, Any]) -> str:
    """Return the report in Markdown.

    Args:
        manifest: What `manifest.json` holds.
    """
    parts = [
        ["# Prepared stamps", _summary(manifest)],
        ["## Suites", _suites(manifest["suites"])],
        ["## Rows in and out", _steps(manifest)],
        ["## Splits", *_splits(manifest)],
        ["## Matching", *_matching(manifest)],
        ["## Scaler", *_scaler(manifest["scaler"])],
        ["## Files", _FILES],
    ]
    return "\n\n".join(text for part in parts for text in part) + "\n"


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown; floats have four digits."""
    lines = [titles, ["---"] * len(titles), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(cell: object) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _summary(manifest: Mapping[str, Any]) -> str:
    steps, splits = manifest["steps"], manifest["splits"]
    n_in, n_out = (sum(steps[k][key].values()) for k, key in ((0, "rows_in"), (-1, "rows_out")))
    return (
        f"{n_in} stamps of {len(manifest['suites'])} suites came in, {n_out} stay. They show "
        f"{splits['n_objects']} objects. Made by data_gen=prepared, version "
        f"{manifest['version']}, settings {manifest['config_hash']}."
    )


def _suites(suites: Mapping[str, Mapping[str, Any]]) -> str:
    titles = ["suite", "files", "stamps", "bands", "side [px]", "median scale [arcsec/px]", "unit"]
    keys = ("n_files", "n_stamps", "bands", "side", "pixel_scale", "unit")
    return markdown_table(titles, ([name, *(s[key] for key in keys)] for name, s in suites.items()))


def _steps(manifest: Mapping[str, Any]) -> str:
    suites = list(manifest["suites"])
    rows = []
    for step in manifest["steps"]:
        counts = [f"{step['rows_in'][s]} -> {step['rows_out'][s]}" for s in suites]
        rows.append([step["name"], step["rule"], *counts])
    return markdown_table(["dropped for", "rule", *suites], rows)


def _splits(manifest: Mapping[str, Any]) -> Iterator[str]:
    splits, settings = manifest["splits"], manifest["settings"]["split"]
    ends = (f"{name} [{low:g}, {high:g})" for name, (low, high) in splits["intervals"].items())
    yield (
        f"By {settings['by']}: the hash of (seed = {settings['seed']}, id) puts each object on "
        f"[0, 1), where splits are intervals: {', '.join(ends)}."
    )
    yield markdown_table(
        ["objects (stamps)", *_COLUMNS],
        (
            [name, *(f"{counts[s]['objects']} ({counts[s]['stamps']})" for s in _COLUMNS)]
            for name, counts in splits["counts"].items()
        ),
    )
    yield (
        f"Leak check: {splits['n_in_several_splits']} of {splits['n_objects']} objects have stamps "
        "in more than one split."
    )


def _matching(manifest: Mapping[str, Any]) -> Iterator[str]:
    rule = manifest["settings"]["match"]
    if rule["source"] is None:
        yield "Nothing is matched (data_gen.match.source = null)."
        return
    limits = ", ".join(f"{name} within {limit:g}" for name, limit in rule["tolerance"].items())
    where = "in the same split" if rule["within_splits"] else "in any split"
    yield f"Partners in {rule['source']}, strategy {rule['strategy']}, {where}: {limits}."
    matches = manifest["matches"]
    yield markdown_table(
        ["pairs of targets x sources", *_COLUMNS, "matched targets"],
        ([name, *_pair_counts(one), f"{one['fraction']:.1%}"] for name, one in matches.items()),
    )
    for name, one in matches.items():
        unknown = " and ".join(f"{n} rows of {suite}" for suite, n in one["unknown"].items())
        yield f"{unknown} have no partner since a field of the tolerance is nan or inf."
        keys = ("ks_before", "ks_after", "mean_difference_before", "mean_difference_after")
        largest = one["largest_difference"]
        yield (
            f"Balance of {name} against {rule['source']}: Kolmogorov-Smirnov statistic, "
            "standardised mean difference (balanced below 0.1), of all rows and of pairs; largest "
            "difference of partners."
        )
        yield markdown_table(
            ["field", "KS before", "after", "difference before", "after", "largest"],
            (
                [field, *(values[key] for key in keys), largest.get(field, "")]
                for field, values in one["balance"].items()
            ),
        )


def _pair_counts(one: Mapping[str, Any]) -> list[str]:
    counts = (one["by_split"][split] for split in _COLUMNS)
    return [f"{n['pairs']} of {n['targets']} x {n['sources']}" for n in counts]


def _scaler(scaler: Mapping[str, Any]) -> Iterator[str]:
    stretch = scaler["stretch"]
    yield (
        f"From the training split alone. Pixels: asinh(pixel / {stretch['softening']:.4g}) "
        f"[{stretch['unit']}], {stretch['reason']}. Labels: (value - mean) / std."
    )
    yield markdown_table(
        ["label", "mean", "std", "known values", "unit"],
        ([name, s["mean"], s["std"], s["n"], s["unit"]] for name, s in scaler["labels"].items()),
    )
