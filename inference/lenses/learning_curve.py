"""Accuracy of classifiers against the number of training images, from the results of their runs."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from scipy import stats

from conf.build import build_settings
from datagen.errors import DataFormatError
from inference.lenses.curve_plots import draw_curve
from inference.lenses.curve_settings import CurveSettings
from inference.lenses.intervals import Scores, paired_interval, seeds_interval
from inference.pictures import save_png
from inference.runs import RESULTS, damaged, publish, read_test, tested_runs
from inference.survey.matching import wilson_interval

log = logging.getLogger(__name__)

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Run:
    """The test of one training.

    Args:
        folder: Of the run.
        model: Name of the classifier.
        network: Options of its network.
        n_train: Number of training images.
        seed: Of the training.
        identity: Of the set of images.
        index: Numbers of the test images in the set (n,).
        labels: Their classes (n,).
        is_right: Whether the class of each was found (n,).
        auroc: Mean area under the ROC curve, one class against the rest.
    """

    folder: Path
    model: str
    network: dict[str, Any]
    n_train: int
    seed: int
    identity: str
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    is_right: Flags
    auroc: float

    @property
    def key(self) -> tuple[str, int, int]:
        """What only one run may have."""
        return self.model, self.n_train, self.seed

    @property
    def scores(self) -> Scores:
        """One for each image whose class was found."""
        return Scores(self.identity, self.index, self.is_right.astype(np.float64))


def evaluate_curve(cfg: DictConfig) -> int:
    """Run `evaluate.yaml` with `evaluate=learning_curve`; return the exit status."""
    settings: CurveSettings = build_settings(cfg.evaluate, "evaluate")
    curve, pairs = compare(settings)
    folder = Path(settings.output_dir)
    publish(folder, {"learning_curve": curve, "pairs": pairs})
    path = save_png(folder / "learning_curve.png", draw_curve(curve, pairs))
    sys.stdout.write(f"wrote {path} and the tables beside it\n")
    return 0


def compare(settings: CurveSettings) -> tuple[Table, Table]:
    """Return the accuracy of each model and number of images, and differences to the reference.

    Raises:
        DataNotFoundError: There are no runs with results.
        DataFormatError: Results are damaged, or runs that are compared tested on other images.
    """
    runs = read_runs(Path(settings.runs_dir))
    groups = {
        key: list(group)
        for key, group in itertools.groupby(runs, key=lambda run: (run.model, run.n_train))
    }
    names = ["model", "n_train", "n_seeds", "n_images", "accuracy", "low", "high", "auroc"]
    rows = []
    for (model, n_train), group in groups.items():
        accuracy = [run.is_right.mean() for run in group]
        low, high = _interval(group, settings.confidence)
        counts = (len(group), min(len(run.index) for run in group))
        figures = (np.mean(accuracy), low, high, np.mean([run.auroc for run in group]))
        rows.append((model, n_train, *counts, *figures))
    curve = Table(rows=rows, names=names, dtype=[str, int, int, int, *[float] * 4])
    pairs = _pairs(groups, settings)
    for table in (curve, pairs):
        table.meta = {"confidence": settings.confidence}
        for name in ("accuracy", "low", "high", "auroc", "difference"):
            if name in table.columns:
                table[name].info.format = ".4f"
    return curve, pairs


def read_runs(folder: Path) -> list[Run]:
    """Return the runs below a folder that were tested, by model, number of images and seed.

    Networks of one model with other options are other models; what differs is added to the names.

    Raises:
        DataNotFoundError: There is none.
        DataFormatError: Results are damaged, or two runs have the same model, number and seed.
    """
    tested = tested_runs(folder, "lens_learning_curve")
    runs = sorted(_with_names(list(map(_read, tested))), key=lambda run: run.key)
    for first, second in itertools.pairwise(runs):
        if first.key == second.key:
            raise DataFormatError(
                f"{first.folder} and {second.folder} both have model = {first.model}, n_train = "
                f"{first.n_train}, seed = {first.seed}; remove one of them",
                value=str(second.folder),
            )
    return runs


def _interval(group: Sequence[Run], confidence: float) -> tuple[float, float]:
    """Return the interval of the accuracy over seeds; with one seed over images (Wilson)."""
    if len(group) > 1:
        return seeds_interval([run.scores for run in group], confidence)
    right = group[0].is_right
    z = float(stats.norm.ppf((1 + confidence) / 2))
    low, high = wilson_interval(right.sum(), len(right), z)
    return float(low), float(high)


def _pairs(groups: dict[tuple[str, int], list[Run]], settings: CurveSettings) -> Table:
    """Return the differences to the reference for the seeds that both have."""
    names = sorted({model for model, _ in groups})
    if settings.reference not in (None, *names):
        log.warning("evaluate.reference = %s is none of %s", settings.reference, ", ".join(names))
    rows = []
    for (model, n_train), group in groups.items():
        others = {run.seed: run for run in groups.get((settings.reference or "", n_train), [])}
        both = [(run, others[run.seed]) for run in group if run.seed in others]
        if model == settings.reference or not both:
            continue
        for run, other in both:
            _check_same_images(run, other)
        scores = ([run.scores for run, _ in both], [other.scores for _, other in both])
        difference = paired_interval(*scores, settings.confidence)
        rows.append((model, settings.reference, n_train, len(both), *difference))
    names = ["model", "reference", "n_train", "n_seeds", "difference", "low", "high"]
    return Table(rows=rows or None, names=names, dtype=[str, str, int, int, *[float] * 3])


def _check_same_images(run: Run, other: Run) -> None:
    is_same = run.identity == other.identity and np.array_equal(run.index, other.index)
    if not is_same or not np.array_equal(run.labels, other.labels):
        raise DataFormatError(
            f"expected {run.folder} and {other.folder} to have tested on the same images, but they "
            "differ; train both again with the same data.seed, data.splits and images",
            value=str(run.folder),
        )


def _with_names(runs: Sequence[Run]) -> list[Run]:
    """Add to the names of models what differs in the networks of one model."""
    networks: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        networks.setdefault(run.model, []).append(run.network)
    return [replace(run, model=_name(run, networks[run.model])) for run in runs]


def _name(run: Run, networks: Sequence[Mapping[str, Any]]) -> str:
    keys = sorted({key for network in networks for key in network})
    differing = [key for key in keys if any(n.get(key) != networks[0].get(key) for n in networks)]
    words = [f"{key}={run.network.get(key)}" for key in differing]
    return " ".join([run.model, *words])


def _read(folder: Path) -> Run:
    """Read the results of a run from where `LensReports` writes them."""
    found = read_test(folder, ("identity", "splits", "network"))
    try:
        cfg: Any = OmegaConf.load(folder / ".hydra" / "config.yaml")
        with np.load(folder / RESULTS / "predictions.npz", allow_pickle=False) as content:
            index, labels, p = (content[key] for key in ("index", "labels", "probabilities"))
        is_right = np.asarray(p.argmax(axis=1) == labels)
        return Run(
            folder=folder,
            model=str(cfg.task_name),
            network=dict(found["network"]),
            n_train=int(cfg.data.n_train),
            seed=int(cfg.seed),
            identity=str(found["identity"]),
            index=index,
            labels=labels,
            is_right=is_right,
            auroc=float("nan") if found["auroc"] is None else float(found["auroc"]),
        )
    except Exception as error:  # damaged files make their readers raise many unrelated classes
        raise damaged(folder, "training of lenses with data.n_train", error) from error
