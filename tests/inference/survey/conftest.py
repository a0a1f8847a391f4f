"""A small encoder with a known receptive field, and survey tiles on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from astropy.io import fits
from lightning import LightningModule
from torch import Tensor, nn

from encoders.fields.normalize import normalize
from inference.survey.settings import PredictSettings, SurveySettings

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


def tile_header(
    shape: tuple[int, int], ra: float = 10.0, dec: float = -5.0, **more: float | str
) -> fits.Header:
    cards = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": ra,
        "CRVAL2": dec,
        "CRPIX1": (shape[1] + 1) / 2,
        "CRPIX2": (shape[0] + 1) / 2,
        "CD1_1": -SCALE / 3600,
        "CD1_2": 0.0,
        "CD2_1": 0.0,
        "CD2_2": SCALE / 3600,
    }
    return fits.Header({**cards, **more})


def sky_image(shape: tuple[int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = rng.normal(5.0, 2.0, shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for _ in range(20):
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        image += rng.uniform(10, 60) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 18)
    return image.astype(np.float32)


def write_tile(
    folder: Path,
    name: str,
    shape: tuple[int, int] = (150, 203),
    seed: int = 0,
    **header: float | str,
) -> Path:
    for number, band in enumerate(("g", "r")):
        path = folder / name / f"{name}_{band}.fits"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = sky_image(shape, 10 * seed + number)
        fits.PrimaryHDU(image, tile_header(shape, **header)).writeto(path, overwrite=True)
    return folder / name


@pytest.fixture
def survey() -> SurveySettings:
    return SurveySettings(
        name="test",
        pattern="{tile}/{tile}_{band}.fits",
        hdu=0,
        bands=["g", "r"],
        zero_points={"g": 30.0, "r": 30.0},
        calibrate=False,
        pixel_scale=SCALE,
        align=False,
        reference_band="r",
        blank_value=0.0,
    )


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
def change() -> Callable[..., Any]:
    return dataclasses.replace


@pytest.fixture
def module() -> TinyModule:
    return TinyModule()


@pytest.fixture
def tile() -> Callable[..., Path]:
    return write_tile


@pytest.fixture
def header() -> Callable[..., fits.Header]:
    return tile_header
