"""Which of the ways to train an encoder of halos tells most of sigma/m, for how much CPU time.

Usage: python benchmarks/halo_training.py [--folder demo/halos] [--epochs 40] [--seeds 3]

Rows: LDA on radial profiles, the reference recipe (its 150 epochs, and as many as our CPU time
allows), ours, and ours without each of its parts. All see the same halos of suite a; suites of
other cross-sections, other feedback, heavier halos and noise are only tested. What is missing is
simulated. Columns: CPU-seconds of a training with its test; accuracy of the classes, rmse [dex] and
coverage of the 68 % intervals in suite a; error of the median [dex] at 0.2 cm2/g, which no training
saw; rmse [dex] with other feedback; area under the ROC curve of noise and of the heavier halos.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.halos import lda_accuracy, profiles
from datagen.halos.format import map_files, read_maps, read_truth, truth_of

ROOT = Path(__file__).resolve().parents[1]
# Suites by folder: preset and what is changed; all with the halos of one seed but the last two.
SUITES = {
    "a": ("a", []),
    "between": ("a", ["halo.cross_sections=[0.2,0.5]"]),
    "agn_minus": ("a_agn_minus", []),
    "agn_plus": ("a_agn_plus", []),
    "b": ("b", ["data_gen.seed=1"]),
    "noise": ("noise", ["data_gen.seed=1"]),
}
COLUMNS = ("rmse", "cover", "0.2", "agn", "noise", "b")
REFERENCE_EPOCHS = 150
OURS = ["model=compact_polar"]
REFERENCE = ["model=compact_reduced", "recipe=reference", "model.network.encoder.padding=1"]
# What is taken from ours, one at a time.
WITHOUT = {
    "compactness": ["model.loss.cclp=0"],
    "mean over maps": ["model.loss.per_row=false", "model.loss.cclp=2.2"],
    "places on the axis": ["model.loss.distance=0", "model.loss.regression=1"],
    "ordered latents": ["model.bottleneck=none"],
    "augmentation": ["model.augment.turns=false", "model.augment.flips=false"],
    "log10": ["data.transform=max"],
    "schedule": ["model.scheduler=null"],
    "log-polar maps": ["model=compact_reduced", "model.network.encoder.padding=1"],
}


@dataclass(frozen=True)
class Budget:
    """What a benchmark may use.

    Args:
        folder: Of maps and runs.
        n_files: Files of each suite, of 20 halos.
        side: Of a map of 2 Mpc [px].
        epochs: Of our trainings.
        reference_epochs: Of the reference recipe.
        seeds: Trainings of each kind.
        n_jobs: Processes that simulate.
    """

    folder: Path
    n_files: int
    side: int
    epochs: int
    reference_epochs: int
    seeds: int
    n_jobs: int


def main() -> None:
    """Simulate, train, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("demo/halos"))
    parser.add_argument("--n-files", type=int, default=10, help="of each suite, 20 halos each")
    parser.add_argument("--side", type=int, default=50, help="of a map of 2 Mpc [px]")
    parser.add_argument("--epochs", type=int, default=40, help="of our trainings")
    parser.add_argument("--reference-epochs", type=int, default=REFERENCE_EPOCHS)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--n-jobs", type=int, default=1, help="processes that simulate")
    budget = Budget(**vars(parser.parse_args()))
    simulate(budget)
    print(f"{'':34} {'epochs':>6} {'CPU-s':>7} {'accuracy':>16} ", end="")
    print(" ".join(f"{name:>8}" for name in COLUMNS))
    low = lda(budget)
    print(f"{'LDA on radial profiles':34} {'':6} {'':7} {np.mean(low):7.3f} +- {np.std(low):.3f}")
    ours = measure("ours", OURS, budget.epochs, budget)
    reference = measure("reference", REFERENCE, budget.reference_epochs, budget)
    fair = max(1, round(budget.reference_epochs * ours / reference))
    measure("reference, our CPU time", REFERENCE, min(fair, budget.reference_epochs), budget)
    for name, changes in WITHOUT.items():
        measure(f"ours without {name}", [*OURS, *changes], budget.epochs, budget)


def simulate(budget: Budget) -> None:
    """Simulate the suites; files that are there stay."""
    pixels = [f"halo.imaging.side={budget.side}", f"halo.imaging.pixel_scale={2000 / budget.side}"]
    sizes = [f"data_gen.nfiles={budget.n_files}", f"data_gen.n_jobs={budget.n_jobs}"]
    for name, (preset, changes) in SUITES.items():
        where = [f"data_gen.data_dir={budget.folder.absolute() / name}"]
        run(
            "datagen/run.py",
            ["data_gen=halos", f"halo={preset}", *pixels, *sizes, *where, *changes],
        )


def lda(budget: Budget) -> list[float]:
    """Return the accuracy of an LDA on radial profiles for each split."""
    paths = map_files(budget.folder / "a")
    maps = np.concatenate([read_maps(path)[:, :1] for path in paths])
    truths = [read_truth(truth_of(path)) for path in paths]
    sigma = np.concatenate([np.asarray(truth["CROSS_SECTION"], float) for truth in truths])
    cluster = np.concatenate([np.asarray(truth["CLUSTER"], np.int64) for truth in truths])
    labels = np.unique(sigma, return_inverse=True)[1].astype(np.int64)
    features = profiles(maps)
    return [lda_accuracy(features, labels, cluster, seed) for seed in range(budget.seeds)]


def measure(name: str, overrides: Sequence[str], epochs: int, budget: Budget) -> float:
    """Train with each seed and print the row; return the mean CPU-seconds of a training."""
    spent, rows = [], []
    for seed in range(budget.seeds):
        before = cpu_seconds()
        rows.append(train(name, overrides, epochs, seed, budget))
        spent.append(cpu_seconds() - before)
    accuracy = [row["accuracy"] for row in rows]
    figures = [mean([row[key] for row in rows]) for key in COLUMNS]
    print(f"{name:34} {epochs:6d} {np.mean(spent):7.1f} {mean(accuracy):7.3f} +- ", end="")
    print(f"{np.std(accuracy):.3f}", " ".join(f"{value:8.3f}" for value in figures))
    return float(np.mean(spent))


def train(
    name: str, overrides: Sequence[str], epochs: int, seed: int, budget: Budget
) -> dict[str, float]:
    """Train once; return accuracy, rmse and coverage in suite a, and figures of held-out sets."""
    folder = budget.folder.absolute() / "runs" / f"{name.replace(' ', '_')}_{epochs}_{seed}"
    held_out = ",".join(f"{suite}:held_out" for suite in SUITES if suite != "a")
    common = [f"data.data_dir={budget.folder.absolute()}", f"+data.sets={{{held_out}}}"]
    common += ["trainer=cpu", f"trainer.max_epochs={epochs}", "logger=none", f"seed={seed}"]
    common += [f"data.seed={seed}", "callbacks.best.publish=null", f"hydra.run.dir={folder}"]
    # Each model and its recipe first; the last of two equal choices counts.
    run("train.py", [*_last_of_each(overrides), *common])
    found = json.loads((folder / "results" / "test.json").read_text())
    return figures_of(found)


def figures_of(found: dict[str, Any]) -> dict[str, float]:
    """Return what the table shows of a `test.json`; NaN where nothing is known."""
    groups: list[dict[str, Any]] = found["groups"]

    def over(suite: str, key: str, sigma: float | None = None) -> float:
        rows = [row for row in groups if row["set"] == suite]
        return mean([row[key] for row in rows if sigma in (None, row["cross_section"])])

    figures = (
        over("a", "rmse_dex"),
        over("a", "covered"),
        over("between", "bias_dex", 0.2),
        mean([over("agn_minus", "rmse_dex"), over("agn_plus", "rmse_dex")]),
        over("noise", "auroc"),
        over("b", "auroc"),
    )
    return {"accuracy": found["accuracy"], **dict(zip(COLUMNS, figures, strict=True))}


def mean(values: Sequence[float | None]) -> float:
    """Return the mean of the values that there are; NaN without any."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def run(script: str, overrides: Sequence[str]) -> None:
    """Run an entry point of this checkout to its end."""
    subprocess.run(
        [sys.executable, str(ROOT / script), *overrides], check=True, stdout=subprocess.DEVNULL
    )


def cpu_seconds() -> float:
    """Return the processor time of all processes that this one has started and seen end [s]."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _last_of_each(overrides: Sequence[str]) -> list[str]:
    chosen = dict(override.split("=", 1) for override in overrides)
    return [f"{key}={value}" for key, value in chosen.items()]


if __name__ == "__main__":
    main()
