"""Images simulated where the training runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from conf.build import build, build_settings
from datagen import pipeline
from datagen.errors import ConfigError
from datagen.lenses.blocks import BLOCK
from datagen.lenses.format import images_path, read_images, read_truth, truth_path
from encoders.lenses.identity import split_of
from encoders.lenses.images import open_images
from encoders.lenses.online import LensesOnlineDataModule
from encoders.training import train

Composed = Callable[..., DictConfig]
SMALL = ["lens.imaging.side=17", "lens.substructure.cdm.n_subhalos=3", "lens.macro.theta_e='0.5'"]
SMALL += ["lens.substructure.min_delta_chi2=0"]
COUNTS = ["data.n_train=128", "data.n_val=64", "data.n_test=64", "data.stretch.n_images=64"]


@pytest.fixture(scope="module")
def online(composed: Composed) -> LensesOnlineDataModule:
    cfg = composed("train", "model=plain_cnn", "data=lenses_online", "data.seed=3", *SMALL, *COUNTS)
    module: LensesOnlineDataModule = build(cfg.data)
    return module


def simulated(
    module: LensesOnlineDataModule, split: str, blocks: list[int], **trainer: object
) -> dict[str, torch.Tensor]:
    """Return a batch as a trainer would get it."""
    module.trainer = SimpleNamespace(**({"training": False, "testing": False} | trainer))  # type: ignore[assignment]
    try:
        return module.on_after_batch_transfer(module.dataset(split).__getitems__(blocks), 0)
    finally:
        module.trainer = None


def test_images_are_those_of_the_files(
    online: LensesOnlineDataModule, composed: Composed, tmp_path: Path
) -> None:
    cfg = composed("datagen", "data_gen=lenses", "data_gen.nfiles=1", "data_gen.seed=3",
                   "data_gen.n_images_per_file=64", "data_gen.backend=sequential",
                   f"data_gen.data_dir={tmp_path}", *SMALL)  # fmt: skip
    pipeline.run(build_settings(cfg.data_gen, "data_gen"))
    batch = simulated(online, "val", [0])
    assert np.array_equal(batch["images"].numpy(), read_images(images_path(tmp_path, 0)))
    # Prediction knows them again, and what they were in the training.
    card = online.card()
    assert card["identity"] == open_images(tmp_path).identity
    splits = [split_of(card, number) for number in (0, 63, 64, 127, 128, 10**6)]
    assert splits == ["val", "val", "test", "test", "train", "train"]
    truth = read_truth(truth_path(tmp_path, 0))
    assert batch["labels"].tolist() == list(truth["CLASS"])
    assert batch["index"].tolist() == list(truth["INDEX"])
    assert batch["delta_chi2"][batch["labels"] > 0].isnan().all()
    assert batch["weight"].tolist() == [1.0] * BLOCK


def test_every_epoch_has_other_images(online: LensesOnlineDataModule) -> None:
    numbers = [
        simulated(online, "train", [block], training=True, current_epoch=epoch)["index"]
        for epoch in (0, 1)
        for block in (0, 1)
    ]
    # Validation and test images come first.
    assert torch.equal(torch.cat(numbers), 128 + torch.arange(256))
    online.is_endless = False
    again = simulated(online, "train", [1], training=True, current_epoch=7)["index"]
    assert split_of(online.card(), 256) == ""
    online.is_endless = True
    assert torch.equal(again, numbers[1])


def test_fillers_do_not_count(online: LensesOnlineDataModule) -> None:
    batch = online.dataset("val").__getitems__([0, -1])
    assert batch["weight"].tolist() == [1.0] * BLOCK + [0.0] * BLOCK


def test_the_card_says_what_is_simulated(online: LensesOnlineDataModule) -> None:
    card = online.card()
    assert (card["side"], card["bands"], card["pixel_scale"]) == (17, ["i"], 0.1)
    assert card["stretch"]["softening"] == [1.0]
    assert card["data_hash"] == online.data_hash(3, online.counts)
    assert card["data_hash"] != online.data_hash(4, online.counts)


def test_a_training_that_simulates(composed: Composed, tmp_path: Path) -> None:
    network = ["model.network.channels=[8,8]", "model.network.n_blocks=[0]"]
    trainer = ["trainer=cpu", "trainer.max_epochs=1", "data.n_train=64", "callbacks=none"]
    paths = [f"paths.log_dir={tmp_path}", "logger=none"]
    choice = ["model=plain_cnn", "data=lenses_online"]
    cfg = composed("train", *choice, *SMALL, *COUNTS, *network, *trainer, *paths)
    assert 0.0 <= train(cfg)["test/accuracy"] <= 1.0


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("n_val", r"data\.n_val to be a multiple of 64, .* but got n_val = 100"),
        ("batch_size", r"data\.batch_size to be a multiple of 64, .* got batch_size = 100"),
    ],
)
def test_counts_are_whole_blocks(composed: Composed, key: str, message: str) -> None:
    cfg = composed("train", "model=plain_cnn", "data=lenses_online", f"data.{key}=100")
    with pytest.raises(ConfigError, match=message):
        build(cfg.data)
