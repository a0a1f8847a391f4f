"""Real images become stamps, views and embeddings, with nothing but values of yaml files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from conf.build import build, build_settings
from datagen import pipeline
from datagen.files import save_torch
from datagen.stamps import format as stamps
from encoders.galaxies.draws import About
from inference.engine import predict_galaxies
from inference.galaxies.settings import GalaxySettings
from inference.results import Form, read_result

pytestmark = pytest.mark.real_data

HSC = (
    ["data_gen.image.store_px=48"],
    [
        "+model.views.reddening.coefficients.y=0.43",
        "+model.views.noise.target.y="
        "{shift: 0.0, median: 0.05, scatter: 0.2, low: 0.0011, high: 0.1}",
    ],
)
DECAM = (
    ["data_gen.image.store_px=96", "suites.decam_exposures.crop.factor=0.9"],
    [
        "model.views.reddening=null",
        "+model.views.noise.target.optical="
        "{shift: 0.0, median: 2.0, scatter: 0.3, low: 0.1, high: 10.0}",
    ],
)


@pytest.mark.parametrize(
    ("suite", "folder", "changes", "n_stamps", "bands"),
    [
        ("hsc_cutout", "hsc", HSC, 1, ["g", "r", "i", "z", "y"]),
        ("decam_exposures", "decam", DECAM, 4, ["optical"]),
    ],
)
def test_real_images_pass(
    composed: Callable[..., DictConfig],
    shared_data: Path,
    tmp_path: Path,
    settings: GalaxySettings,
    suite: str,
    folder: str,
    changes: tuple[list[str], list[str]],
    n_stamps: int,
    bands: list[str],
) -> None:
    """The lists of changes are what a command line would have."""
    where = f"suites.{suite}.folder={shared_data / 'images' / folder}"
    cfg = composed("datagen", "data_gen=stamps", f"suite=[{suite}]", where, *changes[0])
    cfg.data_gen.data_dir = str(tmp_path / "stamps")
    pipeline.run(build_settings(cfg.data_gen, "data_gen"))
    table = stamps.read_labels(tmp_path / "stamps" / suite)
    pixels = stamps.read_stamps(stamps.stamps_path(tmp_path / "stamps" / suite, 0))
    assert pixels.shape[:2] == (n_stamps, len(bands))
    assert stamps.bands_of(table.meta) == bands
    sigma = np.stack([table[f"SKYSIGMA_{band.upper()}"] for band in bands], axis=1)
    module = encoder(composed, changes[1], table.meta, table, float(2.0 * np.median(sigma)))
    known = [np.full(n_stamps, np.nan), sigma, table["SCALE"], np.full(n_stamps, np.nan)]
    if "FWHM" in table.colnames:
        known[0] = table["FWHM"]
    about = About(*(torch.from_numpy(np.array(x, np.float32)) for x in known))
    views = module.views(torch.from_numpy(np.array(pixels)), about, torch.arange(n_stamps), 0)
    assert views.shape == (2, n_stamps, len(bands), 32, 32)
    assert views.isfinite().all()
    assert not torch.equal(views[0], views[1])
    assert module.encoder(views[0]).isfinite().all()
    content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    save_torch(tmp_path / "best.ckpt", content)
    ours = {"cached_data_path": str(tmp_path / "stamps"), "evaluate": True}
    ours |= {"weight_save_path": str(tmp_path / "best.ckpt"), "output_dir": str(tmp_path / "out")}
    assert predict_galaxies(dataclasses.replace(settings, **ours)) == 0
    form = Form("", ("SUITE", "EMBEDDING"), {})
    found = read_result(tmp_path / "out/predictions.fits", form).predictions
    assert found["EMBEDDING"].shape == (n_stamps, module.network.n_features)
    assert np.isfinite(found["EMBEDDING"]).all()
    assert found["EMBEDDING"].std() > 0
    # There are no labels to compare with.
    assert not (tmp_path / "out/evaluation.json").exists()


def encoder(
    composed: Callable[..., DictConfig],
    changes: list[str],
    header: Any,  # noqa: ANN401 - of the truth
    table: Any,  # noqa: ANN401 - of the truth
    softening: float,
) -> Any:  # noqa: ANN401 - a GalaxyModule
    """Return an encoder of such stamps that has learned nothing."""
    small = ["model=simclr", "model.network.channels=[4,8]", "model.network.n_blocks=[0]"]
    card = {
        "task": "galaxies",
        "bands": stamps.bands_of(header),
        "side": int(header["SIDE"]),
        "train_px": 32,
        "pixel_scale": float(np.median(table["SCALE"])),
        "unit": header["UNIT"],
        "softening": softening,
        "labels": {},
        "data_hash": "0",
    }
    torch.manual_seed(0)
    return build(composed("train", *small, *changes).model, card=card).eval()
