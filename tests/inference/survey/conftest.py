"""A small encoder with a known receptive field, and survey tiles on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule
from torch import Tensor, nn

from encoders.fields.normalize import normalize
from inference.survey import plots
from inference.survey.settings import PredictSettings

CELL_PX = 16
SCALE = 0.263


class TinyNetwork(nn.Module):
    """Sees 3 x 3 cells: strided convolution to cells, one 3 x 3 convolution on them."""

    alignment_px = CELL_PX
    receptive_field_px = 3 * CELL_PX

    def __init__(self, n_bands: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.cells = nn.Conv2d(n_bands, 4, CELL_PX, stride=CELL_PX)
        self.near = nn.Conv2d(4, 1, 3, padding=1)
        for parameter in self.parameters():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.near(torch.relu(self.cells(pixels)))[:, 0]


class TinyModule(LightningModule):
    """Same interface as the membership encoder."""

    def __init__(self, bands: tuple[str, ...] = ("g", "r")) -> None:
        super().__init__()
        self.card = {
            "task": "membership",
            "bands": list(bands),
            "pixel_scale": SCALE,
            "zero_point": 30.0,
            "cell_px": CELL_PX,
            "data_hash": "0",
            "prevalence": 0.2,
        }
        self.loss = {"pos_weight": 1.0, "focal_gamma": None}
        self.network = TinyNetwork(len(bands))
        self.register_buffer("threshold", torch.tensor(0.5))

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        logits = self.network(normalize(batch["images"], batch["background"], batch["sigma"]))
        return {"scores": torch.sigmoid(logits.float()), "tile": batch["tile"]}


class TinyHeads(TinyModule):
    """The same with heads for redshift and richness: known functions of the score."""

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        outputs = super().predict_step(batch, batch_idx)
        return outputs | estimates_of(outputs["scores"])


def estimates_of(scores: Tensor) -> dict[str, Tensor]:
    """Return what `TinyHeads` says of cells with these scores."""
    return {
        "redshift": 0.2 + 0.5 * scores,
        "redshift_error": 0.01 + 0.02 * scores,
        "richness": 20 + 30 * scores,
        "richness_error": 3 + 2 * scores,
    }


@pytest.fixture
def settings(tmp_path: Path) -> PredictSettings:
    return PredictSettings(
        cached_data_path=str(tmp_path / "tiles"),
        weight_save_path="none.ckpt",
        output_dir=str(tmp_path / "out"),
        batch_size=2,
        num_workers=0,
        prefetch=2,
        devices=1,
        accelerator="cpu",
        strategy="auto",
        num_nodes=1,
        precision="32-true",
        compile=False,
        n_threads=1,
        overwrite=False,
        threshold=None,
        prevalence=None,
        window_px=96,
        stride_px=48,
        halo_px=16,
        blend="crop",
        separation_cells=3,
        min_cells=1,
        merge_radius_arcmin=0.1,
        regions=False,
    )


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations draw nothing: pictures are most of their time."""
    monkeypatch.setattr(plots, "write_plots", lambda *_: [])


@pytest.fixture
def change() -> Callable[..., Any]:
    return dataclasses.replace


@pytest.fixture
def module() -> TinyModule:
    return TinyModule()


@pytest.fixture
def with_heads() -> TinyModule:
    return TinyHeads()


@pytest.fixture
def estimates() -> Callable[..., Any]:
    return estimates_of
