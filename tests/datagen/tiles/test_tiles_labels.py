"""Labels of survey tiles by the rules: members and circles at pixels, and what is not known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.cosmology import FlatLambdaCDM
from astropy.io import fits
from astropy.table import Table, vstack
from astropy.wcs import WCS
from omegaconf import DictConfig

from conf.build import build_settings
from datagen.errors import ConfigError, DataFormatError
from tests.datagen.tiles.labelling import (
    CELL,
    IMAGE,
    MakeConfig,
    fresh_cells,
    run,
    settings_of,
    write_members,
)


@pytest.mark.parametrize("seed", range(4))
def test_a_member_at_a_pixel_labels_the_cell_of_the_pixel(
    one_tile: Path, wcs: WCS, make_config: MakeConfig, tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 203, 12), rng.integers(0, 150, 12)
    # Anywhere on a pixel, close to its edges too.
    x, y = x + rng.choice([-0.499, 0.0, 0.499], 12), y + rng.choice([-0.499, 0.0, 0.499], 12)
    rows = [{"x": a, "y": b} for a, b in zip(x, y, strict=True)]
    config = settings_of(make_config, one_tile, write_members(tmp_path / "m.fits", wcs, rows))
    for datum in run(config):
        wanted = np.zeros((6, 6), int)
        for a, b in zip(x, y, strict=True):
            row, column = (
                round(value) - first
                for value, first in zip((b, a), datum["meta"]["origin"], strict=True)
            )
            if 0 <= row < IMAGE and 0 <= column < IMAGE:
                wanted[row // CELL, column // CELL] += 1
        np.testing.assert_array_equal(datum["tile_catalog"]["n_members"][..., 0, 0], wanted)
        ra, dec = WCS(fits.Header(datum["meta"]["wcs"])).all_pix2world([3.0], [5.0], 0)
        there = wcs.all_world2pix(ra, dec, 0)
        np.testing.assert_allclose(np.ravel(there), np.add(datum["meta"]["origin"][::-1], [3, 5]))


def test_probability_richness_redshift_and_flux_decide(
    one_tile: Path, wcs: WCS, make_config: MakeConfig, tmp_path: Path
) -> None:
    rows = [
        {"x": 8, "y": 8, "p": 0.5},
        {"x": 24, "y": 8, "p": 0.49},
        {"x": 40, "y": 8, "p": 0.3},
        {"x": 41, "y": 8, "p": 0.9},
        {"x": 56, "y": 8, "p": 0.05},
        {"x": 72, "y": 8, "id": 8, "richness": 19.0},
        {"x": 8, "y": 24, "id": 9, "z": 0.85},
        {"x": 24, "y": 24, "mag": 25.1},
        {"x": 40, "y": 24, "mag": 24.9},
        {"x": 56, "y": 24, "mag": 25.1, "p": 0.3},
    ]
    reference = write_members(tmp_path / "m.fits", wcs, rows)
    first = run(settings_of(make_config, one_tile, reference, richness_min=20.0))[0]
    cells = first["tile_catalog"]
    member = cells["membership"][:2, :5, 0, 0].int().tolist()
    weight = cells["cell_weight"][:2, :5, 0, 0].int().tolist()
    assert member == [[1, 0, 1, 0, 0], [0, 0, 1, 0, 0]]
    assert weight == [[1, 0, 1, 1, 0], [0, 1, 1, 1, 1]]
    assert cells["cluster_richness"][0, 0].item() == 30.0
    assert cells["cluster_redshift"][0, 1].item() == 0.0
    # Of a doubtful member the redshift is not known.
    assert first["redshift_map"][0, :5].tolist() == pytest.approx([0.4, -1, 0.4, -1, 0.4])
    assert cells["fluxes"][0, 0, 0].tolist() == pytest.approx([0.0, 10000.0])


def test_without_magnitudes_every_member_counts(
    one_tile: Path, wcs: WCS, make_config: MakeConfig, tmp_path: Path
) -> None:
    path = write_members(tmp_path / "m.fits", wcs, [{"x": 8, "y": 8, "mag": 28.0}])
    table = Table.read(path)
    table.remove_column("MAG_R")
    table.write(path, overwrite=True)
    first = run(settings_of(make_config, one_tile, path))[0]["tile_catalog"]
    assert first["membership"].sum() == 1
    assert not first["fluxes"].any()


def test_richness_is_the_sum_of_probabilities_where_it_is_not_told(
    one_tile: Path, wcs: WCS, make_config: MakeConfig, tmp_path: Path
) -> None:
    path = write_members(
        tmp_path / "m.fits", wcs, [{"x": 8, "y": 8 + k, "p": p} for k, p in enumerate((1, 0.75))]
    )
    table = Table.read(path)
    table.remove_column("RICHNESS")
    table.write(path, overwrite=True)
    cells = run(settings_of(make_config, one_tile, path))[0]["tile_catalog"]
    assert cells["cluster_richness"][0, 0].item() == 1.75
    more = {"richness_min": 1.8, "data_dir": str(tmp_path / "b")}
    with pytest.raises(ConfigError, match=r"none of its 2 rows does: 2 of clusters with richness"):
        run(settings_of(make_config, one_tile, path, **more))
    new = Table(table[:1])
    new["MEM_MATCH_ID"], new["DEC"] = 8, new["DEC"] + 0.001
    vstack([table, new, new]).write(path, overwrite=True)
    cells = run(settings_of(make_config, one_tile, path, **more))[0]["tile_catalog"]
    assert (cells["membership"][0, 0].item(), cells["cell_weight"][0, 0].item()) == (False, 0.0)
    assert cells["cluster_richness"].max().item() == 2.0


def write_clusters(path: Path, z: list[float], **columns: object) -> Path:
    """Write a cluster table with the numbers 0, 1, ... and richness 30."""
    table = Table({"MEM_MATCH_ID": np.arange(len(z)), "RA": np.full(len(z), 10.0)})
    table["DEC"], table["Z_LAMBDA"], table["LAMBDA"] = -5.0, z, 30.0
    for name, values in columns.items():
        table[name] = values
    table.write(path, overwrite=True)
    return path


def test_a_column_map_serves_both_tables(
    one_tile: Path, wcs: WCS, make_config: MakeConfig, tmp_path: Path
) -> None:
    members = write_members(tmp_path / "m.fits", wcs, [{"x": 8, "y": 8, "id": 0}])
    table = Table.read(members)
    table.rename_column("PMEM", "CHANCE")
    table.write(members, overwrite=True)
    clusters = Table.read(write_clusters(tmp_path / "c.fits", [0.4]))
    clusters.rename_column("Z_LAMBDA", "PHOTO")
    clusters.write(tmp_path / "c.fits", overwrite=True)
    columns = {"pmem": "chance", "redshift": "PHOTO", "id": "MEM_MATCH_ID"}
    more: dict[str, Any] = {"clusters": str(tmp_path / "c.fits"), "columns": columns}
    cells = run(settings_of(make_config, one_tile, members, **more))[0]["tile_catalog"]
    assert cells["cluster_redshift"][0, 0].item() == pytest.approx(0.4)
    for wrong in ({"redshift": "NONE"}, {"pmem": "NONE"}):
        more["columns"] = columns | wrong
        with pytest.raises(DataFormatError, match="has no column NONE"):
            run(settings_of(make_config, one_tile, members, **more))


def test_a_reference_that_labels_nothing_says_why(
    one_tile: Path, wcs: WCS, make_config: MakeConfig, tmp_path: Path
) -> None:
    rows = [{"x": 8, "y": 8, "id": number} for number in (0, 1, 2, 9)] + [
        {"x": 8, "y": 8, "p": 0.3}
    ]
    members = write_members(tmp_path / "m.fits", wcs, rows)
    clusters = write_clusters(tmp_path / "c.fits", [np.nan, 0.9, 0.4], LAMBDA=[30.0, 30.0, 5.0])
    more = {"clusters": str(clusters), "richness_min": 20.0}
    message = (
        r"none of its 5 rows does: 1 with P < data_gen\.min_probability = 0\.5, 1 whose cluster "
        r"data_gen\.clusters does not have, 1 of clusters of unknown redshift or richness, 1 of "
        r"clusters with richness < data_gen\.richness_min = 20, 1 of clusters outside "
        r"data_gen\.redshift_range = \[0\.1, 0\.8\]"
    )
    with pytest.raises(ConfigError, match=message):
        run(settings_of(make_config, one_tile, members, **more))
    # The redshift of a galaxy is not that of its cluster.
    table = Table.read(members)
    table.rename_column("Z", "Z_SPEC")
    table.write(tmp_path / "z.fits")
    with pytest.raises(ConfigError, match=r"4 of clusters of unknown redshift"):
        run(settings_of(make_config, one_tile, tmp_path / "z.fits"))
    circles = {**more, "clusters": None, "label": "circle", "redshift_range": [0.5, 0.8]}
    with pytest.raises(ConfigError, match=r"none of its 3 rows does: 1 of unknown redshift"):
        run(settings_of(make_config, one_tile, clusters, **circles))


@pytest.mark.parametrize("unknown", [np.nan, 0.0, -1.0])
def test_unknown_redshifts_stay_out_of_the_redshift_map(
    one_tile: Path, wcs: WCS, make_config: MakeConfig, tmp_path: Path, unknown: float
) -> None:
    rows: list[dict[str, float]] = [
        {"x": 8, "y": 8, "z": unknown},
        {"x": 24, "y": 8, "id": 8},
        {"x": 40, "y": 8, "id": 8, "z": unknown},
    ]
    members = write_members(tmp_path / "m.fits", wcs, rows)
    low = {"redshift_range": [0.0, 0.8]}
    first = run(settings_of(make_config, one_tile, members, **low))[0]
    assert first["redshift_map"][0, :4].tolist() == pytest.approx([-1, 0.4, 0.4, -1])
    cells = first["tile_catalog"]
    assert cells["redshift"][0, :3, 0, 0].tolist() == pytest.approx([0, 0.4, 0.4])
    assert cells["cell_weight"][0, :3, 0, 0].tolist() == [0.0, 1.0, 1.0]


def test_flux_limits_hold_at_any_zero_point(
    one_tile: Path, wcs: WCS, make_config: MakeConfig, tmp_path: Path
) -> None:
    mags = (24.9, 25.1, 23.0, 23.1)
    rows = [{"x": 8 + 16 * k, "y": 8, "mag": mag} for k, mag in enumerate(mags)]
    members = write_members(tmp_path / "m.fits", wcs, rows)
    first = run(settings_of(make_config, one_tile, members, zero_point=22.5))[0]
    assert first["tile_catalog"]["membership"][0, :4, 0, 0].tolist() == [True, False, True, True]
    assert first["redshift_map"][0, :4].tolist() == pytest.approx([-1, -1, 0.4, -1])


def test_members_of_unknown_magnitude_are_not_taken_for_background(
    one_tile: Path, wcs: WCS, make_config: MakeConfig, tmp_path: Path
) -> None:
    rows: list[dict[str, float]] = [
        {"x": 8, "y": 8, "mag": 99.0},
        {"x": 24, "y": 8, "mag": np.nan},
        {"x": 40, "y": 8, "mag": 99.0},
        {"x": 41, "y": 8},
    ]
    members = write_members(tmp_path / "m.fits", wcs, rows)
    cells = run(settings_of(make_config, one_tile, members))[0]["tile_catalog"]
    assert cells["membership"][0, :4, 0, 0].tolist() == [False, False, True, False]
    assert cells["cell_weight"][0, :4, 0, 0].tolist() == [0.0, 0.0, 1.0, 1.0]


def test_circles_are_those_of_astropy(
    one_tile: Path, wcs: WCS, make_config: MakeConfig, tmp_path: Path
) -> None:
    """R_lambda = (lambda / 100)^0.2 h^-1 Mpc, with h = 0.7 (Rykoff et al. 2014)."""
    x, y = np.array([20.0, 260.0, 90.0, 185.0]), np.array([30.0, 140.0, 75.0, 8.0])
    ra, dec = wcs.all_pix2world(x, y, 0)
    # R_lambda of the first ones is 25 and 36 arcsec: no real system is as poor.
    table = Table({"RA": ra, "DEC": dec, "Z_LAMBDA": [0.75, 0.6, 0.3, 0.7]})
    table["LAMBDA"], table["LABELLED"] = [1e-5 * 2, 1e-4, 2e-4, 1e-5], [True, True, True, False]
    table.write(tmp_path / "c.fits")
    config = settings_of(
        make_config, one_tile, tmp_path / "c.fits", label="circle", richness_min=1e-5
    )
    data = run(config)
    cosmology = FlatLambdaCDM(70, 0.3)
    seen = []
    for datum, fresh in zip(data, fresh_cells(data, (150, 203)), strict=True):
        row, column = datum["meta"]["origin"]
        covers = np.zeros((4, 6, 6), bool)
        for k in range(4):
            radius = (table["LAMBDA"][k] / 100) ** 0.2 / 0.7 * units.Mpc
            angle = radius / cosmology.angular_diameter_distance(table["Z_LAMBDA"][k])
            centre = SkyCoord(ra[k], dec[k], unit="deg")
            for i, j in np.ndindex(6, 6):
                place = wcs.pixel_to_world(
                    column + (j + 0.5) * CELL - 0.5, row + (i + 0.5) * CELL - 0.5
                )
                covers[k, i, j] = place.separation(centre).rad <= angle.value or (
                    int((y[k] - row) // CELL) == i and int((x[k] - column) // CELL) == j
                )
        cells = {key: value[..., 0, 0].numpy() for key, value in datum["tile_catalog"].items()
                 if key != "n_sources"}  # fmt: skip
        np.testing.assert_array_equal(cells["n_members"], covers[:3].sum(axis=0))
        # From the richest to the poorest: the first that covers a cell is its system.
        z, richness, weight = np.zeros((6, 6)), np.zeros((6, 6)), np.ones((6, 6))
        weight[covers[3]] = 0.0
        for k in (0, 1, 2):
            z[covers[k]], richness[covers[k]] = table["Z_LAMBDA"][k], table["LAMBDA"][k]
            weight[covers[k]] = 1.0
        np.testing.assert_allclose(cells["cluster_redshift"], z, rtol=1e-6)
        np.testing.assert_allclose(cells["cluster_richness"], richness, rtol=1e-6)
        np.testing.assert_array_equal(cells["cell_weight"], weight * fresh[..., 0, 0].numpy())
        seen.append(covers)
    counts = np.stack(seen).sum(axis=1)
    assert 10 < (counts > 0).sum() < 150
    # Some cells have several systems, some only the one that does not count.
    assert (counts > 1).any()
    assert any((covers[3] & ~covers[:3].any(axis=0)).any() for covers in seen)


@pytest.mark.real_data
def test_real_exposures_with_real_members(
    composed: Callable[..., DictConfig], shared_data: Path, tmp_path: Path
) -> None:
    """Members of a real cluster, moved onto real exposures, label the cells of their pixels."""
    folder = shared_data / "images" / "decam"
    exposure = next(folder.glob("c4d_*_ooi_r_ls9.N26.fits"))
    wcs = WCS(fits.getheader(exposure, 1))
    table = Table.read(shared_data / "redmapper" / "test_cluster_members.fit")
    # The cluster is larger than the cut-out: its sky shrinks by ten around the most likely member.
    ra, dec = (np.asarray(table[name], float) for name in ("RA", "DEC"))
    first = int(np.argmax(table["PMEM"]))
    (centre_ra,), (centre_dec,) = wcs.all_pix2world([50.0], [50.0], 0)
    table["RA"] = centre_ra + (ra - ra[first]) * np.cos(np.radians(65)) / 10
    table["DEC"] = centre_dec + (dec - dec[first]) / 10
    table.write(tmp_path / "members.fit", format="fits")
    cfg = composed("datagen", "data_gen=tiles", "survey=decam_exposures")
    cfg.data_gen.update(tiles_dir=str(folder), data_dir=str(tmp_path / "tiles"))
    cfg.data_gen.update(reference=str(tmp_path / "members.fit"), reference_band="r")
    cfg.data_gen.update(image_size=96, tile_size=16)
    (datum,) = run(build_settings(cfg.data_gen, "data_gen"))
    x, y = wcs.all_world2pix(table["RA"], table["DEC"], 0)
    richness = {k: table["PMEM"][table["MEM_MATCH_ID"] == k].sum()
                for k in np.unique(table["MEM_MATCH_ID"])}  # fmt: skip
    is_rich = np.array([richness[k] >= 20 for k in table["MEM_MATCH_ID"]])
    sure = np.asarray(table["PMEM"]) >= 0.5
    doubtful = ~sure & (np.asarray(table["PMEM"]) >= 0.1) | sure & ~is_rich
    counts = np.zeros((2, 6, 6), int)
    for kind, chosen in enumerate((sure & is_rich, doubtful)):
        chosen = chosen & (table["MAG"][:, 2] < 25)
        row, column = np.floor((y + 0.5) / 16)[chosen], np.floor((x + 0.5) / 16)[chosen]
        for i, j in zip(row.astype(int), column.astype(int), strict=True):
            if 0 <= i < 6 and 0 <= j < 6:
                counts[kind, i, j] += 1
    assert counts[0].sum() > 10
    cells = datum["tile_catalog"]
    np.testing.assert_array_equal(cells["n_members"][..., 0, 0], counts[0])
    weight = np.where((counts[0] == 0) & (counts[1] > 0), 0.0, 1.0)
    np.testing.assert_array_equal(cells["cell_weight"][..., 0, 0], weight)
    # The r exposure is the reference and has no bad pixel; it comes as it is, at zero point 30.
    counts_per_s = fits.getdata(exposure, 1)[:96, :96] / 90.0
    np.testing.assert_allclose(datum["images"][1], counts_per_s * 10 ** (0.4 * 4.8), rtol=1e-5)
    assert datum["images"][0].isnan().sum() > 0
    assert datum["meta"]["prior"]["survey"] == "decam_exposures"
    there = WCS(fits.Header(datum["meta"]["wcs"])).all_world2pix(table["RA"], table["DEC"], 0)
    np.testing.assert_allclose(there, (x, y), atol=1e-6)
