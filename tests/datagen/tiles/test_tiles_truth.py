"""Labels of simulated survey tiles are those of their simulator, read from its truth or a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.table import Table, vstack

from datagen.fields.datum import CellRules, cell_catalog, redshift_map
from datagen.fields.format import read_catalog, read_clusters
from datagen.tiles import labels
from tests.datagen.tiles.labelling import CELL, IMAGE, Datum, MakeConfig, fresh_cells, run


def truth_of(datum: Datum, folder: Path) -> tuple[Table, Table]:
    """Sources with pixels on an image, and clusters."""
    tile, (row, column) = datum["meta"]["tile"], datum["meta"]["origin"]
    sources = read_catalog(folder / tile / f"{tile}_sources.dat")
    sources["X"], sources["Y"] = sources["X"] - column, sources["Y"] - row
    return sources, read_clusters(folder / "truth_clusters.ecsv")


def test_labels_and_pixels_are_those_of_the_simulator(
    simulated: Path, make_config: MakeConfig
) -> None:
    data = run(make_config(simulated))
    assert [tuple(d["meta"]["origin"]) for d in data[:4]] == [(0, 0), (0, 96), (0, 112), (96, 0)]
    assert sum(int(d["tile_catalog"]["membership"].sum()) for d in data) > 5
    rules = CellRules(CELL, ("r", "i"), "i", 100.0)
    for datum, fresh in zip(data, fresh_cells(data), strict=True):
        sources, clusters = truth_of(datum, simulated)
        systems = labels._completed(clusters["CLUSTER_ID", "Z", "RICHNESS"], sources)
        for key, value in cell_catalog(sources, (IMAGE, IMAGE), rules, systems).items():
            wanted = value * fresh if key == "cell_weight" else value
            assert torch.equal(datum["tile_catalog"][key], wanted), key
        redshifts = redshift_map(sources, (IMAGE, IMAGE), "i", 604.0)
        assert torch.equal(datum["redshift_map"], redshifts)
        tile, (row, column) = datum["meta"]["tile"], datum["meta"]["origin"]
        for image, band in zip(datum["images"], "ri", strict=True):
            whole = fits.getdata(simulated / tile / f"{tile}_r0000p00_{band}_nobkg.fits")
            np.testing.assert_array_equal(image, whole[row : row + IMAGE, column : column + IMAGE])


def test_cells_tell_redshift_and_richness_of_the_brightest_members_system(
    simulated: Path, make_config: MakeConfig
) -> None:
    n_told = 0
    for datum in run(make_config(simulated)):
        sources, clusters = truth_of(datum, simulated)
        cells = datum["tile_catalog"]
        for i, j in np.ndindex(6, 6):
            inside = (np.floor((sources["Y"] + 0.5) / CELL) == i) & (
                np.floor((sources["X"] + 0.5) / CELL) == j
            )
            members = sources[inside & (sources["MEM"] == 1) & (sources["FLUX_I"] >= 100)]
            z, richness = 0.0, 0.0
            if len(members):
                brightest = members[np.argmax(members["FLUX_I"])]
                system = clusters[clusters["CLUSTER_ID"] == brightest["CLUSTER_ID"]]
                z, richness = brightest["Z"], system["RICHNESS"].sum()
                n_told += len(system)
            assert float(cells["cluster_redshift"][i, j]) == pytest.approx(z)
            assert float(cells["cluster_richness"][i, j]) == pytest.approx(richness)
    assert n_told >= 5


def as_redmapper(folder: Path, path: Path) -> tuple[Path, Path]:
    """Write the truth in the columns of redMaPPer: sure members, with sky positions only."""
    tables = []
    for tile in sorted(folder.glob("DES*")):
        table = read_catalog(tile / f"{tile.name}_sources.dat")
        tables.append(table[(table["MEM"] == 1) | (table["LABEL_WEIGHT"] == 0)])
    rows = vstack(tables, metadata_conflicts="silent")
    # A galaxy in the overlap of tiles is one row.
    sky = np.round(np.stack([rows["RA"], rows["DEC"]]), 7)
    rows = rows[np.sort(np.unique(sky, axis=1, return_index=True)[1])]
    mags = np.full((len(rows), 5), 99.0)
    mags[:, 2], mags[:, 3] = (30 - 2.5 * np.log10(rows[f"FLUX_{b}"]) for b in "RI")
    members = Table({"MEM_MATCH_ID": rows["CLUSTER_ID"], "RA": rows["RA"], "DEC": rows["DEC"]})
    members["P"], members["MAG"] = np.ones(len(rows)), mags
    members.write(path / "members.fit", format="fits")
    ids, first = np.unique(rows["CLUSTER_ID"], return_index=True)
    clusters = Table({"MEM_MATCH_ID": ids, "Z_LAMBDA": rows["Z"][first]})
    clusters["RA"], clusters["DEC"] = rows["RA"][first], rows["DEC"][first]
    # Those that are to be ignored are poor systems.
    clusters["LAMBDA_CHISQ"] = np.where(rows["MEM"][first] == 1, 30.0, 15.0)
    clusters.write(path / "clusters.fit", format="fits")
    return path / "members.fit", path / "clusters.fit"


def test_a_members_table_labels_like_the_truth_that_it_repeats(
    simulated: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    members, clusters = as_redmapper(simulated, tmp_path)
    paths = {"reference": str(members), "clusters": str(clusters)}
    truth = run(make_config(simulated))
    ranges = {"richness_min": 20.0, "redshift_range": [0.5, 0.8]}
    data = run(make_config(simulated, data_dir=str(tmp_path / "redmapper"), **paths, **ranges))
    keys = ("membership", "n_members", "cell_weight", "cluster_redshift")
    for found, wanted in zip(data, truth, strict=True):
        for key in keys:
            torch.testing.assert_close(
                found["tile_catalog"][key], wanted["tile_catalog"][key], msg=key
            )
    # The ignored cells are those of the truth as well.
    weights = torch.stack([d["tile_catalog"]["cell_weight"] for d in truth])
    fresh = torch.stack(fresh_cells(truth))
    assert bool(((weights == 0) & (fresh == 1)).any())


def test_ranges_hold_for_the_truth_as_well(
    simulated: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    truth = run(make_config(simulated))
    data = run(make_config(simulated, redshift_range=[0.1, 0.2], data_dir=str(tmp_path / "low")))
    for found, wanted in zip(data, truth, strict=True):
        cells, member = found["tile_catalog"], wanted["tile_catalog"]["membership"]
        assert not cells["membership"].any()
        assert not cells["cell_weight"][member].any()
        others = wanted["tile_catalog"]["cell_weight"][~member]
        assert torch.equal(cells["cell_weight"][~member], others)
