"""The empirical prior: real clusters, resampled."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.fields import empirical
from datagen.fields.config import PriorConfig
from datagen.fields.cosmology import arcsec_per_mpc
from datagen.fields.galaxies import mstar, red_sequence
from datagen.fields.schema import CATALOG_COLUMNS
from datagen.fields.sky import SkyArea
from datagen.seeds import stream

Z = 0.3


def members_table(n: int = 60, seed: int = 0) -> Table:
    """Return candidates of one cluster with the columns of the real table."""
    rng = np.random.default_rng(seed)
    r_mpc = np.concatenate([[0.0], rng.uniform(0.02, 0.8, n - 1)])
    angle = rng.uniform(0, 2 * np.pi, n)
    arcsec = r_mpc * arcsec_per_mpc(Z)
    ra, dec = 100.0 - arcsec * np.cos(angle) / 3600.0, arcsec * np.sin(angle) / 3600.0
    mag_i = mstar(Z) + rng.uniform(-1.0, 1.5, n)
    gr, ri, iz = red_sequence(Z)
    ugriz = np.column_stack([mag_i + 4, mag_i + ri + gr, mag_i + ri, mag_i, mag_i - iz])
    return Table(
        {
            "MEM_MATCH_ID": np.full(n, 7),
            "RA": ra,
            "DEC": dec,
            "R": r_mpc * 0.7,
            "PMEM": np.concatenate([[1.0], rng.uniform(0.2, 1.0, n - 1)]),
            "Z": np.full(n, Z),
            "MAG": ugriz,
        }
    )


def write(table: Table, path: Path) -> str:
    """Write a table as FITS and return its path."""
    table.write(path, overwrite=True)
    return str(path)


def with_file(prior: PriorConfig, path: str, **changes: object) -> PriorConfig:
    """Return the prior made empirical."""
    config = dataclasses.replace(prior.empirical, members_file=path, **changes)
    return dataclasses.replace(prior, kind="empirical", empirical=config, cluster_fraction=1.0)


@pytest.fixture
def prior(prior_config: PriorConfig, tmp_path: Path) -> PriorConfig:
    return with_file(prior_config, write(members_table(), tmp_path / "members.fit"))


def test_candidates_enter_with_their_probability(prior: PriorConfig) -> None:
    cluster = empirical.load_clusters(prior.empirical)[0]
    rng = np.random.default_rng(1)
    share = np.mean([empirical.realise(cluster, rng)[0] for _ in range(2000)], axis=0)
    assert np.abs(share - cluster.probability).max() < 0.06
    assert share.sum() == pytest.approx(cluster.richness, rel=0.02)


def test_clusters_are_turned_and_mirrored_but_never_rescaled(prior: PriorConfig) -> None:
    cluster = empirical.load_clusters(prior.empirical)[0]
    rng = np.random.default_rng(2)
    radius = np.hypot(*cluster.offset_arcsec.T)
    signs = set()
    for _ in range(20):
        turned = empirical.realise(cluster, rng)[1]
        assert np.allclose(np.hypot(*turned.T), radius)
        before = np.linalg.det(cluster.offset_arcsec[1:3])
        signs.add(float(np.sign(np.linalg.det(turned[1:3]) / before)))
    assert signs == {-1.0, 1.0}


def test_offsets_agree_with_the_radius_column(prior: PriorConfig) -> None:
    cluster = empirical.load_clusters(prior.empirical)[0]
    radius = np.hypot(*cluster.offset_arcsec.T) / arcsec_per_mpc(Z)
    assert radius == pytest.approx(members_table()["R"] / 0.7, abs=1e-4)


def test_members_keep_their_magnitudes_and_make_labels(prior: PriorConfig, area: SkyArea) -> None:
    prior = dataclasses.replace(prior, centre_margin_px=0.0)
    sources, truth = empirical.draw_sky(prior, area, partial(stream, 1, 0))
    cluster = empirical.load_clusters(prior.empirical)[0]
    assert tuple(sources.colnames) == CATALOG_COLUMNS
    assert truth["LABELLED"].tolist()[0]
    assert truth["RICHNESS"][0] == pytest.approx(cluster.richness)
    assert truth["Z"][0] == pytest.approx(Z)
    own = sources[sources["CLUSTER_ID"] == 0]
    assert (own["MEM"] == 1).any()
    assert np.isin(np.round(own["MAG_I"], 6), np.round(cluster.mags[:, 2], 6)).all()
    assert (own["IS_RED"] == 1).all()
    assert (own["HLR"] > 0.0).all()
    assert (sources["MEM"][sources["CLUSTER_ID"] != 0] == 0).all()


def test_number_of_clusters_follows_the_prior(prior: PriorConfig, area: SkyArea) -> None:
    none = dataclasses.replace(prior, cluster_fraction=0.0)
    _, truth = empirical.draw_sky(none, area, partial(stream, 2, 0))
    assert not truth["LABELLED"].any()
    natural = dataclasses.replace(prior, cluster_fraction=None, abundance_deg2=2000.0)
    _, truth = empirical.draw_sky(natural, area, partial(stream, 2, 0))
    assert truth["LABELLED"].sum() > 1
    assert (truth["Z"][truth["LABELLED"]] == Z).all()


def test_same_streams_give_the_same_sky(prior: PriorConfig, area: SkyArea) -> None:
    one, _ = empirical.draw_sky(prior, area, partial(stream, 3, 0))
    two, _ = empirical.draw_sky(prior, area, partial(stream, 3, 0))
    assert all(np.array_equal(one[name], two[name]) for name in one.colnames)


def test_positions_file_sets_centre_and_redshift(prior: PriorConfig, tmp_path: Path) -> None:
    positions = Table({"RA": [10.0, 100.01], "DEC": [0.0, 0.0], "Z": [0.5, 0.31]})
    path = write(positions, tmp_path / "positions.fit")
    config = dataclasses.replace(prior.empirical, positions_file=path)
    cluster = empirical.load_clusters(config)[0]
    assert cluster.z == pytest.approx(0.31)
    # the central galaxy lies 36 arcsec to the west of the given centre
    assert cluster.offset_arcsec[0] == pytest.approx([36.0, 0.0], abs=0.01)


@pytest.mark.parametrize("has_redshift", [True, False])
def test_field_catalogue_is_resampled(
    prior: PriorConfig, area: SkyArea, tmp_path: Path, has_redshift: bool
) -> None:
    rng = np.random.default_rng(4)
    table = Table({f"MAG_{b}": rng.uniform(20, 24, 300) for b in "GRIZ"})
    table["Z"] = rng.uniform(0.1, 1.0, 300)
    table.write(tmp_path / "field.csv")
    config = dataclasses.replace(
        prior.empirical,
        field_file=str(tmp_path / "field.csv"),
        field_area_arcmin2=15.0,
        field_columns={"z": "Z"} if has_redshift else {},
    )
    given = dataclasses.replace(prior, empirical=config)
    field = empirical.draw_field(given, area, rng)
    density = area.is_inside(field.xy).sum() / area.box_arcmin2(0.0)
    assert density == pytest.approx(20.0, rel=0.2)
    assert area.distance_px(field.xy).max() < area.margin_px
    assert np.isin(field.mags[:, 2], np.asarray(table["MAG_I"])).all()
    assert np.isin(field.z, np.asarray(table["Z"])).all() == has_redshift


def test_separate_magnitude_columns(prior_config: PriorConfig, tmp_path: Path) -> None:
    table = members_table()
    for k, band in enumerate("ugriz"):
        table[f"MAG_{band}"] = table["MAG"][:, k]
    table.remove_column("MAG")
    table.write(tmp_path / "members.ecsv")
    columns = {b: f"MAG_{b}" for b in "griz"}
    prior = with_file(prior_config, str(tmp_path / "members.ecsv"), magnitudes=columns)
    assert empirical.load_clusters(prior.empirical)[0].mags.shape == (60, 4)


def test_missing_file(prior: PriorConfig) -> None:
    config = dataclasses.replace(prior.empirical, members_file="absent.fit")
    with pytest.raises(
        DataNotFoundError, match=r"expected a catalogue, but got no file absent.fit"
    ):
        empirical.load_clusters(config)


def test_missing_column_names_it_and_those_found(prior: PriorConfig) -> None:
    columns = {**prior.empirical.columns, "p": "P_MEMBER"}
    config = dataclasses.replace(prior.empirical, columns=columns)
    with pytest.raises(
        DataFormatError, match=r"expected column P_MEMBER .* columns MEM_MATCH_ID, RA"
    ):
        empirical.load_clusters(config)


@pytest.mark.parametrize(
    ("spec", "message"),
    [("MAG", "with 5 elements per row"), ("MAG[5]", "5 elements"), ("RA[0]", "one number")],
)
def test_wrong_shape_of_a_column(prior: PriorConfig, spec: str, message: str) -> None:
    config = dataclasses.replace(
        prior.empirical, magnitudes={**prior.empirical.magnitudes, "g": spec}
    )
    with pytest.raises(DataFormatError, match=message):
        empirical.load_clusters(config)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RA", np.nan, "expected finite values of RA .* row 3"),
        ("PMEM", 1.5, r"expected probabilities in \[0, 1\] in column PMEM .* got 1.5 in row 3"),
    ],
)
def test_bad_values(
    prior_config: PriorConfig, tmp_path: Path, name: str, value: float, message: str
) -> None:
    table = members_table()
    table[name][3] = value
    prior = with_file(prior_config, write(table, tmp_path / "bad.fit"))
    with pytest.raises(DataFormatError, match=message):
        empirical.load_clusters(prior.empirical)


def test_text_column(prior_config: PriorConfig, tmp_path: Path) -> None:
    table = members_table()
    table["Z"] = ["near"] * len(table)
    prior = with_file(prior_config, write(table, tmp_path / "text.fit"))
    with pytest.raises(DataFormatError, match="expected numbers in column Z"):
        empirical.load_clusters(prior.empirical)


def test_files_that_are_no_catalogue(prior: PriorConfig, tmp_path: Path) -> None:
    garbage, image = tmp_path / "garbage.fit", tmp_path / "image.fits"
    garbage.write_bytes(b"not a table" * 100)
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(image)
    other = tmp_path / "members.parquet"
    other.write_bytes(b"")
    empty = tmp_path / "empty.fit"
    members_table()[:0].write(empty)
    for path, message in (
        (garbage, "readable fits table"),
        (image, "no table extension"),
        (other, "suffix = .parquet"),
        (empty, "empty table"),
    ):
        config = dataclasses.replace(prior.empirical, members_file=str(path))
        with pytest.raises(DataFormatError, match=message):
            empirical.load_clusters(config)


def test_no_cluster_inside_the_label_prior(prior: PriorConfig, area: SkyArea) -> None:
    rich = dataclasses.replace(prior, richness_range=[100.0, 150.0])
    with pytest.raises(ConfigError, match=r"cluster with richness in \[100.0, 150.0\].*z = 0.300"):
        empirical.draw_sky(rich, area, partial(stream, 5, 0))


@pytest.mark.real_data
@pytest.mark.parametrize("use_positions", [False, True])
def test_real_redmapper_cluster(
    prior_config: PriorConfig, area: SkyArea, shared_data: Path, use_positions: bool
) -> None:
    folder = shared_data / "redmapper"
    path = str(folder / "test_cluster_members.fit")
    positions = str(folder / "test_cluster_pos.fit") if use_positions else None
    prior = with_file(prior_config, path, positions_file=positions)
    prior = dataclasses.replace(prior, centre_margin_px=0.0)
    cluster = empirical.load_clusters(prior.empirical)[0]
    assert len(cluster.probability) == 513
    assert cluster.richness == pytest.approx(24.26, abs=0.01)
    assert cluster.z == pytest.approx(0.2279, abs=1e-4)
    radius = np.hypot(*cluster.offset_arcsec.T) / arcsec_per_mpc(cluster.z)
    listed = np.asarray(Table.read(path, hdu=1)["R"], float) / 0.7
    assert radius == pytest.approx(listed, abs=1e-3)
    is_red = empirical.on_red_sequence(cluster.mags, np.full(513, cluster.z))
    assert cluster.probability[is_red].sum() > 0.6 * cluster.richness
    counts = []
    for k in range(20):
        sources, truth = empirical.draw_sky(prior, area, partial(stream, 6, k))
        assert truth["RICHNESS"][0] == pytest.approx(24.26, abs=0.01)
        counts.append((sources["CLUSTER_ID"] == 0).sum())
    assert 5 < np.mean(counts) < 25
