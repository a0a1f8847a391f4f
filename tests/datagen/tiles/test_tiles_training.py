"""The chain that a user walks: survey tiles to file data to an encoder that goes on with them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.table import Table

from datagen.fields.dummy import write_dummy_file_data

SHAPE, CELL = (192, 192), 32


def command(root: Path, cwd: Path, script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(root / script), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_an_encoder_of_fields_goes_on_with_survey_tiles(
    root: Path, tmp_path: Path, tile: Callable[..., Path]
) -> None:
    sky, rows = tmp_path / "data" / "survey", []
    for number in range(6):
        folder = tile(sky, f"T{number}", SHAPE, seed=number, ra=10 + 0.1 * number)
        with fits.open(folder / f"T{number}_g.fits", mode="update") as hdus:
            hdus[0].data[:40, :50] = np.nan
        shift = np.linspace(-0.004, 0.004, 5)
        rows += [(number, 10 + 0.1 * number + d, -5 + d, 1.0, 0.4, 30.0) for d in shift]
    names = ("MEM_MATCH_ID", "RA", "DEC", "P", "Z", "LAMBDA")
    Table(rows=rows, names=names).write(tmp_path / "members.fits")
    survey = ["survey=generic", "survey.bands=[g,r]"]
    data = ["data_gen=tiles", "data_gen.image_size=96", f"data_gen.tile_size={CELL}"]
    data += ["data_gen.reference=members.fits", "data_gen.reference_band=r"]
    command(root, tmp_path, "datagen/run.py", *survey, *data, "data_gen.images_per_file=1")
    assert "OK: 24 file data" in command(root, tmp_path, "datagen/validate.py", "data/tiles")
    write_dummy_file_data(tmp_path / "data" / "fields", 16, 96, CELL, ["g", "r"], seed=1)
    small = ["trainer=cpu", "trainer.max_epochs=1", "trainer.max_steps=-1", "logger=none"]
    small += ["model.network.width=4", "model.network.n_counts=3", "data.batch_size=4"]
    # This seed fills all splits, with six survey tiles too.
    small += ["data.seed=7"]
    command(root, tmp_path, "train.py", *small)
    first = tmp_path / "outputs" / "membership" / "best.ckpt"
    more = ["data.data_dir=data/tiles", f"init_from={first}", "paths.output_dir=outputs/tiles"]
    assert f"training from {first} in" in command(root, tmp_path, "train.py", *small, *more)
    best = torch.load(tmp_path / "outputs/tiles/membership/best.ckpt", weights_only=True)
    assert all(bool(value.isfinite().all()) for value in best["state_dict"].values())
    predict = ["predict.weight_save_path=outputs/tiles/membership/best.ckpt", *survey]
    predict += ["predict.window_px=192", "predict.stride_px=192", "predict.halo_px=0"]
    command(root, tmp_path, "inference/predict.py", *predict, "predict.accelerator=cpu")
    assert len(list((tmp_path / "outputs/survey/scores").glob("*.fits"))) == 6
