"""The whole chain in a few minutes: simulate, train, predict, score.

Usage: python demo.py [FOLDER]. Each step is a command of the README, printed before it runs, so
that any of them can be repeated by hand. A second run makes only what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent

# The demo's prior: rich systems at middle redshift, which a small network learns in minutes. All
# else is as for any other field: groups, field galaxies, stars, noise, seeing.
PRIOR = [
    "data_gen.prior.richness_range=[40,150]",
    "data_gen.prior.redshift_range=[0.3,0.6]",
    "data_gen.n_jobs=-1",
]
STEPS = {
    "simulate fields": [
        "datagen/run.py",
        "data_gen=fields",
        "data_gen.nfiles=280",
        "data_gen.n_catalogs_per_file=1",
        "data_gen.image_size=896",
        "data_gen.tile_size=128",
        "data_gen.prior.centre_margin_px=0",
        *PRIOR,
    ],
    "simulate survey tiles": [
        "datagen/run.py",
        "data_gen=survey",
        "data_gen.nfiles=6",
        "data_gen.n_columns=3",
        "data_gen.image_size=2048",
        "data_gen.overlap=256",
        "data_gen.patch_deg=0.1",
        "data_gen.prior.cluster_fraction=0.5",
        *PRIOR,
    ],
    "train": [
        "train.py",
        "model=membership",
        "experiment=demo",
        "callbacks.pictures.every_n_validations=1",
    ],
    # Systems as rich as these cover many cells; smaller groups of cells are chance, and peaks
    # close together belong to one. These rules were chosen on tiles of another seed.
    "predict": [
        "inference/predict.py",
        "survey=des_dr2",
        "predict.n_threads=2",
        "predict.min_cells=10",
        "predict.separation_cells=5",
    ],
    "evaluate": ["inference/evaluate.py", "evaluate.score_min=10"],
    "compare with a baseline": ["benchmarks/membership.py"],
}


def main() -> None:
    """Run all steps, then print the table and where everything is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", default="demo", type=Path, help="default: demo")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    for number, (title, command) in enumerate(STEPS.items(), start=1):
        _step(f"[{number}/{len(STEPS)}] {title}", command, folder)
    _report(folder, time.perf_counter() - start)


def _step(title: str, command: list[str], folder: Path) -> None:
    """Run a step; a training that was finished is not repeated."""
    finished = folder / ".trained"
    is_training = command[0] == "train.py"
    if is_training and finished.exists():
        _say(f"\n{title}\n  finished before")
        return
    _run(title, command, folder)
    if is_training:
        finished.touch()


def _run(title: str, command: list[str], folder: Path) -> None:
    """Run one command in the demo's folder; stop the demo if it fails."""
    script, *arguments = command
    shown = shlex.join(["python", str(Path(os.path.relpath(ROOT, folder)) / script), *arguments])
    _say(f"\n{title}\n  cd {folder} && {shown}")
    start = time.perf_counter()
    done = subprocess.run([sys.executable, str(ROOT / script), *arguments], cwd=folder, check=False)
    _say(f"  {time.perf_counter() - start:.0f} s")
    if done.returncode:
        _say(f"the step failed with status {done.returncode}; its message stands above")
        sys.exit(done.returncode)


def _report(folder: Path, seconds: float) -> None:
    """Print the figures of merit and the paths of pictures and logs."""
    survey = json.loads((folder / "outputs/evaluation/evaluation.json").read_text())
    cells = json.loads((folder / "outputs/membership/comparison.json").read_text())
    _say("\n=== Survey tiles, against the true clusters ===")
    for name, text in _survey_rows(survey):
        _say(f"  {name:34} {text}")
    _say(f"\n=== Held-out fields: {cells['n_cells']} cells, base rate {cells['base rate']:.3f} ===")
    for name in ("encoder", "baseline", "oracle", "encoder - baseline"):
        low, high = cells[name]["interval"]
        _say(f"  average precision, {name:19} {cells[name]['AP']:.3f} ({low:.3f} to {high:.3f})")
    _say("\n=== Look at ===")
    for path in sorted((folder / "outputs/evaluation").glob("*.png")):
        _say(f"  {path}")
    _say(f"  tensorboard --logdir {folder / 'logs'}")
    _say(f"\nfinished in {seconds:.0f} s")


def _survey_rows(survey: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (name, text) of the survey's figures of merit."""
    rows = [("clusters", str(survey["n_clusters"])), ("candidates", str(survey["n_candidates"]))]
    for name in ("completeness", "purity"):
        value, (low, high) = survey[name]["value"], survey[name]["wilson"]
        rows.append((name, f"{value:.2f} ({low:.2f} to {high:.2f})"))
    return [
        *rows,
        *((f"cell {name}", f"{value:.3f}") for name, value in survey["cells"].items()),
    ]


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
