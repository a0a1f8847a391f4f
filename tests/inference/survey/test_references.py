from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.table import Table

from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from inference.survey.matching import cross_match, multiple_match
from inference.survey.references import read_reference


def truth() -> Table:
    return Table(
        {
            "CLUSTER_ID": [7, 8],
            "RA": [359.9, 0.1],
            "DEC": [-89.0, 3.0],
            "Z": [0.3, 0.4],
            "RICHNESS": [20.0, 44.0],
            "LABELLED": [True, False],
        }
    )


def test_truth_of_the_simulator(tmp_path: Path) -> None:
    truth().write(tmp_path / "truth.ecsv")
    clusters = read_reference(tmp_path / "truth.ecsv")
    assert clusters.ids.tolist() == ["7", "8"]
    assert clusters.labelled.tolist() == [True, False]
    assert clusters.richness.tolist() == clusters.sky.mass.tolist() == [20.0, 44.0]
    assert clusters.select(clusters.labelled).sky.redshift.tolist() == [0.3]


def test_any_table_through_a_column_map(tmp_path: Path) -> None:
    table = Table({"alpha": [1.0], "delta": [2.0], "zphot": [0.5]})
    with gzip.open(tmp_path / "c.csv.gz", "wt") as stream:
        table.write(stream, format="ascii.csv")
    columns = {"ra": "ALPHA", "dec": "delta", "redshift": "zphot", "richness": None}
    clusters = read_reference(tmp_path / "c.csv.gz", columns)
    assert (clusters.sky.ra[0], clusters.sky.dec[0], clusters.sky.redshift[0]) == (1.0, 2.0, 0.5)
    assert np.isnan(clusters.richness).all()
    assert clusters.labelled.all()


def test_bad_catalogues_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "truth.ecsv"
    with pytest.raises(DataNotFoundError, match=r"does not exist.*datagen/run\.py data_gen=survey"):
        read_reference(path)
    table = truth()
    table.remove_column("RA")
    table.write(path)
    with pytest.raises(DataFormatError, match=r"truth.ecsv has no column ra; it has CLUSTER_ID, D"):
        read_reference(path)
    with pytest.raises(DataFormatError, match=r"has no column X0; .*evaluate.columns.ra="):
        read_reference(path, {"ra": "X0"})
    with pytest.raises(ConfigError, match=r"map id, ra, dec, .* but got rra"):
        read_reference(path, {"rra": "RA"})
    (tmp_path / "c.fits").write_text("no fits")
    with pytest.raises(DataFormatError, match=r"c.fits cannot be read"):
        read_reference(tmp_path / "c.fits")
    (tmp_path / "c.txt").write_text("")
    with pytest.raises(DataFormatError, match=r"expected c.txt to end with .csv, .csv.gz"):
        read_reference(tmp_path / "c.txt")


@pytest.mark.real_data
def test_real_redmapper_catalogues(shared_data: Path) -> None:
    """Numbers of pairs between the two catalogues agree with astropy's search."""
    sdss = read_reference(shared_data / "clusters" / "sdss_redmapper.csv.gz")
    des = read_reference(shared_data / "clusters" / "desY1a1.csv.gz")
    assert (len(sdss), len(des)) == (26350, 6729)
    assert 19 < np.nanmin(sdss.richness) < np.nanmax(des.richness) < 300
    assert 0.05 < sdss.sky.redshift.min() < sdss.sky.redshift.max() < 1
    pairs = multiple_match(sdss.sky, des.sky, 2.0)
    a, b = (SkyCoord(c.sky.ra, c.sky.dec, unit="deg") for c in (sdss, des))
    first, second, separation, _ = b.search_around_sky(a, 2 * units.arcmin)
    order = np.lexsort((second, first))
    assert pairs.first.tolist() == first[order].tolist()
    assert pairs.second.tolist() == second[order].tolist()
    np.testing.assert_allclose(pairs.separation, separation.rad[order], atol=1e-12)
    partner = cross_match(sdss.sky, des.sky, pairs, "angular_proximity")
    matched = partner[partner >= 0]
    assert 50 < len(matched) == len(set(matched.tolist())) <= len(pairs.first)
    z = sdss.sky.redshift[partner >= 0] - des.sky.redshift[matched]
    assert np.median(np.abs(z)) < 0.02


@pytest.mark.real_data
def test_real_members_make_one_cluster(shared_data: Path) -> None:
    members = read_reference(shared_data / "redmapper" / "test_cluster_members.fit")
    centres = read_reference(shared_data / "redmapper" / "test_cluster_pos.fit")
    assert members.ids.tolist() == ["17551"]
    assert members.richness[0] == pytest.approx(24.3, abs=0.1)
    assert len(centres) == 3
    assert len(multiple_match(members.sky, centres.sky, 2.0).first) == 1


def test_rows_without_a_position_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = truth()
    table["RA"][0] = np.nan
    table.write(tmp_path / "truth.ecsv")
    with caplog.at_level("WARNING"):
        clusters = read_reference(tmp_path / "truth.ecsv")
    assert clusters.ids.tolist() == ["8"]
    assert "1 of 2 rows of" in caplog.text
