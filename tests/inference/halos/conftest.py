"""A small encoder of halos, and sets to predict on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datagen.files import save_torch
from datagen.halos.format import map_files, read_maps, read_truth, truth_of, write_maps, write_truth
from encoders.halos.data import HalosDataModule
from encoders.halos.metrics import Answers
from encoders.halos.module import HaloModule
from inference.halos.settings import HaloSettings
from tests.encoders.halos.conftest import write_set

LOSS = {"classification": 1.0, "cclp": 0.0, "n_steps": 3, "per_row": True, "distance": 1.0}
LOSS |= dict.fromkeys(("regression", "reconstruction", "bound", "divergence"), 0.0)
JUDGE = {"n_reference": 500, "n_neighbours": 3, "false_alarms": 0.05, "level": 0.68}


def hparams(card: dict[str, Any]) -> dict[str, Any]:
    encoder = {"_target_": "encoders.halos.convolutional.ReducedEncoder", "channels": [4, 8]}
    sizes = {"n_hidden": 8, "n_latent": 3, "n_head": 8, "dropout": 0.0}
    target = "encoders.halos.network.CompactNetwork"
    return {
        "card": card,
        "network": {"_target_": target, "encoder": {**encoder, "padding": 0}, **sizes},
        "loss": LOSS,
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-2},
        "scheduler": None,
        "augment": {"turns": False, "flips": False, "exact": True, "seed": 0},
        "bottleneck": "none",
        "judge": JUDGE,
    }


def fitted(data: HalosDataModule, seed: int, **change: Any) -> HaloModule:  # noqa: ANN401
    """Return an encoder that saw its training maps some times, and its reference."""
    torch.manual_seed(seed)
    known = {**data.card(), "model": "compact_reduced"}
    module = HaloModule(**hparams(known) | change)
    batch = {split: _batch(data, split) for split in ("train", "val")}
    optimizer = torch.optim.AdamW(module.network.parameters(), lr=1e-2)
    for _ in range(60):
        outputs = module(batch["train"]["maps"])
        classes, target = batch["train"]["class"], batch["train"]["target"]
        loss = (outputs.z[:, 0] - target).square().mean()
        if outputs.logits is not None:
            loss = loss + torch.nn.functional.cross_entropy(outputs.logits, classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    module.eval().requires_grad_(False)
    seen = module.inputs(batch["val"]["maps"])
    outputs, val = module.network(seen), batch["val"]
    views = [view.double() for view in module.views(outputs, seen)]
    logits = outputs.z[:, :0] if outputs.logits is None else outputs.logits
    answers = Answers(
        outputs.z.double(), logits.double(), val["class"], val["target"].double(),
        val["set"], val["index"], val["cluster"], torch.cat(views, dim=1),
        tuple(view.shape[1] for view in views),
    )  # fmt: skip
    module.reference.keep(answers)
    return module


def _batch(data: HalosDataModule, split: str) -> dict[str, torch.Tensor]:
    dataset = data.dataset(split)
    return dataset.with_maps(dataset.__getitems__(range(len(dataset))))


def save(path: Path, module: HaloModule) -> None:
    content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    save_torch(path, content)


def shuffled(source: Path, folder: Path) -> None:
    """Write maps whose pixels are those of a set in random order, without a cross-section."""
    for path in map_files(source):
        maps, truth = np.array(read_maps(path)), read_truth(truth_of(path))
        rng = np.random.default_rng(5)
        for one in maps:
            one[:] = rng.permuted(one.reshape(len(one), -1), axis=1).reshape(one.shape)
        write_maps(folder / "maps" / path.name, maps)
        columns = {name: np.asarray(truth[name]) for name in truth.colnames}
        columns["CROSS_SECTION"] = np.full(len(truth), np.nan)
        meta = {**truth.meta, "SUITE": folder.name}
        write_truth(folder / "truth" / f"{path.stem}.fits", columns, meta)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with sets below data/, encoders in one/, two/ and regressor/.

    `a` trains: 80 halos; `c` has 20 other halos of the same kind, `noise` their pixels.
    """
    root = tmp_path_factory.mktemp("world")
    write_set(root / "data/a", n_clusters=80, n_files=2)
    write_set(root / "data/c", n_clusters=20, n_files=2, SEED=1)
    shuffled(root / "data/c", root / "data/noise")
    splits = {"train": 0.4, "val": 0.4, "test": 0.2}
    data = HalosDataModule(
        str(root / "data"), {"a": "known"}, ["mass"], "log10", 0.01, 32, 0, 1, splits, 256, True
    )
    for seed, name in enumerate(("one", "two")):
        save(root / name / "best.ckpt", fitted(data, seed))
    encoder = hparams({})["network"]["encoder"]
    network = {"_target_": "encoders.halos.network.EncoderOnly", "encoder": encoder, "n_hidden": 8}
    network |= {"output": "target", "dropout": 0.0}
    loss = dict.fromkeys(LOSS, 0.0) | {"n_steps": 3, "per_row": True, "regression": 1.0}
    save(root / "regressor/best.ckpt", fitted(data, 0, network=network, loss=loss))
    return root


@pytest.fixture
def settings(world: Path, tmp_path: Path) -> HaloSettings:
    return HaloSettings(
        cached_data_path=str(world / "data"),
        weight_save_path=str(world / "one/best.ckpt"),
        output_dir=str(tmp_path / "out"),
        batch_size=32,
        num_workers=0,
        devices=1,
        accelerator="cpu",
        strategy="auto",
        num_nodes=1,
        precision="32-true",
        n_threads=1,
        overwrite=False,
        sets=["c", "noise"],
        split=None,
        ensemble=[],
        summarise=False,
        n_compared=40,
        n_permutations=20,
        evaluate=False,
    )
