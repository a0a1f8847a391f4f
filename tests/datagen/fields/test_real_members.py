"""A real cluster through the whole field pipeline."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from datagen import pipeline
from datagen.fields.config import FieldsConfig
from datagen.fields.format import (
    catalog_path,
    clusters_path,
    file_data_path,
    read_catalog,
    read_clusters,
    read_file_data,
)
from datagen.fields.validate import validate_folder

SIZE, CELL, N_FIELDS = 512, 64, 3


@pytest.fixture
def config(fields_config: FieldsConfig, shared_data: Path) -> FieldsConfig:
    members = shared_data / "redmapper" / "test_cluster_members.fit"
    empirical = dataclasses.replace(fields_config.prior.empirical, members_file=str(members))
    prior = dataclasses.replace(
        fields_config.prior,
        kind="empirical",
        empirical=empirical,
        cluster_fraction=1.0,
        centre_margin_px=0.0,
    )
    return dataclasses.replace(
        fields_config,
        image_size=SIZE,
        tile_size=CELL,
        nfiles=1,
        n_catalogs_per_file=N_FIELDS,
        prior=prior,
    )


@pytest.mark.real_data
def test_a_real_cluster_is_rendered_and_labelled(config: FieldsConfig) -> None:
    pipeline.run(config)
    folder = Path(config.data_dir)
    assert validate_folder(folder).startswith("1 file data, 12 images, 3 source catalogs")
    real = np.asarray(Table.read(config.prior.empirical.members_file, hdu=1)["MAG"], float)[:, 3]
    data = read_file_data(file_data_path(folder, 0, N_FIELDS))
    n_bright = 0
    for index, datum in enumerate(data):
        (system,) = [row for row in read_clusters(clusters_path(folder, index)) if row["LABELLED"]]
        assert system["RICHNESS"] == pytest.approx(24.26, abs=0.01)
        assert system["Z"] == pytest.approx(0.2279, abs=1e-4)
        sources = read_catalog(catalog_path(folder, index))
        members = sources[(sources["MEM"] == 1) & (sources["CLUSTER_ID"] == system["CLUSTER_ID"])]
        distance = np.abs(np.asarray(members["MAG_I"])[:, None] - real).min(axis=1)
        assert distance.max() < 1e-5
        assert datum["meta"]["prior"]["kind"] == "empirical"
        assert datum["meta"]["prior"]["members_file"] == "test_cluster_members.fit"
        n_bright += check_labels(members, datum)
    assert n_bright >= 5


def check_labels(members: Table, datum: dict[str, Any]) -> int:
    """Compare labels and pixels with the catalogue; return how many bright members there are."""
    cells = datum["tile_catalog"]["membership"][..., 0, 0].numpy()
    column = np.floor((np.asarray(members["X"]) + 0.5) / CELL).astype(int)
    row = np.floor((np.asarray(members["Y"]) + 0.5) / CELL).astype(int)
    is_inside = (column >= 0) & (row >= 0) & (column < len(cells)) & (row < len(cells))
    expected = np.zeros_like(cells)
    expected[row[is_inside], column[is_inside]] = True
    np.testing.assert_array_equal(cells, expected)
    image = datum["images"][2].numpy()
    bright = members[is_inside & (np.asarray(members["MAG_I"]) < 20.0)]
    for x, y in zip(np.round(bright["X"]), np.round(bright["Y"]), strict=True):
        # Ten times the noise at least: the member is in the picture where the label says.
        assert image[int(y), int(x)] > 10 * datum["meta"]["noise_sigma"][2]
    return len(bright)
