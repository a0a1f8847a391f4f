"""Writes small valid file data without any simulation, to try readers and encoders on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datagen.fields.datum import NO_SOURCE, UNITS
from datagen.fields.format import file_data_path, write_file_data
from datagen.fields.schema import PATCH_PX
from datagen.fields.version import FORMAT_VERSION
from datagen.fields.wcs import tan_cards
from datagen.seeds import stream
from datagen.version import VERSION

SIGMA = 3.0
PIXEL_SCALE = 0.263
MEMBER_RATE = 0.2


@dataclass(frozen=True)
class _Layout:
    image_size: int
    cell_px: int
    bands: Sequence[str]
    seed: int


def write_dummy_file_data(
    folder: Path,
    n_files: int,
    image_size: int,
    cell_px: int,
    bands: Sequence[str],
    seed: int,
) -> list[Path]:
    """Write `n_files` file data of one field each below `folder/file_data`.

    A fifth of the cells holds a member, drawn as a bright square in the cell, on white noise of 3
    counts: a learner can separate the cells. All keys of the format are there.

    Args:
        folder: Data folder.
        n_files: Number of files.
        image_size: Side of the images [px], a multiple of `cell_px`.
        cell_px: Side of the cells [px].
        bands: Band names; the middle one is the reference band.
        seed: Seed of the content.

    Returns:
        The files' names, sorted by number.
    """
    layout = _Layout(image_size, cell_px, bands, seed)
    paths = [file_data_path(folder, number, 1) for number in range(n_files)]
    for index, path in enumerate(paths):
        write_file_data(path, [_field(layout, index)])
    return paths


def _field(layout: _Layout, index: int) -> dict[str, Any]:
    rng = stream(layout.seed, index, "dummy")
    n, cell = layout.image_size // layout.cell_px, layout.cell_px
    member = rng.random((n, n)) < MEMBER_RATE
    spot = np.zeros((cell, cell), np.float32)
    quarter = max(1, cell // 4)
    spot[quarter : 2 * quarter, quarter : 2 * quarter] = 20.0 * SIGMA
    signal = np.kron(member.astype(np.float32), spot)
    noise = rng.standard_normal((len(layout.bands), *signal.shape), dtype=np.float32)
    return {
        "images": torch.from_numpy(np.float32(SIGMA) * noise + signal),
        "tile_catalog": _cells(torch.from_numpy(member), len(layout.bands)),
        "redshift_map": _redshifts(member, layout),
        "meta": _meta(layout, index, float(member.mean())),
    }


def _redshifts(member: NDArray[np.bool_], layout: _Layout) -> torch.Tensor:
    """Return redshift 0.4 where the cell of a square holds a member, else no source."""
    n = -(-layout.image_size // PATCH_PX)
    cell = np.minimum(np.arange(n) * PATCH_PX // layout.cell_px, len(member) - 1)
    return torch.from_numpy(np.where(member[np.ix_(cell, cell)], 0.4, NO_SOURCE).astype(np.float32))


def _cells(member: torch.Tensor, n_bands: int) -> dict[str, torch.Tensor]:
    one = member[..., None, None]
    value = one.float()
    return {
        "n_sources": member.long(),
        "locs": 0.375 * value.expand(*member.shape, 1, 2).clone(),
        "fluxes": 1000.0 * value.expand(*member.shape, 1, n_bands).clone(),
        "membership": one.clone(),
        "redshift": 0.4 * value,
        "source_type": torch.zeros_like(value),
        "galaxy_params": 0.5 * value.expand(*member.shape, 1, 4).clone(),
        "n_members": one.long(),
        "cell_weight": torch.ones_like(value),
        "cluster_redshift": 0.4 * value,
        "cluster_richness": 30.0 * value,
    }


def _meta(layout: _Layout, index: int, prevalence: float) -> dict[str, Any]:
    n_bands = len(layout.bands)
    return {
        "format_version": FORMAT_VERSION,
        "seed": layout.seed,
        "index": index,
        "config_hash": "dummy0000000",
        "package_version": VERSION,
        "bands": list(layout.bands),
        "reference_band": layout.bands[n_bands // 2],
        "pixel_scale": PIXEL_SCALE,
        "zero_point": 30.0,
        "cell_px": layout.cell_px,
        "noise_sigma": [SIGMA] * n_bands,
        "psf_fwhm": [0.9] * n_bands,
        "wcs": tan_cards(30.0, -10.0, (layout.image_size, layout.image_size), PIXEL_SCALE),
        "prior": {"kind": "dummy", "prevalence": prevalence},
        "units": UNITS,
    }
