"""Labels from tables and from the groups of a simulation, their units, and crops by labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM
from astropy.table import Table

from datagen import pipeline
from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.stamps import format as files
from datagen.stamps.catalogues import GroupCatalogue, write_catalogue
from datagen.stamps.labels import label_images
from datagen.stamps.names import Identity, Image, object_number
from datagen.stamps.settings import ColumnSettings, SuiteSettings
from tests.datagen.stamps.conftest import Configured
from tests.datagen.stamps.raw import label_columns, planes_of, sersic, write_image, write_labels

H, N_GROUPS, N_SUBHALOS = 0.6774, 5, 9
HEADER = {"Redshift": 0.3999, "Time": 1 / 1.3999, "HubbleParam": H, "BoxSize": 35000.0}


def tables(seed: int = 0) -> dict[str, dict[str, Any]]:
    """Return groups whose last one has no subhalo, in the code's units."""
    rng = np.random.default_rng(seed)
    return {
        "Group": {
            "Group_M_Crit200": rng.uniform(100, 1000, N_GROUPS).astype(np.float32),
            "Group_R_Crit200": rng.uniform(100, 300, N_GROUPS).astype(np.float32),
            "GroupFirstSub": np.array([0, 3, 5, 8, -1], np.int32),
        },
        "Subhalo": {
            "SubhaloMassType": rng.uniform(1, 10, (N_SUBHALOS, 6)).astype(np.float32),
            "SubhaloHalfmassRadType": rng.uniform(1, 5, (N_SUBHALOS, 6)).astype(np.float32),
            "SubhaloBHMass": rng.uniform(1e-3, 1e-2, N_SUBHALOS).astype(np.float32),
            "SubhaloBHMdot": rng.uniform(0, 1e-3, N_SUBHALOS).astype(np.float32),
            "SubhaloSFRinHalfRad": rng.uniform(0, 9, N_SUBHALOS).astype(np.float32),
            "SubhaloStellarPhotometrics": rng.uniform(-23, -18, (N_SUBHALOS, 8)).astype(np.float32),
            "SubhaloGrNr": np.array([0, 0, 0, 1, 1, 2, 2, 2, 3], np.int32),
        },
    }


def images_of(*objects: int, snapshot: int = 72) -> list[Image]:
    return [Image(Identity(snapshot, k, 0), f"{k}.fits", {}) for k in objects]


@pytest.mark.parametrize("n_chunks", [1, 3, 12])
def test_labels_of_tng_have_the_units_of_its_documentation(
    configured: Configured, tmp_path: Path, n_chunks: int
) -> None:
    content = tables()
    write_catalogue(tmp_path / "output", 72, content, HEADER, n_chunks)
    suite = configured("tng", folder=str(tmp_path)).suites["tng"]
    found = label_images(suite, images_of(7, 0, 8))
    sub, group, rows = content["Subhalo"], content["Group"], [7, 0, 8]
    host = sub["SubhaloGrNr"][rows]
    mass = np.log10(sub["SubhaloMassType"][rows, 4].astype(float) * 1e10 / H)
    assert found.labels["log_mass"] == pytest.approx(mass)
    size = sub["SubhaloHalfmassRadType"][rows, 4].astype(float) / 1.3999 / H
    assert found.labels["r_half"] == pytest.approx(size)
    accretion = sub["SubhaloBHMdot"][rows].astype(float) * 1e10 / 0.978
    assert found.labels["bh_accretion"] == pytest.approx(accretion)
    r200c = group["Group_R_Crit200"][host].astype(float) / 1.3999 / H
    assert found.labels["r200c"] == pytest.approx(r200c)
    assert found.labels["redshift"].tolist() == [0.3999] * 3
    assert [image.identity.object for image in found.images] == rows
    # There is no tenth subhalo.
    (drop,) = label_images(suite, images_of(9, 1)).drops
    assert (drop.kind, drop.reason) == ("no row", "Subhalo 9 of 9")


def test_groups_have_the_columns_of_their_first_subhalo(tmp_path: Path) -> None:
    content = tables()
    write_catalogue(tmp_path, 99, content, HEADER, 2)
    groups = GroupCatalogue(tmp_path, 99, "Group")
    assert len(groups) == N_GROUPS
    mass = groups.column("SubhaloMassType")
    assert np.array_equal(mass[:4], content["Subhalo"]["SubhaloMassType"][[0, 3, 5, 8]])
    assert np.isnan(mass[4]).all()
    with pytest.raises(DataFormatError, match="expected a column SubhaloSpin, but got GroupFirst"):
        groups.column("SubhaloSpin")


@pytest.mark.parametrize("n_chunks", [1, 3])
def test_catalogues_are_those_that_illustris_python_reads(tmp_path: Path, n_chunks: int) -> None:
    """Files of the writer, and columns of the reader, against the code of the simulation's team."""
    groupcat = pytest.importorskip("illustris_python").groupcat
    write_catalogue(tmp_path, 72, tables(), HEADER, n_chunks)
    for table, load in (("Group", groupcat.loadHalos), ("Subhalo", groupcat.loadSubhalos)):
        ours, names = GroupCatalogue(tmp_path, 72, table), list(tables()[table])
        theirs = load(str(tmp_path), 72, fields=names)
        assert theirs["count"] == len(ours)
        for name in names:
            assert np.array_equal(ours.column(name), theirs[name]), name


def test_catalogues_that_are_not_whole_are_named(configured: Configured, tmp_path: Path) -> None:
    write_catalogue(tmp_path / "output", 72, tables(), HEADER, 3)
    suite = configured("tng", folder=str(tmp_path)).suites["tng"]
    with pytest.raises(DataNotFoundError, match=r"groups_050 holds no fof_subhalo_tab_050\.\*"):
        label_images(suite, images_of(1, snapshot=50))
    with pytest.raises(ConfigError, match="to have the group snapshot"):
        label_images(suite, images_of(1, snapshot=-1))
    home = tmp_path / "output" / "groups_072"
    (home / "fof_subhalo_tab_072.1.hdf5").unlink()
    with pytest.raises(DataFormatError, match="expected 9 rows as in Header, but got 6 in 2 file"):
        label_images(suite, images_of(1))
    with h5py.File(home / "fof_subhalo_tab_072.0.hdf5", "a") as file:
        del file["Header"].attrs["HubbleParam"]
    with pytest.raises(DataFormatError, match="expected Header to have HubbleParam"):
        label_images(suite, images_of(1))
    (home / "fof_subhalo_tab_072.0.hdf5").write_text("x")
    with pytest.raises(DataFormatError, match=r"cannot read .*072\.0\.hdf5"):
        label_images(suite, images_of(1))


def with_columns(suite: SuiteSettings, **expressions: str) -> SuiteSettings:
    """Give a suite other labels; `size="r * 2;kpc"` has a unit."""
    suite.columns = {}
    for alias, text in expressions.items():
        expression, _, unit = text.partition(";")
        suite.columns[alias] = ColumnSettings(expression, unit, alias, None)
    return suite


@pytest.mark.parametrize("kind", ["fits", "ecsv", "csv"])
def test_tables_of_all_kinds_give_the_same_labels(
    configured: Configured, tmp_path: Path, kind: str
) -> None:
    table = Table({"name": ["NGC 1", "NGC 2", "7"], "size": [1.0, 2.0, 3.0], "n": [1, 2, 3]})
    if kind != "csv":
        table["size"].unit = "Mpc"
    table.write(tmp_path / f"t.{kind}", format="ascii.csv" if kind == "csv" else None)
    unit = "" if kind == "csv" else "kpc"
    suite = with_columns(
        configured(folder=str(tmp_path)).suites["a"], size=f"size;{unit}", twice="n * 2"
    )
    assert suite.labels is not None
    suite.labels.files, suite.labels.table = f"t.{kind}", None
    suite.labels.keys = {"object": "name"}
    found = label_images(suite, images_of(7, object_number("NGC 2"), 8))
    factor = 1.0 if kind == "csv" else 1e3
    assert found.labels["size"] == pytest.approx([3 * factor, 2 * factor])
    assert found.labels["twice"].tolist() == [6, 4]
    assert [(drop.file, drop.kind) for drop in found.drops] == [
        ("8.fits", "no row"),
        (f"object {object_number('NGC 1')}", "no image"),
    ]


def test_missing_values_are_nan_and_columns_have_to_fit(
    configured: Configured, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("id,x\n1,0.5\n2,\n3,\n")
    suite = with_columns(configured(folder=str(tmp_path)).suites["a"], x="x;kpc")
    assert suite.labels is not None
    suite.labels.files, suite.labels.keys = "t.csv", {"object": "id"}
    assert np.isnan(label_images(suite, images_of(1, 2)).labels["x"]).tolist() == [False, True]
    with pytest.raises(DataFormatError, match="expected a column y, but got id, x"):
        label_images(with_columns(suite, x="y"), images_of(1))
    table = Table({"id": [1], "x": [1.0], "v": [[1.0, 2.0]]})
    table["x"].unit = "Msun"
    table.write(tmp_path / "t.fits")
    suite.labels.files, suite.labels.table = "t.fits", None
    with pytest.raises(DataFormatError, match=r"a unit that is like kpc .* but got (solMass|Msun)"):
        label_images(with_columns(suite, x="x;kpc"), images_of(1))
    with pytest.raises(DataFormatError, match=r"one number per row, but got v of shape \(1, 2\)"):
        label_images(with_columns(suite, x="v"), images_of(1))


def test_crops_are_multiples_of_a_radius_at_its_redshift(
    configured: Configured, tmp_path: Path
) -> None:
    radii, redshift = np.array([300.0, 400.0, 0.0, 500.0, 2000.0]), 0.2
    for number in range(len(radii)):
        write_image(tmp_path / "images" / f"snap_099-{number}_0.fits", planes_of(0), PIXSCALE=10.0)
    columns = label_columns(len(radii), 1) | {"R200C": radii}
    columns["Z"] = np.array([redshift, redshift, redshift, 0.0, redshift])
    write_labels(tmp_path / "labels" / "labels_000000.fits", columns)
    changes = {"folder": str(tmp_path), "data_dir": str(tmp_path / "out")}
    pipeline.run(configured("groups", **changes, crop__factor=2.0))
    table = files.read_labels(tmp_path / "out" / "groups")
    angle = FlatLambdaCDM(70, 0.3).arcsec_per_kpc_proper(redshift).value
    assert table["OBJECT"].tolist() == [0, 1, 4]
    assert table["LIMITED"].tolist() == [0, 0, 1]
    wanted = np.round(2 * radii[:2] * angle / 10.0) * 10.0 / 16
    assert table["SCALE"][:2].tolist() == pytest.approx(wanted.tolist())
    assert table["SCALE"][2] == 32 * 10.0 / 16
    listed = Table.read(tmp_path / "out" / "groups" / "drops.ecsv", format="ascii.ecsv")
    assert listed["reason"].tolist() == [
        "a crop of zero size: r200c = 0",
        "r200c as an angle needs 0 < redshift <= 6, but got 0",
    ]


def test_petrosian_crops_follow_the_source(configured: Configured, tmp_path: Path) -> None:
    image = sersic(1, 3.0, 64, (33.2, 30.7))
    write_image(tmp_path / "images" / "snap_099-1_0.fits", dict.fromkeys("gri", image))
    write_image(tmp_path / "images" / "snap_099-2_0.fits", dict.fromkeys("gri", 0 * image))
    changes = {"crop__kind": "petrosian", "crop__factor": 4.0, "labels": None, "columns": {}}
    config = configured(folder=str(tmp_path), data_dir=str(tmp_path / "out"), **changes)
    pipeline.run(config)
    (row,) = files.read_labels(tmp_path / "out" / "a")
    # r90 of an exponential disc is 2.279 half-light radii.
    side = round(4 * row["R90"] / 0.3)
    assert row["R90"] == pytest.approx(2.279 * 3 * 0.3, rel=0.02)
    assert row["SCALE"] == pytest.approx(side * 0.3 / 16)
    flux = 10 ** (-0.4 * (row["PETRO_MAG"] - 25.0))
    assert flux == pytest.approx(image.sum(), rel=0.02)
    stamp = files.read_stamps(files.stamps_path(tmp_path / "out" / "a", 0))[0, 1]
    top, left = (int(np.floor(at - (side - 1) / 2 + 0.5)) for at in (33.2, 30.7))
    cut = image[top : top + side, left : left + side]
    assert stamp.sum() == pytest.approx(cut.sum() * 10 ** (-0.4 * 2.5), rel=1e-4)
    listed = Table.read(tmp_path / "out" / "a" / "drops.ecsv", format="ascii.ecsv")
    assert listed["kind"].tolist() == ["source"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reader": "pickle"}, "suites.a.reader to be one of fits, hdf5, npz"),
        ({"bands": {}}, "suites.a.bands to be band: address"),
        ({"pixel_scale": None}, "suites.a.pixel_scale to be a number or header keyword"),
        ({"pixel_scale": "os.system('x')"}, "suites.a.pixel_scale to be made of numbers"),
        ({"zero_point": {"g": 25.0}}, "suites.a.zero_point to be an entry for each of g, r, i"),
        ({"fraction": 0.0}, "suites.a.fraction > 0"),
        ({"crop__kind": "square"}, "suites.a.crop.kind to be one of fraction, petrosian, column"),
        ({"crop__factor": 1.5}, "suites.a.crop.factor to be <= 1 with kind = fraction"),
        ({"crop__factor": -1.0}, "suites.a.crop.factor > 0"),
        ({"crop__kind": "column"}, "suites.a.crop.column to be one of redshift, merger_time"),
        (
            {"crop__kind": "column", "crop__column": "sfr"},
            "suites.a.crop.column to be a length, an angle, or in pixel",
        ),
        ({"crop__band": "z"}, "suites.a.crop.band to be one of g, r, i"),
        ({"labels__kind": "groups"}, "suites.a.labels.table to be one of Subhalo, Group"),
        ({"labels__keys": {"snapshot": "S"}}, "suites.a.labels.keys to be keys with object"),
        ({"labels": None}, r"suites.a.columns to be {} without labels"),
        ({"name": "../b"}, "suite name to be letters, digits"),
    ],
)
def test_wrong_settings_are_named(
    configured: Configured, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(**changes)


@pytest.mark.parametrize(
    ("alias", "column", "message"),
    [
        ("Mass", ("M", "", None), "names of suites.a.columns to be small letters"),
        ("r50", ("M", "", None), "names of suites.a.columns to be small letters, .* none of"),
        ("mass", ("M", "parsnip", None), "columns.mass.unit to be a unit"),
        ("mass", ("M.x", "", None), "columns.mass.expression to be made of numbers"),
        ("mass", ("M", "", [2.0, 1.0]), "columns.mass.range to be .low, high."),
    ],
)
def test_wrong_columns_are_named(
    configured: Configured, alias: str, column: tuple[str, str, Any], message: str
) -> None:
    expression, unit, limits = column
    wrong = {alias: ColumnSettings(expression, unit, "", limits)}
    with pytest.raises(ConfigError, match=message):
        configured(columns=wrong)
