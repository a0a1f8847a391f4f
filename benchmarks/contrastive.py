"""What contrastive trainings learn and cost: ours, lightly's, and training on labels.

Usage: python benchmarks/contrastive.py --peer FOLDER [--folder demo/contrastive] [--steps 250]

FOLDER holds lightly, see `benchmarks/lightly_peer.py`; without it those rows are left out. All rows
have the same backbone (`backbone=small_resnet`), 1600 training stamps of 64 px in g, r, i of the
suite a, as many steps of 128 stamps, and the same optimiser. Fields of other objects are told from
their 16 nearest neighbours: R^2, mean over seeds. `labels` is the same backbone, trained on those
fields with the same views, for twice as many steps, since a step has one view of each stamp; its
row has R^2 of its answers. `lightly` has its default transform and temperature, `lightly, tuned` a
transform that keeps colours and sizes and turns by any angle, and our temperature; both see 8 bits
of stretched pixels, with one range for all stamps.

The second table has the cost of a step with ResNet-18 and 128 stamps of one band, in CPU-seconds on
one thread, side by side; the fastest of the repetitions counts.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import lightly_peer
from conf import schema
from conf.build import build
from datagen.errors import SkyfoldError
from encoders.factory import build_part
from encoders.galaxies.backbones import Backbone
from encoders.galaxies.data import GalaxiesDataModule
from encoders.galaxies.draws import About
from encoders.galaxies.module import GalaxyModule
from encoders.galaxies.probes import KNNProbe
from encoders.memory import keep_freed_memory

ROOT = Path(__file__).resolve().parents[1]
FIELDS = ("redshift", "log_mass", "log_ssfr", "r_eff", "bulge_fraction", "is_quenched")
N_BATCH, N_TRAIN, N_NEIGHBOURS = 128, 1600, 16
# 5900 objects, seen once: 28 % train, 2 % are for validation, 70 % (4100) for tests.
SIMULATED = ["data_gen=galaxies", "galaxy=a", "data_gen.nfiles=118", "data_gen.n_projections=1"]
SPLITS = "data_gen.split.fractions={train: 0.28, val: 0.02, test: 0.7, domain: 0.0}"


@dataclass(frozen=True)
class Budget:
    """What a benchmark may use.

    Args:
        folder: Of stamps and runs.
        peer: Where lightly is installed; None leaves it out.
        steps: Of each training.
        seeds: Trainings of each kind.
        repeats: Of timed steps.
    """

    folder: Path
    peer: Path | None
    steps: int
    seeds: int
    repeats: int


def main() -> None:
    """Simulate, train, print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("demo/contrastive"))
    parser.add_argument("--peer", type=Path, help="folder of lightly; left out without")
    parser.add_argument("--steps", type=int, default=250, help="of each training")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--repeats", type=int, default=3, help="of timed steps")
    budget = Budget(**vars(parser.parse_args()))
    torch.set_num_threads(1)
    keep_freed_memory()
    cost(budget)
    simulate(budget.folder)
    print(f"\n{'R^2 of 16 neighbours':24}", *(f"{name:>14}" for name in (*FIELDS, "mean")))
    learn("simclr", lambda seed: ours(budget, seed), budget)
    learn("labels", lambda seed: supervised(budget, seed), budget)
    if budget.peer is not None:
        kinds: dict[str, dict[str, Any]] = {"lightly, tuned": lightly_peer.TUNED, "lightly": {}}
        for name, transform in kinds.items():
            learn(name, lambda seed, t=transform: peer(budget, t, seed), budget)  # type: ignore[misc]


def simulate(folder: Path) -> None:
    """Simulate, extract and prepare stamps; files that are there stay."""
    where = f"paths.data_dir={folder.absolute()}"
    for overrides in (SIMULATED, ["data_gen=stamps"], ["data_gen=prepared", SPLITS]):
        run("datagen/run.py", [*overrides, where])


def learn(name: str, train: Callable[[int], Mapping[str, float]], budget: Budget) -> None:
    """Train with each seed, and print what embeddings tell of fields."""
    rows = [train(seed) for seed in range(budget.seeds)]
    values = np.array([[row[field] for field in FIELDS] for row in rows])
    values = np.concatenate((values, values.mean(axis=1, keepdims=True)), axis=1)
    spread = values.std(axis=0, ddof=1) if len(rows) > 1 else np.full(len(FIELDS) + 1, np.nan)
    cells = zip(values.mean(axis=0), spread, strict=True)
    print(f"{name:24}", *(f"{mean:7.3f}+-{std:5.3f}" for mean, std in cells), flush=True)


def ours(budget: Budget, seed: int) -> dict[str, float]:
    """Train with two views."""
    return trained(budget, ["model=simclr"], seed, "knn_r2_{}")


def supervised(budget: Budget, seed: int) -> dict[str, float]:
    """Train the same backbone on labels, with the same views."""
    model = ["model=probe", "model.checkpoint=null", "model.is_frozen=false", "model.augment=true"]
    return trained(budget, [*model, "~model.classes.is_quenched"], seed, "r2_{}")


def trained(budget: Budget, model: Sequence[str], seed: int, form: str) -> dict[str, float]:
    """Train with the entry point; return its figures of the test by field."""
    name = f"{model[0].removeprefix('model=')}_{budget.steps}_{seed}"
    folder = budget.folder.absolute() / "runs" / name
    steps = budget.steps * (1 if model[0] == "model=simclr" else 2)
    limits = ["trainer.max_epochs=-1", f"trainer.max_steps={steps}"]
    limits += ["trainer.check_val_every_n_epoch=1000", "callbacks.best.publish=null"]
    where = [f"hydra.run.dir={folder}", "logger=none", f"seed={seed}", f"data.seed={seed}"]
    run("train.py", [*model, *data_options(budget.folder), *limits, *where, "trainer=cpu"])
    found = json.loads((folder / "results" / "test.json").read_text())
    return {field: float(found[form.format(field)]) for field in FIELDS}


def peer(budget: Budget, transform: dict[str, Any], seed: int) -> dict[str, float]:
    """Train with lightly; return the figures of the same probe."""
    assert budget.peer is not None
    cfg = composed(["model=simclr", *data_options(budget.folder), f"data.seed={seed}"])
    data: GalaxiesDataModule = build(cfg.data)
    module: GalaxyModule = build(cfg.model, card={**data.card(), "model": "simclr"})
    plain = {split: module.views.plain(data.dataset(split).read(every(data, split)))
             for split in ("train", "test")}  # fmt: skip
    scale = lightly_peer.Scale(plain["train"])
    images = {split: scale.bytes(stamps) for split, stamps in plain.items()}
    torch.manual_seed(seed)
    shape = {"in_channels": len(data.stamps.bands), "side": data.train_px}
    backbone = build_part(plain_values(cfg.model.network), Backbone, **shape)
    temperature = cfg.model.objective.temperature if transform else 0.5
    widths = list(cfg.model.heads.projector)
    one = lightly_peer.Peer(backbone, transform, temperature, widths, budget.peer)

    options = plain_values(cfg.model.optimizer)

    def optimizer(parameters: Any) -> torch.optim.Optimizer:  # noqa: ANN401 - a list of parameters
        return build_part(options, torch.optim.Optimizer, parameters)

    lightly_peer.train(one, images["train"], budget.steps, N_BATCH, optimizer, seed)
    probe, numbers = KNNProbe(list(FIELDS), [], N_NEIGHBOURS), data.dataset("test").numbers
    stamps = data.stamps
    known = (stamps.objects[numbers], stamps.index[numbers], stamps.values[numbers])
    probe.update(one.embeddings(images["test"]), *(torch.from_numpy(x) for x in known))
    return {field: float(probe.compute()[f"knn_r2_{field}"]) for field in FIELDS}


def cost(budget: Budget) -> None:
    """Print what a step costs with ResNet-18 and 128 stamps of one band."""
    print(f"{'ResNet-18, 1 x 64^2':24} {'step [s]':>10} {'views [s]':>10} {'share':>8}")
    ours_ = cheapest([our_step() for _ in range(budget.repeats)])
    rows = {"simclr": ours_}
    if budget.peer is not None:
        for name, transform in (("lightly", {}), ("lightly, tuned", lightly_peer.TUNED)):
            steps = [peer_step(budget.peer, transform) for _ in range(budget.repeats)]
            rows[name] = cheapest(steps)
    for name, (whole, views) in rows.items():
        words = f"{name:24} {whole:10.2f} {views:10.3f} {views / whole:8.1%}"
        print(words, f"  {whole / ours_[0]:.2f}x step, {views / ours_[1]:.1f}x views", flush=True)


def cheapest(steps: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the shortest step and the shortest views of some."""
    return min(step[0] for step in steps), min(step[1] for step in steps)


def our_step() -> tuple[float, float]:
    """Return CPU-seconds of one of our steps, and of its views."""
    cfg = composed(["model=simclr", "backbone@model.network=resnet18"])
    card = {"bands": ["r"], "side": 96, "train_px": 64, "softening": 0.007, "labels": {}}
    model = {key: value for key, value in plain_values(cfg.model).items() if key != "_target_"}
    module = GalaxyModule(card=card, **model).train()
    trained = build_part(model["optimizer"], torch.optim.Optimizer, module.parameters())
    stamps = 0.0035 * torch.randn(N_BATCH, 1, 96, 96)
    each = torch.full((N_BATCH,), 0.1)
    known = About(7 * each, 0.035 * each[:, None], 3 * each, each)
    begin = time.process_time()
    drawn: Tensor = module.views(stamps, known, torch.arange(N_BATCH), 0)
    views = time.process_time() - begin
    a, b = module._both(drawn)
    loss = module.objective(a, b, torch.arange(N_BATCH))
    loss.backward()
    trained.step()
    return time.process_time() - begin, views


def peer_step(folder: Path, transform: dict[str, Any]) -> tuple[float, float]:
    """Return CPU-seconds of one of lightly's steps, and of its transforms."""
    cfg = composed(["model=simclr", "backbone@model.network=resnet18"])
    backbone = build_part(plain_values(cfg.model.network), Backbone, in_channels=1, side=64)
    one = lightly_peer.Peer(backbone, transform, 0.5, list(cfg.model.heads.projector), folder)
    trained = build_part(plain_values(cfg.model.optimizer), torch.optim.Optimizer, one.parameters())
    images = np.random.default_rng(0).integers(0, 255, (N_BATCH, 64, 64, 3), dtype=np.uint8)
    begin = time.process_time()
    one.step(images, trained)
    return time.process_time() - begin, one.augmenting


def every(data: GalaxiesDataModule, split: str) -> Any:  # noqa: ANN401 - an array
    """Return the places of all stamps of a split."""
    return np.arange(len(data.dataset(split)))


def data_options(folder: Path) -> list[str]:
    """Return the overrides that choose stamps."""
    where = [f"paths.data_dir={folder.absolute()}", f"data.n_train={N_TRAIN}"]
    labels = f"data.labels=[{','.join(FIELDS)}]"
    return [*where, labels, f"data.batch_size={N_BATCH}"]


def composed(overrides: Sequence[str]) -> Any:  # noqa: ANN401 - a DictConfig
    """Return the configuration of a training."""
    schema.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def plain_values(node: Any) -> dict[str, Any]:  # noqa: ANN401 - a DictConfig
    """Return a part of a configuration as plain values."""
    values: Any = OmegaConf.to_container(node, resolve=True)
    return dict(values)


def run(script: str, overrides: Sequence[str]) -> None:
    """Run an entry point of this checkout to its end.

    Raises:
        SkyfoldError: It failed; the message is its last line.
    """
    command = [sys.executable, str(ROOT / script), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = re.split(r"\n+", (done.stdout + done.stderr).strip())[-1]
        raise SkyfoldError(f"{script} {' '.join(overrides)} failed: {last}")


if __name__ == "__main__":
    main()
