"""A small classifier with known answers, and folders of images to classify."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule
from torch import Tensor, nn

from datagen.files import write_json
from datagen.lenses.format import (
    CLASSES,
    LENS_COLUMNS,
    SUBSTRUCTURE_COLUMNS,
    images_path,
    truth_path,
    write_images,
    write_truth,
)
from inference.lenses.settings import LensSettings

SIDE = 9
SCALE = 0.1


class TinyNetwork(nn.Module):
    """Three logits of an image: its corners' means, moved by a convolution."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.look = nn.Conv2d(1, 4, 3)
        self.say = nn.Linear(4, 3)
        for parameter in self.parameters():
            parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        return self.say(torch.relu(self.look(images)).mean(dim=(2, 3)))


class TinyModule(LightningModule):
    """Same interface as `LensModule`, as far as prediction goes."""

    def __init__(self) -> None:
        super().__init__()
        self.card = {
            "task": "lenses",
            "model": "plain_cnn",
            "classes": list(CLASSES),
            "bands": ["i"],
            "pixel_scale": SCALE,
            "side": SIDE,
            "image_side": SIDE,
        }
        self.network = TinyNetwork()
        self.register_buffer("temperature", torch.tensor(1.5))
        self.register_buffer("unsure_threshold", torch.tensor(0.75))

    def probabilities(self, images: Tensor) -> Tensor:
        return torch.softmax(self.network(torch.asinh(images)) / self.temperature, dim=1)


def lens_images(n_images: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    images = rng.normal(0, 1, (n_images, 1, SIDE, SIDE)) + rng.normal(0, 3, (n_images, 1, 1, 1))
    return images.astype(np.float32)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Return a folder as `data_gen=lenses` makes it: 3 files of 10 images."""
    folder = tmp_path / "lenses"
    for number in range(3):
        write_images(images_path(folder, number), lens_images(10, number))
        index = np.arange(10 * number, 10 * number + 10)
        lenses = {name: np.zeros(10) for name in LENS_COLUMNS}
        lenses |= {"INDEX": index, "CLASS": index % 3}
        lenses["DELTA_CHI2"] = np.where(index % 3 > 0, index**2.0, 0.0)
        empty = {name: np.zeros(0) for name in SUBSTRUCTURE_COLUMNS}
        write_truth(truth_path(folder, number), lenses, empty, {})
    imaging = {"bands": ["i"], "side": SIDE, "pixel_scale": SCALE}
    write_json(folder / "settings.json", {"lens": {"name": "fair", "imaging": imaging}})
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> LensSettings:
    return LensSettings(
        cached_data_path=str(tmp_path / "lenses"),
        weight_save_path="none.ckpt",
        output_dir=str(tmp_path / "out"),
        batch_size=4,
        num_workers=0,
        devices=1,
        accelerator="cpu",
        strategy="auto",
        num_nodes=1,
        precision="32-true",
        n_threads=1,
        overwrite=False,
        split=None,
        images_per_part=7,
        unsure_threshold=None,
        evaluate=False,
        delta_chi2_bins=[0.0, 10.0, 100.0, 1000.0],
        n_examples=2,
        export_path=None,
    )


@pytest.fixture
def module() -> TinyModule:
    return TinyModule()


@pytest.fixture
def make_images() -> Callable[..., Any]:
    return lens_images
