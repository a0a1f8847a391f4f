"""Small source catalogs and settings for the tests of the field simulator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from omegaconf import DictConfig

from conf.build import build_settings
from datagen.fields.config import FieldsConfig, ImageConfig, PriorConfig
from datagen.fields.schema import CATALOG_COLUMNS
from datagen.fields.sky import SkyArea
from datagen.fields.survey_config import SurveyConfig
from datagen.fields.wcs import tan_wcs

MakeSources = Callable[..., Table]


@pytest.fixture
def make_sources() -> MakeSources:
    """Return a function that makes a catalog of round exponential galaxies at pixels (x, y)."""

    def make(x: list[float], y: list[float], **columns: object) -> Table:
        table = Table()
        for name in CATALOG_COLUMNS:
            table[name] = np.zeros(len(x))
        table["X"], table["Y"] = np.asarray(x, float), np.asarray(y, float)
        for band in "GRIZ":
            table[f"FLUX_{band}"] = np.full(len(x), 1000.0)
        table["HLR"], table["LABEL_WEIGHT"] = np.full(len(x), 0.5), np.ones(len(x))
        table["SERSIC_N"] = np.full(len(x), np.nan)
        columns = {"CLUSTER_ID": np.where(columns.get("MEM", 0), 0, -1), **columns}
        for name, values in columns.items():
            table[name] = np.broadcast_to(values, len(x)).astype(float)
        for name in ("MEM", "SOURCE_TYPE", "CLUSTER_ID", "IS_RED"):
            table[name] = np.asarray(table[name], np.int64)
        return table

    return make


@pytest.fixture
def image_config() -> ImageConfig:
    """Return the image settings of DES DR2."""
    return ImageConfig(
        pixel_scale=0.263,
        zero_point=30.0,
        psf_fwhm_arcsec={"g": 1.11, "r": 0.95, "i": 0.88, "z": 0.83},
        psf_scatter=0.1,
        psf_ellipticity=0.02,
        psf_beta=3.0,
        depth_mag={"g": 24.7, "r": 24.4, "i": 23.8, "z": 23.1},
        depth_aperture_arcsec=1.95,
        depth_snr=10.0,
    )


@pytest.fixture
def fields_config(composed: Callable[..., DictConfig], tmp_path: Path) -> FieldsConfig:
    """Return the settings that the project ships, with outputs below a temporary folder."""
    node = composed("datagen", "data_gen=fields").data_gen
    node.data_dir = str(tmp_path / "fields")
    config = build_settings(node, "data_gen")
    assert isinstance(config, FieldsConfig)
    return config


@pytest.fixture
def survey_config(composed: Callable[..., DictConfig], tmp_path: Path) -> SurveyConfig:
    """Return the shipped settings of survey tiles, two small ones below a temporary folder."""
    node = composed("datagen", "data_gen=survey").data_gen
    node.update(nfiles=2, image_size=200, overlap=80, bands=["r", "i"])
    # Distant systems are small: fewer patches reach into a tile.
    node.prior.update(redshift_range=[0.4, 0.8], group_redshift_range=[0.4, 0.9])
    node.data_dir = str(tmp_path / "survey")
    config = build_settings(node, "data_gen")
    assert isinstance(config, SurveyConfig)
    return config


@pytest.fixture
def prior_config(fields_config: FieldsConfig) -> PriorConfig:
    """Return the prior that the project ships."""
    return fields_config.prior


@pytest.fixture
def area(image_config: ImageConfig) -> SkyArea:
    """Return a field of 1024 px on the sky."""
    shape = (1024, 1024)
    return SkyArea.from_image(image_config, "i", tan_wcs(30.0, -30.0, shape, 0.263), shape)
