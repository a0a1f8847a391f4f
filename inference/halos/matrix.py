"""What encoders find in known, unlabelled and held-out sets: one table of many trainings."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from conf.build import build_settings
from datagen.errors import DataFormatError
from inference.runs import damaged, publish, read_test, tested_runs

NAME = "halos_matrix"
# Figures of a group of maps, by unit; those in cm2/g are averaged as logarithms.
SIGMAS = ("low", "median", "high")
MEANS = ("bias_dex", "rmse_dex", "covered", "accuracy", "overlap", "novel", "auroc")
KEYS = ("case", "model", "set", "labels", "cross_section")
UNIT = "cm2 g-1"
# A set of which the files tell no cross-section sorts last.
NO_SIGMA = float("inf")


@dataclass(frozen=True)
class MatrixSettings:
    """Which trainings are compared; the values stand in `conf/evaluate/halos_matrix.yaml`.

    Args:
        runs_dir: Folder below which the runs are.
        output_dir: Where the table goes.
    """

    runs_dir: str
    output_dir: str


@dataclass(frozen=True)
class Run:
    """The test of one training.

    Args:
        folder: Of the run.
        case: What it was told of its sets: a name in `conf/sets`.
        model: Name of the encoder.
        seed: Of the training.
        sets: What was asked of each set.
        groups: Figures of each group of tested maps, see `encoders.halos.judgement.group_rows`.
    """

    folder: Path
    case: str
    model: str
    seed: int
    sets: Mapping[str, Any]
    groups: Sequence[Mapping[str, Any]]

    @property
    def key(self) -> tuple[str, str, int]:
        """What only one run may have."""
        return self.case, self.model, self.seed


def evaluate_matrix(cfg: DictConfig) -> int:
    """Run `evaluate.yaml` with `evaluate=halos_matrix`; return the exit status."""
    settings: MatrixSettings = build_settings(cfg.evaluate, "evaluate")
    folder = Path(settings.output_dir)
    publish(folder, {NAME: compare(read_runs(Path(settings.runs_dir)))})
    sys.stdout.write(f"wrote {folder / NAME}.ecsv\n")
    return 0


def read_runs(folder: Path) -> list[Run]:
    """Return the runs below a folder that were tested, by case, model and seed.

    Raises:
        DataNotFoundError: There is none.
        DataFormatError: Results are damaged, two runs have the same case, model and seed, or runs
            of one case have other sets.
    """
    runs = sorted(map(_read, tested_runs(folder, NAME)), key=lambda run: run.key)
    for first, second in itertools.pairwise(runs):
        words = f"case = {first.case}, model = {first.model}"
        if first.key == second.key:
            raise DataFormatError(
                f"{first.folder} and {second.folder} both have {words}, seed = {first.seed}; "
                "remove one of them",
                value=str(second.folder),
            )
        if first.case == second.case and first.sets != second.sets:
            raise DataFormatError(
                f"expected {first.folder} and {second.folder} with {words} to have the same "
                "data.sets, but they differ; remove one of them",
                value=str(second.folder),
            )
    return runs


def compare(runs: Sequence[Run]) -> Table:
    """Return a row for each case, model and group of tested maps, with means over the runs.

    `cross_section` is the true one [cm^2/g]; `low`, `median`, `high` are quantiles of what was
    found; `scatter_dex` is the standard deviation of log10 median between runs.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for run in runs:
        for row in run.groups:
            sigma = NO_SIGMA if row["cross_section"] is None else row["cross_section"]
            key = (run.case, run.model, row["set"], row["labels"], sigma)
            groups.setdefault(key, []).append(row)
    rows = [(*key[:-1], key[-1] if np.isfinite(key[-1]) else np.nan, *_means(groups[key]))
            for key in sorted(groups)]  # fmt: skip
    names = [*KEYS, "n_runs", "n_maps", *SIGMAS, "scatter_dex", *MEANS]
    kinds = [str] * 4 + [float] + [int] * 2 + [float] * (len(names) - 7)
    table = Table(rows=rows, names=names, dtype=kinds)
    for name in names[7:]:
        table[name].info.format = ".3f"
    for name in ("cross_section", *SIGMAS):
        table[name].unit = UNIT
    return table


def _means(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    logs = np.log10([_numbers(rows, name) for name in SIGMAS])
    scatter = logs[1].std(ddof=1) if len(rows) > 1 else np.nan
    n_maps = sum(int(row["n_maps"]) for row in rows)
    means = [_numbers(rows, name).mean() for name in MEANS]
    return [len(rows), n_maps, *(10.0 ** logs.mean(axis=1)).tolist(), float(scatter), *means]


def _numbers(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)


def _read(folder: Path) -> Run:
    """Read the results of a run from where `HaloReports` writes them."""
    found = read_test(folder, ("sets", "groups", "model"))
    try:
        cfg, hydra = (OmegaConf.load(folder / ".hydra" / f"{name}.yaml")
                      for name in ("config", "hydra"))  # fmt: skip
        case = str(hydra.hydra.runtime.choices["sets"])
        run = Run(folder, case, str(found["model"]), int(cfg.seed), found["sets"], found["groups"])
        compare([run])
        return run
    except Exception as error:  # damaged files make their readers raise many unrelated classes
        raise damaged(folder, f"training of experiment={NAME}", error) from error
