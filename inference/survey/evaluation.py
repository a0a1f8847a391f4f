"""Compares a finished prediction with a truth or reference catalogue: tables, plots, summary."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from omegaconf import DictConfig

from conf.build import build_settings
from datagen import files
from datagen.errors import DataFormatError, DataNotFoundError
from inference.survey import cells, clevar, pairs, plots, statistics
from inference.survey.candidates import read_catalog, to_ecsv
from inference.survey.estimates import is_known
from inference.survey.evaluation_settings import EvaluateSettings
from inference.survey.footprint import covered_areas
from inference.survey.matching import SkyCatalog
from inference.survey.merge import TileFootprint, owned_cells
from inference.survey.pairs import Agreement
from inference.survey.records import OutputPaths
from inference.survey.references import ReferenceCatalog, read_reference
from inference.survey.scores import ScoreMap, read_scores
from inference.survey.statistics import Fraction, MatchRule

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Args:
        fractions: Completeness and purity, over all and in bins.
        curve: Both against the score threshold.
        area_deg2: Area of the sky that the prediction covers, without masked pixels [deg2].
        cells: Cell metrics; empty without source catalogues.
        matches: Candidate, cluster, their separation and what is known of both.
        agreements: How well the matched pairs agree; empty for an encoder without heads.
        files: What was written.
    """

    fractions: list[Fraction]
    curve: Table
    area_deg2: float
    cells: dict[str, float]
    matches: Table
    agreements: list[Agreement]
    files: list[Path]


@dataclass(frozen=True)
class Sample:
    """What is compared with what.

    Args:
        candidates: The candidates, with id.
        complete: Clusters that should have been found.
        pure: Clusters that candidates may match.
        rule: When they are the same.
    """

    candidates: Table
    complete: ReferenceCatalog
    pure: ReferenceCatalog
    rule: MatchRule

    @property
    def sky(self) -> SkyCatalog:
        """The candidates as a catalogue to match."""
        return statistics.candidate_sky(self.candidates)


def evaluate(cfg: DictConfig) -> int:
    """Run `evaluate.yaml`; return the exit status."""
    settings: EvaluateSettings = build_settings(cfg.evaluate, "evaluate")
    evaluation = evaluate_survey(settings)
    sys.stdout.write("\n".join(summary(evaluation)) + "\n")
    return 0


def evaluate_survey(settings: EvaluateSettings) -> Evaluation:
    """Evaluate a prediction and write tables and plots.

    Raises:
        DataNotFoundError: The prediction or the reference catalogue is missing.
        DataFormatError: A file of them is damaged or lacks a column.
    """
    paths = OutputPaths(Path(settings.prediction_dir))
    maps = _score_maps(paths)
    places = [TileFootprint.of(scores) for scores in maps]
    owned = owned_cells(places)
    area = sum(covered_areas(places, [scores.seen_fraction for scores in maps], owned))
    sample = _sample(settings, paths, maps)
    fractions = [*_fractions(sample, settings), *_chance(sample, maps, owned)]
    curve = statistics.threshold_curve(sample.sky, sample.complete, sample.pure, sample.rule)
    run = files.read_json(paths.run) if paths.run.is_file() else {}
    labels = _cell_labels(maps, owned, run, settings.sources)
    metrics = cells.cell_metrics(labels) if labels else {}
    matches = _matches(sample)
    agreements = pairs.agreements(matches)
    result = Evaluation(fractions, curve, area, metrics, matches, agreements, [])
    origin = {**_origin(settings, str(maps[0].meta["RUNHASH"])), "area_deg2": area}
    result.files.extend(_write(Path(settings.output_dir), result))
    result.files.append(_write_summary(settings, origin, result, sample))
    result.files.extend(_write_clevar(Path(settings.output_dir), sample, maps))
    shown = maps[: settings.n_plots]
    figures = plots.Figures(fractions, curve, shown, sample.candidates, sample.pure, matches)
    result.files.extend(plots.write_plots(Path(settings.output_dir), figures, run))
    return result


def summary(evaluation: Evaluation) -> list[str]:
    """Return the result as lines of a table and the names of the files."""
    lines = [f"{'quantity':<20}{'bin':<26}{'matched':>9}{'of':>7}{'value':>8}  68 % interval"]
    for fraction in evaluation.fractions:
        if fraction.variable != "all" and fraction.n == 0:
            continue
        span = "all"
        if fraction.variable != "all":
            span = f"{fraction.low:g} <= {fraction.variable} < {fraction.high:g}"
        low, high = fraction.interval
        value = f"{fraction.value:>8.3f}  {low:.3f} - {high:.3f}" if fraction.n else f"{'n/a':>8}"
        counts = f"{fraction.n_matched:>9}{fraction.n:>7}"
        lines.append(f"{fraction.quantity:<20}{span:<26}{counts}{value}")
    lines.append(f"{'area covered [deg2]':<46}{evaluation.area_deg2:>18.4g}")
    lines += pairs.summary_lines(evaluation.agreements)
    for name, metric in evaluation.cells.items():
        lines.append(f"cell {name:<41}{f'{metric:.4f}' if math.isfinite(metric) else 'n/a':>18}")
    return lines + [f"wrote {path}" for path in evaluation.files]


def _score_maps(paths: OutputPaths) -> list[ScoreMap]:
    """Return the score maps of the tiles that the manifest of the prediction calls done."""
    manifest = files.read_json(paths.manifest) if paths.manifest.is_file() else {"tiles": []}
    done = [entry["tile"] for entry in manifest["tiles"] if entry["status"] == "done"]
    if not done or not paths.catalog.is_file():
        raise DataNotFoundError(
            f"evaluate.prediction_dir = {paths.root} holds no finished prediction; it is made by "
            "`python inference/predict.py`",
            value=str(paths.root),
        )
    maps = [read_scores(paths.scores(tile)) for tile in done]
    for scores in maps:
        if scores.meta.get("RUNHASH") != manifest["run_hash"]:
            raise DataFormatError(
                f"{paths.scores(scores.tile)} is of another run than the manifest (RUNHASH = "
                f"{scores.meta.get('RUNHASH')}, expected {manifest['run_hash']}); finish the "
                "prediction first with `python inference/predict.py`",
                value=scores.meta.get("RUNHASH"),
                allowed=manifest["run_hash"],
            )
    return maps


def _sample(settings: EvaluateSettings, paths: OutputPaths, maps: Sequence[ScoreMap]) -> Sample:
    candidates = read_catalog(paths.catalog)
    if settings.score_min is not None:
        candidates = candidates[candidates["score"] >= settings.score_min]
    reference = read_reference(Path(settings.reference), settings.columns)
    inside = statistics.covered(maps, reference.sky.ra, reference.sky.dec)
    lowest, pure_lowest = settings.richness_min, settings.purity_richness_min
    complete = _counting(reference, settings, lowest, reference.labelled & inside)
    if pure_lowest is None:
        pure = _counting(reference, settings, lowest, reference.labelled)
    else:
        # Systems outside the label prior are real: who asks for them wants them to count.
        pure = _counting(reference, settings, pure_lowest, np.ones(len(reference), bool))
    log.info(
        "%d candidates; %d of %d reference clusters lie in the footprint and count",
        len(candidates),
        len(complete),
        len(reference),
    )
    if not len(complete):
        log.warning(
            "no reference cluster counts, so that the completeness is n/a: of %d in "
            "evaluate.reference = %s, %d lie in the footprint; labels, evaluate.richness_min and "
            "evaluate.redshift_range leave out the others",
            len(reference),
            settings.reference,
            int(inside.sum()),
        )
    rule = MatchRule(settings.match_radius_arcmin, settings.preference, settings.redshift_window)
    sample = Sample(candidates, complete, pure, rule)
    statistics.check_redshifts(sample.sky, pure.sky, rule)
    return sample


def _fractions(sample: Sample, settings: EvaluateSettings) -> list[Fraction]:
    sky, complete = sample.sky, sample.complete
    partner = statistics.match(sky, complete.sky, sample.rule)
    found = np.zeros(len(complete), bool)
    found[partner[partner >= 0]] = True
    real = statistics.match(sky, sample.pure.sky, sample.rule) >= 0
    name = "completeness"
    return [
        statistics.overall(name, found),
        *statistics.binned(name, "richness", complete.richness, found, settings.richness_bins),
        *statistics.binned(name, "z", complete.sky.redshift, found, settings.redshift_bins),
        statistics.overall("purity", real),
        *statistics.binned("purity", "score", sky.mass, real, settings.score_bins),
        *_purity_bins(sample.candidates, real, settings),
    ]


def _purity_bins(
    candidates: Table, real: NDArray[np.bool_], settings: EvaluateSettings
) -> list[Fraction]:
    """Return the purity in bins of what the candidates know; of the rest there are no bins."""
    return [
        fraction
        for name, label, edges in (
            ("richness", "richness", settings.richness_bins),
            ("redshift", "z", settings.redshift_bins),
        )
        if is_known(candidates, name)
        for fraction in statistics.binned(
            "purity", label, np.asarray(candidates[name], np.float64), real, edges
        )
    ]


def _chance(
    sample: Sample, maps: Sequence[ScoreMap], owned: Sequence[NDArray[np.bool_]]
) -> list[Fraction]:
    areas = [
        statistics.Area(scores.tile_wcs, scores.cell_px, np.argwhere(mine))
        for scores, mine in zip(maps, owned, strict=True)
    ]
    clusters = (sample.complete.sky, sample.pure.sky)
    return statistics.chance_fractions(areas, sample.sky, *clusters, sample.rule)


def _matches(sample: Sample) -> Table:
    partner = statistics.match(sample.sky, sample.pure.sky, sample.rule)
    return pairs.matched_pairs(sample.candidates, sample.pure, partner)


def _cell_labels(
    maps: Sequence[ScoreMap],
    owned: Sequence[NDArray[np.bool_]],
    run: dict[str, Any],
    pattern: str,
) -> list[cells.CellLabels]:
    """Return scores and truth of the cells of all survey tiles with a source catalogue."""
    folder = Path(run.get("cached_data_path", "."))
    labels = []
    for scores, mine in zip(maps, owned, strict=True):
        path = folder / pattern.replace("{tile}", scores.tile)
        if path.is_file():
            labels.append(cells.label_tile(scores, cells.read_sources(path), mine))
    if len(labels) < len(maps):
        log.warning(
            "%d of %d survey tiles have truth (evaluate.sources = %s below %s): cells of the "
            "others do not count",
            len(labels),
            len(maps),
            pattern,
            folder,
        )
    return labels


def _write(folder: Path, result: Evaluation) -> list[Path]:
    tables = {
        "evaluation.ecsv": statistics.to_table(result.fractions),
        "curve.ecsv": result.curve,
        "matches.ecsv": result.matches,
    }
    for name, table in tables.items():
        files.write_text(folder / name, to_ecsv(table))
    return [folder / name for name in tables]


def _write_clevar(folder: Path, sample: Sample, maps: Sequence[ScoreMap]) -> list[Path]:
    """Write both catalogues with the matches of `matches.ecsv` for ClEvaR."""
    pure = sample.pure
    candidates, clusters = clevar.matched_tables(
        clevar.Side.of_candidates(sample.candidates, sample.sky),
        clevar.Side.of_reference(pure),
        statistics.within(sample.sky, pure.sky, sample.rule),
        sample.rule.preference,
    )
    clusters["ft_other"] = statistics.covered(maps, pure.sky.ra, pure.sky.dec)
    # A mask for the completeness: what should have been found.
    clusters["counts"] = np.isin(pure.ids, sample.complete.ids)
    tables = {"clevar_candidates.fits": candidates, "clevar_reference.fits": clusters}
    for name, table in tables.items():
        files.write_bytes(folder / name, clevar.to_fits(table))
    return [folder / name for name in tables]


def _origin(settings: EvaluateSettings, run_hash: str) -> dict[str, Any]:
    """Return what was compared with what, and the rules that decide what counts."""
    rules = ("match_radius_arcmin", "preference", "redshift_window", "score_min", "richness_min")
    more = ("purity_richness_min", "redshift_range")
    return {
        "run_hash": run_hash,
        "reference": settings.reference,
        **{name: getattr(settings, name) for name in rules + more},
    }


def _write_summary(
    settings: EvaluateSettings, origin: Mapping[str, Any], result: Evaluation, sample: Sample
) -> Path:
    content: dict[str, Any] = {
        **origin,
        "n_candidates": len(sample.candidates),
        "n_clusters": len(sample.complete),
        "cells": {key: _json_number(value) for key, value in result.cells.items()},
        "pairs": {found.quantity: _agreement_json(found) for found in result.agreements},
    }
    for fraction in (f for f in result.fractions if f.variable == "all"):
        content[fraction.quantity] = _fraction_json(fraction)
    path = Path(settings.output_dir) / "evaluation.json"
    files.write_json(path, content)
    return path


def _agreement_json(found: Agreement) -> dict[str, Any]:
    numbers = {"bias": _json_number(found.bias), "scatter": _json_number(found.scatter)}
    return {"n": found.n, **numbers, "within_error": _fraction_json(found.within)}


def _fraction_json(fraction: Fraction) -> dict[str, Any]:
    return {"value": _json_number(fraction.value), "wilson": list(fraction.interval)}


def _json_number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _counting(
    reference: ReferenceCatalog,
    settings: EvaluateSettings,
    richness_min: float | None,
    use: NDArray[np.bool_],
) -> ReferenceCatalog:
    """Return those clusters of `use` in the wanted range of richness and redshift."""
    if richness_min is not None:
        use = use & (_known(reference.richness, "richness") >= richness_min)
    if settings.redshift_range is not None:
        redshift = _known(reference.sky.redshift, "redshift")
        low, high = settings.redshift_range
        use = use & (redshift >= low) & (redshift < high)
    return reference.select(use)


def _known(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    if len(values) and np.isnan(values).all():
        raise DataFormatError(
            f"a range of {name} is asked for, but the reference catalogue has no {name}; "
            f"evaluate.columns.{name}=NAME names its column",
            value=name,
        )
    return values
