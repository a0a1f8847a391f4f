"""Small simulated survey tiles with their truth, and settings that label them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits
from astropy.wcs import WCS
from omegaconf import DictConfig, OmegaConf

from conf.build import build_settings
from datagen import pipeline
from datagen.tiles.config import TilesConfig

MakeConfig = Callable[..., TilesConfig]
IMAGE, CELL = 96, 16


@pytest.fixture(scope="session")
def simulated(
    composed: Callable[..., DictConfig], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two overlapping tiles of 216 px in r and i, full of clusters; plain FITS."""
    node = composed("datagen", "data_gen=survey").data_gen
    node.update(nfiles=2, image_size=216, overlap=80, bands=["r", "i"], format="plain")
    # Distant systems are small: fewer patches reach into a tile.
    node.prior.update(redshift_range=[0.5, 0.8], group_redshift_range=[0.5, 0.9])
    node.prior.update(cluster_fraction=1.0, abundance_deg2=30.0)
    # This seed puts a labelled system on one tile and an ignored one on the other.
    node.update(patch_deg=0.05, seed=13, data_dir=str(tmp_path_factory.mktemp("survey")))
    pipeline.run(build_settings(node, "data_gen"))
    return Path(node.data_dir)


@pytest.fixture
def make_config(composed: Callable[..., DictConfig], tmp_path: Path) -> MakeConfig:
    """Return a function that composes settings: `make_config(tiles_dir, survey={...}, key=...)`."""

    def make(
        tiles_dir: Path, survey: dict[str, Any] | None = None, **changes: object
    ) -> TilesConfig:
        cfg = composed("datagen", "data_gen=tiles", "survey=generic")
        OmegaConf.set_struct(cfg, False)
        cfg.survey.update(pattern="{tile}/{tile}_r0000p00_{band}_nobkg.fits", bands=["r", "i"])
        cfg.survey.update(survey or {})
        cfg.data_gen.update(image_size=IMAGE, tile_size=CELL, tiles_dir=str(tiles_dir))
        cfg.data_gen.data_dir = str(tmp_path / "tiles")
        cfg.data_gen.update(changes)
        settings = build_settings(cfg.data_gen, "data_gen")
        assert isinstance(settings, TilesConfig)
        return settings

    return make


@pytest.fixture
def one_tile(tmp_path: Path, tile: Callable[..., Path]) -> Path:
    """One turned tile of 150 x 203 px in g and r, with shear between its axes."""
    turned = {"CD1_1": -5e-5, "CD1_2": 5.3e-5, "CD2_1": 5.2e-5, "CD2_2": 5.1e-5}
    tile(tmp_path / "sky", "T", **turned)
    return tmp_path / "sky"


@pytest.fixture
def wcs(one_tile: Path) -> WCS:
    return WCS(fits.getheader(one_tile / "T" / "T_r.fits"))
