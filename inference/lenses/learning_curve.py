"""Accuracy of classifiers against the number of training images, from the results of their runs."""

from __future__ import annotations

import io
import itertools
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import ArrayLike, NDArray
from omegaconf import DictConfig, OmegaConf
from scipy import stats

from conf.build import build_settings
from datagen import files
from datagen.errors import DataFormatError, DataNotFoundError
from inference.lenses.curve_plots import draw_curve
from inference.lenses.curve_settings import CurveSettings
from inference.pictures import save_png
from inference.survey.matching import wilson_interval

log = logging.getLogger(__name__)

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Run:
    """The test of one training.

    Args:
        folder: Of the run.
        model: Name of the classifier.
        n_train: Number of training images.
        seed: Of the training.
        index: Numbers of the test images, rising (n,).
        is_right: Whether the class of each was found (n,).
        auroc: Mean area under the ROC curve, one class against the rest.
    """

    folder: Path
    model: str
    n_train: int
    seed: int
    index: NDArray[np.int64]
    is_right: Flags
    auroc: float


def evaluate_curve(cfg: DictConfig) -> int:
    """Run `evaluate.yaml` with `evaluate=learning_curve`; return the exit status."""
    settings: CurveSettings = build_settings(cfg.evaluate, "evaluate")
    curve, pairs = compare(settings)
    folder = Path(settings.output_dir)
    for name, table in (("learning_curve", curve), ("pairs", pairs)):
        stream = io.StringIO()
        table.write(stream, format="ascii.ecsv")
        files.write_text(folder / f"{name}.ecsv", stream.getvalue())
        sys.stdout.write("\n".join(table.pformat(max_lines=-1, max_width=-1)) + "\n")
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

    Raises:
        DataNotFoundError: There is none.
        DataFormatError: Results are damaged, or two runs have the same model, number and seed.
    """
    configs = sorted(folder.rglob(".hydra/config.yaml"))
    tested = [path for path in configs if (_results(path) / "test.json").is_file()]
    if not tested:
        raise DataNotFoundError(
            f"evaluate.runs_dir = {folder} holds no runs that were tested; make them with: python "
            "train.py experiment=lens_learning_curve",
            value=str(folder),
        )
    if len(tested) < len(configs):
        log.warning("%d of %d runs have no test results", len(configs) - len(tested), len(configs))
    runs = sorted(map(_read, tested), key=lambda run: (run.model, run.n_train, run.seed))
    for first, second in itertools.pairwise(runs):
        if (first.model, first.n_train, first.seed) == (second.model, second.n_train, second.seed):
            raise DataFormatError(
                f"{first.folder} and {second.folder} both have model = {first.model}, n_train = "
                f"{first.n_train}, seed = {first.seed}; remove one of them",
                value=str(second.folder),
            )
    return runs


def mean_interval(values: ArrayLike, confidence: float) -> tuple[float, float]:
    """Return the interval of the mean of two or more values, by Student's t.

    mean +- t s / sqrt(n), with t the quantile of n - 1 degrees of freedom.
    """
    sample = np.asarray(values, np.float64)
    mean = sample.mean()
    quantile = stats.t.ppf((1 + confidence) / 2, len(sample) - 1)
    half = float(quantile * sample.std(ddof=1) / np.sqrt(len(sample)))
    return float(mean) - half, float(mean) + half


def paired_interval(
    correct_a: Sequence[Flags], correct_b: Sequence[Flags], confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return by how much accuracy a exceeds accuracy b, with an interval.

    Both classifiers answer the same images, so that images which are hard for both cancel. With
    several seeds the interval is Student's t over the differences of the seeds, which holds the
    chance of images as well as that of trainings where every seed tests on images of its own. With
    one seed it is the normal one over images: of n images a alone gets `p` n right and b alone
    `q` n, difference p - q, variance (p + q - (p - q)^2) / n (McNemar 1947,
    doi:10.1007/BF02295996; Agresti, Categorical Data Analysis, 11.1).

    Args:
        correct_a: For each seed, which images a got right (n,).
        correct_b: The same for b, for the same seeds and images.
        confidence: Of the interval.

    Returns:
        Difference, lower and upper end.
    """
    changes = [a.astype(np.float64) - b for a, b in zip(correct_a, correct_b, strict=True)]
    differences = [float(change.mean()) for change in changes]
    mean = float(np.mean(differences))
    if len(changes) > 1:
        return mean, *mean_interval(differences, confidence)
    error = float(np.sqrt(changes[0].var() / len(changes[0])))
    half = float(stats.norm.ppf((1 + confidence) / 2)) * error
    return mean, mean - half, mean + half


def _interval(group: Sequence[Run], confidence: float) -> tuple[float, float]:
    """Return the interval of the accuracy over seeds; with one seed over images (Wilson)."""
    if len(group) > 1:
        return mean_interval([run.is_right.mean() for run in group], confidence)
    right = group[0].is_right
    z = float(stats.norm.ppf((1 + confidence) / 2))
    low, high = wilson_interval(right.sum(), len(right), z)
    return float(low), float(high)


def _pairs(groups: dict[tuple[str, int], list[Run]], settings: CurveSettings) -> Table:
    """Return the differences to the reference for the seeds that both have."""
    rows = []
    for (model, n_train), group in groups.items():
        others = {run.seed: run for run in groups.get((settings.reference or "", n_train), [])}
        both = [(run, others[run.seed]) for run in group if run.seed in others]
        if model == settings.reference or not both:
            continue
        for run, other in both:
            _check_same_images(run, other)
        right = ([run.is_right for run, _ in both], [other.is_right for _, other in both])
        difference = paired_interval(*right, settings.confidence)
        rows.append((model, settings.reference, n_train, len(both), *difference))
    names = ["model", "reference", "n_train", "n_seeds", "difference", "low", "high"]
    return Table(rows=rows or None, names=names, dtype=[str, str, int, int, *[float] * 3])


def _check_same_images(run: Run, other: Run) -> None:
    if not np.array_equal(run.index, other.index):
        raise DataFormatError(
            f"expected {run.folder} and {other.folder} to have tested on the same images, but they "
            "differ; train both again with the same data.seed, data.splits and images",
            value=str(run.folder),
        )


def _results(config: Path) -> Path:
    return config.parent.parent / "results"


def _read(config: Path) -> Run:
    """Read the results of a run from where `LensReports` writes them."""
    results = _results(config)
    try:
        cfg: Any = OmegaConf.load(config)
        found = files.read_json(results / "test.json")
        with np.load(results / "predictions.npz", allow_pickle=False) as content:
            index, labels, p = (content[key] for key in ("index", "labels", "probabilities"))
        n_train = int(cfg.data.n_train)
        is_right = np.asarray(p.argmax(axis=1) == labels)
        seed, auroc = int(cfg.seed), float(found["auroc"])
        return Run(results.parent, str(cfg.task_name), n_train, seed, index, is_right, auroc)
    except Exception as error:  # damaged files make their readers raise many unrelated classes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataFormatError(
            f"{results.parent} is damaged or no training of lenses with data.n_train: {reason}; "
            "remove it, or train it again",
            value=str(results.parent),
        ) from error
