"""Fixtures that make small survey tiles on disk, for all who read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from datagen.tiles.survey import SurveySettings

SCALE = 0.263
# How these tiles are predicted from the command line.
SMALL_WINDOWS = [
    "survey=generic",
    "survey.bands=[g,r]",
    "predict.window_px=128",
    "predict.stride_px=64",
    "predict.halo_px=0",
    "predict.threshold=0.1",
    "predict.accelerator=cpu",
]


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
def tile() -> Callable[..., Path]:
    return write_tile


@pytest.fixture
def header() -> Callable[..., fits.Header]:
    return tile_header
