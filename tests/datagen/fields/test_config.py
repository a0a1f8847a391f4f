"""Range checks of the settings and their messages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from conf.build import build_settings
from datagen.errors import ConfigError, DataNotFoundError
from datagen.fields.config import FieldsConfig, PriorConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tile_size": 300},
            r"expected tile_size to divide image_size = 2560, but got tile_size = 300",
        ),
        ({"tile_size": 0}, "but got tile_size = 0"),
        ({"image_size": 8}, r"expected image_size in >= 16|expected image_size >= 16"),
        ({"n_catalogs_per_file": 0}, "got n_catalogs_per_file = 0"),
        ({"bands": ["g", "y"]}, r"distinct names out of g, r, i, z, but got bands = \[g, y\]"),
        ({"bands": ["g", "g"]}, r"got bands = \[g, g\]"),
        ({"bands": []}, r"got bands = \[\]"),
        ({"reference_band": "u"}, "expected reference_band to be one of g, r, i, z"),
        ({"bands": ["g", "r"]}, "expected reference_band to be one of g, r, but got"),
        ({"min_flux_for_loss": -1.0}, "got min_flux_for_loss = -1"),
        ({"phases": ["images"]}, r"out of catalog, image, datum, but got phases = \[images\]"),
        ({"renderer": "povray"}, "expected renderer to be one of"),
        ({"nfiles": -1}, "nfiles"),
    ],
)
def test_field_settings(fields_config: FieldsConfig, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(fields_config, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "magic"}, "expected prior.kind to be one of analytic, empirical"),
        ({"cluster_fraction": 1.5}, r"prior.cluster_fraction in \[0, 1\], but got"),
        ({"richness_range": [150.0, 20.0]}, r"got prior.richness_range = \[150, 20\]"),
        ({"richness_range": [20.0]}, r"\[lower, upper\]"),
        ({"redshift_range": [0.0, 0.8]}, r"0.03 <= lower < upper <= 1.2"),
        ({"group_redshift_range": [0.1, 2.0]}, r"prior.group_redshift_range"),
        ({"group_richness_min": 1.0}, "prior.group_richness_min"),
        (
            {"ignore_richness_min": 3.0},
            "prior.ignore_richness_min >= 5|ignore_richness_min in >= 5",
        ),
        ({"mag_limit": 40.0}, "prior.mag_limit"),
        ({"star_density_arcmin2": -8.0}, "prior.star_density_arcmin2"),
        ({"galaxy_density_arcmin2": -8.0}, "prior.galaxy_density_arcmin2"),
        ({"triaxiality": 1.0}, "prior.triaxiality"),
        ({"kind": "empirical"}, "prior.empirical.members_file to name a members table"),
    ],
)
def test_prior_settings(prior_config: PriorConfig, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(prior_config, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": {"id": "ID"}}, "but got no entry for ra, no entry for dec, no entry for r,"),
        (
            {"magnitudes": {"g": "G"}},
            "magnitudes to have an entry for each of g, r, i, z, .* got no entry for r,",
        ),
        ({"columns": dict.fromkeys(["id", "ra", "dec", "r", "p", "z", "q"], "A")}, "entry for q"),
        ({"magnitudes": dict.fromkeys("ugriz", "M")}, "out of g, r, i, z, but got an entry for u"),
        (
            {"field_columns": {"Z": "Z"}},
            "field_columns to have .* out of z, but got an entry for Z",
        ),
        ({"field_magnitudes": {"y": "M"}}, "field_magnitudes .* but got an entry for y"),
        ({"field_file": "f.csv"}, "field_area_arcmin2 > 0 together with field_file"),
    ],
)
def test_empirical_settings(
    prior_config: PriorConfig, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(prior_config.empirical, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_scale": 0.0}, "expected image.pixel_scale > 0"),
        ({"psf_scatter": 2.0}, "image.psf_scatter"),
        ({"psf_beta": 1.0}, "image.psf_beta"),
    ],
)
def test_image_settings(fields_config: FieldsConfig, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(fields_config.image, **change)


def test_every_band_needs_depth_and_seeing(fields_config: FieldsConfig) -> None:
    shallow = dataclasses.replace(fields_config.image, depth_mag={"g": 24.7})
    with pytest.raises(ConfigError, match=r"image.depth_mag to have .* but got no entry for r"):
        dataclasses.replace(fields_config, image=shallow)
    for name in ("depth_mag", "psf_fwhm_arcsec"):
        more = {name: getattr(fields_config.image, name) | {"y": 24.0}}
        further = dataclasses.replace(fields_config.image, **more)
        with pytest.raises(ConfigError, match=rf"image.{name} .* but got an entry for y"):
            dataclasses.replace(fields_config, image=further)
    seeing = {"g": -1.0, "r": 1.0, "i": 1.0, "z": 1.0}
    negative = dataclasses.replace(fields_config.image, psf_fwhm_arcsec=seeing)
    with pytest.raises(ConfigError, match=r"psf_fwhm_arcsec.g > 0"):
        dataclasses.replace(fields_config, image=negative)


def test_unknown_keys_and_wrong_types_are_refused(composed: Callable[..., DictConfig]) -> None:
    node = composed("datagen", "data_gen=fields").data_gen
    for key, value in (("prior.cluster_fractoin", 0.5), ("prior.mag_limit", "deep")):
        broken = node.copy()
        OmegaConf.update(broken, key, value, force_add=True)
        with pytest.raises(ConfigError, match=key):
            build_settings(broken, "data_gen")


def test_input_files_count_by_content_not_by_name(
    fields_config: FieldsConfig, tmp_path: Path
) -> None:
    def config(name: str) -> FieldsConfig:
        empirical = dataclasses.replace(
            fields_config.prior.empirical, members_file=str(tmp_path / name)
        )
        prior = dataclasses.replace(fields_config.prior, kind="empirical", empirical=empirical)
        return dataclasses.replace(fields_config, prior=prior)

    for name, text in (("a.csv", "1"), ("b.csv", "1"), ("c.csv", "2")):
        (tmp_path / name).write_text(text)
    assert config("a.csv").content_hash() == config("b.csv").content_hash()
    assert config("a.csv").content_hash() != config("c.csv").content_hash()
    with pytest.raises(DataNotFoundError, match=r"d\.csv does not exist"):
        config("d.csv").content_hash()
