"""The prediction loop that is usually written, to compare with.

Loader workers take the windows in turn, and each of them decodes every survey tile as a whole,
unfolds it and copies the windows side by side. The results of each batch are saved under the
number of the batch, and kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.io import fits
from lightning import LightningModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class UnfoldedTiles(Dataset[Tensor]):
    """All windows of all survey tiles; holds those of the survey tile that was asked for last.

    Args:
        folders: One for each survey tile, with one file for each band.
        size: Side of a survey tile [px].
        window_px: Side of a window [px].
    """

    def __init__(self, folders: list[Path], size: int, window_px: int) -> None:
        self._folders = folders
        self._window_px = window_px
        self._n_windows = (-(-size // window_px)) ** 2
        self._held: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return len(self._folders) * self._n_windows

    def __getitem__(self, index: int) -> Tensor:
        tile, window = divmod(index, self._n_windows)
        if self._held is None or self._held[0] != tile:
            paths = sorted(self._folders[tile].iterdir())
            images = np.stack([read_whole(path) for path in paths])
            self._held = tile, unfold(torch.from_numpy(images), self._window_px)
        return self._held[1][window]


def predict(
    module: LightningModule, folders: list[Path], size: int, window_px: int, out: Path
) -> int:
    """Score all windows with two workers; return how many there were."""
    loader = DataLoader(UnfoldedTiles(folders, size, window_px), batch_size=1, num_workers=2)
    kept = []
    with torch.inference_mode():
        for number, images in enumerate(loader):
            levels = torch.zeros(images.shape[:2])
            batch: dict[str, Any] = {"images": images, "background": levels, "sigma": levels + 3}
            kept.append(module.predict_step(batch))
            torch.save(kept[-1], out / f"batch-{number}.pt")
    return len(kept)


def read_whole(path: Path) -> NDArray[np.float32]:
    """Return all pixels of the first image of a file."""
    with fits.open(path) as hdus:
        return np.array(next(hdu.data for hdu in hdus if hdu.data is not None), np.float32)


def unfold(images: Tensor, window_px: int) -> Tensor:
    """Return windows side by side (N, C, h, w) of images (C, H, W), padded with zeros."""
    below, right = -images.shape[1] % window_px, -images.shape[2] % window_px
    padded = torch.nn.functional.pad(images, (0, right, 0, below))
    parts = padded.unfold(1, window_px, window_px).unfold(2, window_px, window_px)
    return parts.permute(1, 2, 0, 3, 4).reshape(-1, len(images), window_px, window_px)
