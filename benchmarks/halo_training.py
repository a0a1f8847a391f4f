"""Which of the ways to train an encoder of halos tells most of sigma/m, for how much CPU time.

Usage: python benchmarks/halo_training.py [--folder demo/halos] [--epochs 30] [--seeds 3]
       [--ablation-seeds 3]

Rows: LDA on radial profiles, the reference recipe (its 150 epochs, and as many as our CPU time
allows), ours, and ours without each of its parts. All are trained on the same halos of suite a, and
predict maps of other halos, all unseen: the same suite, cross-sections between those of the
training, other feedback, heavier halos, noise. What is missing is simulated; trainings that are
done are read from `<folder>/runs`. Columns: CPU-seconds of a training; accuracy of the four
classes, rmse [dex] and coverage of the 68 % intervals among unseen halos; mean error [dex] at 0.2
cm2/g; rmse [dex] with other feedback; area under the ROC curve of noise and of the heavier halos;
share of maps that are flagged as unlike those of the training, at cross-sections of the training
and between them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.halos import lda_answers, profiles
from datagen.halos.format import map_files, read_maps, read_truth, truth_of

ROOT = Path(__file__).resolve().parents[1]
# Suites by folder: preset, what is changed, and files for each file of suite a.
OTHER = "data_gen.seed=1"
MANY = [OTHER, "data_gen.n_projections=1"]
SUITES = {
    "a": ("a", [], 1),
    "unseen": ("a", MANY, 10),
    "between": ("a", [*MANY, "halo.cross_sections=[0.2,0.5]"], 10),
    "agn_minus": ("a_agn_minus", MANY, 2),
    "agn_plus": ("a_agn_plus", MANY, 2),
    "b": ("b", MANY, 2),
    "noise": ("noise", MANY, 2),
}
COLUMNS = ("accuracy", "rmse", "cover", "0.2", "agn", "noise", "b", "flagged", "between")
REFERENCE_EPOCHS = 150
# Of a run: what became of it.
DONE = "row.json"
OURS = ["model=compact_polar"]
REFERENCE = ["model=compact_reduced", "recipe=reference", "model.network.encoder.padding=1"]
# What is taken from ours, one at a time.
WITHOUT = {
    "compactness": ["model.loss.cclp=0"],
    "mean over maps": ["model.loss.per_row=false", "model.loss.cclp=2.2"],
    "medians on the axis": ["model.loss.distance=0"],
    "regression": ["model.loss.regression=0"],
    "ordered latents": ["model.bottleneck=none"],
    "waves": ["model.network.encoder.n_waves=0"],
    "log10": ["data.transform=max"],
    "schedule": ["model.scheduler=null"],
    "log-polar maps": ["model=compact_reduced", "model.network.encoder.padding=1"],
}


@dataclass(frozen=True)
class Budget:
    """What a benchmark may use.

    Args:
        folder: Of maps and runs.
        n_files: Files of suite a, of 20 halos.
        side: Of a map of 2 Mpc [px].
        epochs: Of our trainings.
        reference_epochs: Of the reference recipe.
        seeds: Trainings of each kind.
        ablation_seeds: The same for ours without one of its parts.
        n_jobs: Processes that simulate.
    """

    folder: Path
    n_files: int
    side: int
    epochs: int
    reference_epochs: int
    seeds: int
    ablation_seeds: int
    n_jobs: int


def main() -> None:
    """Simulate, train, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("demo/halos"))
    parser.add_argument("--n-files", type=int, default=10, help="of suite a, 20 halos each")
    parser.add_argument("--side", type=int, default=50, help="of a map of 2 Mpc [px]")
    parser.add_argument("--epochs", type=int, default=30, help="of our trainings")
    parser.add_argument("--reference-epochs", type=int, default=REFERENCE_EPOCHS)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--ablation-seeds", type=int, default=3, help="of ours without each part")
    parser.add_argument("--n-jobs", type=int, default=1, help="processes that simulate")
    budget = Budget(**vars(parser.parse_args()))
    simulate(budget)
    print(f"{'':34} {'epochs':>6} {'CPU-s':>13}", *(f"{name:>14}" for name in COLUMNS))
    low = lda(budget)
    print(f"{'LDA on radial profiles':34} {'':6} {'':13} {_pair(low)}")
    ours = measure("ours", OURS, budget.epochs, budget)
    reference = measure("reference", REFERENCE, budget.reference_epochs, budget)
    fair = max(1, round(budget.reference_epochs * ours / reference))
    measure("reference, our CPU time", REFERENCE, min(fair, budget.reference_epochs), budget)
    few = dataclasses.replace(budget, seeds=budget.ablation_seeds)
    for name, changes in WITHOUT.items():
        measure(f"without {name}", [*OURS, *changes], budget.epochs, few)


def simulate(budget: Budget) -> None:
    """Simulate the suites; files that are there stay."""
    pixels = [f"halo.imaging.side={budget.side}", f"halo.imaging.pixel_scale={2000 / budget.side}"]
    for name, (preset, changes, share) in SUITES.items():
        where = [f"data_gen.data_dir={budget.folder.absolute() / name}"]
        where += [f"data_gen.nfiles={share * budget.n_files}", f"data_gen.n_jobs={budget.n_jobs}"]
        run("datagen/run.py", ["data_gen=halos", f"halo={preset}", *pixels, *where, *changes])


def lda(budget: Budget) -> list[float]:
    """Return the accuracy of an LDA on radial profiles among unseen halos, for each split."""
    features, labels, cluster = read_profiles(budget.folder / "a")
    asked, wanted, _ = read_profiles(budget.folder / "unseen")
    return [
        float((lda_answers(features, labels, cluster, seed, asked) == wanted).mean())
        for seed in range(budget.seeds)
    ]


def read_profiles(
    folder: Path,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return radial profiles, classes and clusters of the maps of a suite."""
    paths = map_files(folder)
    features = np.concatenate([profiles(read_maps(path)[:, :1]) for path in paths])
    truths = [read_truth(truth_of(path)) for path in paths]
    sigma = np.concatenate([np.asarray(truth["CROSS_SECTION"], float) for truth in truths])
    cluster = np.concatenate([np.asarray(truth["CLUSTER"], np.int64) for truth in truths])
    return features, np.unique(sigma, return_inverse=True)[1].astype(np.int64), cluster


def measure(name: str, overrides: Sequence[str], epochs: int, budget: Budget) -> float:
    """Train with each seed and print the row; return the mean CPU-seconds of a training."""
    spent, rows = [], []
    for seed in range(budget.seeds):
        folder = budget.folder.absolute() / "runs" / f"{slug(name)}_{epochs}_{seed}"
        seconds, row = once(folder, overrides, epochs, seed, budget)
        spent.append(seconds)
        rows.append(row)
    print(f"{name:34} {epochs:6d} {np.mean(spent):6.0f} +- {spread(spent):3.0f}", end=" ")
    print(*(_pair([row[key] for row in rows]) for key in COLUMNS), flush=True)
    return float(np.mean(spent))


def slug(name: str) -> str:
    """Return a name for a folder, which Hydra takes for a text."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name)


def once(
    folder: Path, overrides: Sequence[str], epochs: int, seed: int, budget: Budget
) -> tuple[float, dict[str, float]]:
    """Train and predict, or read what was found before; return CPU-seconds and figures."""
    done = folder / DONE
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        before = cpu_seconds()
        train(folder, overrides, epochs, seed, budget)
        seconds = cpu_seconds() - before
        row = figures_of(predict(folder, budget))
        done.write_text(json.dumps({"seconds": seconds, "figures": row}))
    found = json.loads(done.read_text())
    return found["seconds"], found["figures"]


def train(folder: Path, overrides: Sequence[str], epochs: int, seed: int, budget: Budget) -> None:
    """Train once."""
    common = [f"data.data_dir={budget.folder.absolute()}", "trainer=cpu", "logger=none"]
    common += [f"trainer.max_epochs={epochs}", f"seed={seed}", f"data.seed={seed}", "test=false"]
    common += ["callbacks.best.publish=null", f"hydra.run.dir={folder}"]
    common += ["callbacks.reports.draws=false"]
    # Each model and its recipe first; the last of two equal choices counts.
    run("train.py", [*_last_of_each(overrides), *common])


def predict(folder: Path, budget: Budget) -> dict[str, Any]:
    """Predict all suites; return the evaluation."""
    where = [f"predict.weight_save_path={folder}/checkpoints/best.ckpt"]
    where += [f"predict.cached_data_path={budget.folder.absolute()}", "predict.summarise=false"]
    where += [f"predict.sets=[{','.join(SUITES)}]", f"predict.output_dir={folder}/predictions"]
    where += ["predict.overwrite=true"]
    run("inference/predict.py", ["predict=halos", "logger=none", *where])
    found: dict[str, Any] = json.loads((folder / "predictions" / "evaluation.json").read_text())
    return found


def figures_of(found: dict[str, Any]) -> dict[str, float]:
    """Return what the table shows of an `evaluation.json`; NaN where nothing is known."""
    sets, novelty = found["sets"], found["novelty"]
    at = [row["bias_dex"] for row in found["cross_sections"]
          if (row["set"], row["cross_section"]) == ("between", 0.2)]  # fmt: skip

    def of(table: dict[str, Any], suite: str, key: str) -> float | None:
        return table[suite][key] if suite in table else None

    agn = [of(sets, suite, "rmse_dex") for suite in ("agn_minus", "agn_plus")]
    figures = (
        of(sets, "unseen", "accuracy"),
        of(sets, "unseen", "rmse_dex"),
        of(sets, "unseen", "coverage"),
        mean(at),
        mean(agn),
        of(novelty, "noise", "auroc"),
        of(novelty, "b", "auroc"),
        of(novelty, "unseen", "flagged"),
        of(novelty, "between", "flagged"),
    )
    return {key: mean([value]) for key, value in zip(COLUMNS, figures, strict=True)}


def mean(values: Sequence[float | None]) -> float:
    """Return the mean of the values that there are; NaN without any."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def spread(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample; NaN of a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _pair(values: Sequence[float]) -> str:
    """Return mean and standard deviation over seeds."""
    return f"{np.mean(values):6.3f} +- {spread(values):.3f}"


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
