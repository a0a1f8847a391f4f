"""Blobs of twelve widths: one that was held out lies between its neighbours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from datagen.halos.format import maps_path, read_maps, read_truth, truth_path
from encoders.checkpoint import load_checkpoint
from encoders.training import train
from tests.encoders.halos.conftest import write_set

WIDTHS = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.05]
HELD_OUT = 0.5


@pytest.mark.slow
def test_a_width_that_was_held_out_is_interpolated(composed: Callable[..., DictConfig],
                                                   tmp_path: Path) -> None:  # fmt: skip
    write_set(
        tmp_path / "blobs", n_clusters=24, sigmas=WIDTHS, n_files=1, side=100, width_of=lambda x: x
    )
    known = ",".join(str(width) for width in WIDTHS if width != HELD_OUT)
    cfg = composed(
        "train",
        "model=compact_reduced",
        f"+data.sets={{a: null, blobs: {{labels: known, cross_sections: [{known}]}}}}",
        f"data.data_dir={tmp_path}",
        f"paths.log_dir={tmp_path / 'logs'}",
        f"paths.output_dir={tmp_path / 'outputs'}",
        "trainer=cpu",
        "trainer.max_epochs=40",
        "trainer.enable_progress_bar=false",
        "data.batch_size=66",
        "model.optimizer.lr=3e-3",
        "logger=none",
    )
    metrics = train(cfg)
    module: Any = load_checkpoint(tmp_path / "outputs/compact_reduced/best.ckpt", "halos")
    sigma = np.asarray(read_truth(truth_path(tmp_path / "blobs", 0))["CROSS_SECTION"])
    maps = read_maps(maps_path(tmp_path / "blobs", 0))[sigma == HELD_OUT][:, :1]
    with torch.inference_mode():
        first = module(torch.from_numpy(maps)).z[:, 0].double().numpy()
    found = module.scale.inverse(np.median(first))
    # Its neighbours are 20 % away.
    assert found == pytest.approx(HELD_OUT, rel=0.2), metrics
    # A constant would be wrong by 0.4.
    assert metrics["test/rmse_dex"] < 0.2
