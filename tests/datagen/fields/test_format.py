from __future__ import annotations

import io
import pickle
import tomllib
from collections.abc import Callable
from pathlib import Path

import galsim
import numpy as np
import pandas as pd
import pytest
import torch
from astropy.io import fits
from astropy.table import Table

from datagen.errors import DataFormatError, DataNotFoundError
from datagen.fields.dummy import write_dummy_file_data
from datagen.fields.format import (
    CATALOG_COLUMNS,
    CLUSTER_COLUMNS,
    RiceCompression,
    catalog_path,
    check_file_data,
    file_data_path,
    image_path,
    read_catalog,
    read_clusters,
    read_file_data,
    read_header,
    read_image,
    write_catalog,
    write_clusters,
    write_file_data,
    write_image,
)
from datagen.version import VERSION

MakeSources = Callable[..., Table]
META = {"seed": 3, "index": 7, "ra_deg": 30.123456789012345}


@pytest.fixture
def sources(make_sources: MakeSources) -> Table:
    rng = np.random.default_rng(0)
    return make_sources(
        rng.uniform(0, 100, 5), rng.uniform(0, 100, 5), RA=rng.uniform(0, 360, 5), MEM=1
    )


@pytest.fixture
def clusters() -> Table:
    table = Table({name: np.array([1.5, 2.5]) for name in CLUSTER_COLUMNS})
    table["CLUSTER_ID"], table["LABELLED"] = [0, 1], [True, False]
    return table


def test_version_is_that_of_the_package(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


def test_names() -> None:
    assert catalog_path(Path("a"), 3) == Path("a/catalogs/field_000003.dat")
    assert image_path(Path("a"), 12, "g") == Path("a/images/field_000012_g.fits")
    assert file_data_path(Path("a"), 4, 8) == Path("a/file_data/file_data_4_size_8.pt")


def test_catalog_round_trip(sources: Table, tmp_path: Path) -> None:
    write_catalog(tmp_path / "a.dat", sources, META)
    table = read_catalog(tmp_path / "a.dat")
    assert tuple(table.colnames) == CATALOG_COLUMNS
    assert float(table.meta["ra_deg"]) == META["ra_deg"]
    for name in ("X", "Y", "RA"):
        assert np.abs(table[name] - sources[name]).max() < 1e-5
    assert table["MEM"].dtype == np.int64
    assert np.isnan(table["SERSIC_N"]).all()


def test_catalog_is_readable_by_astropy_pandas_and_galsim(sources: Table, tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    write_catalog(path, sources, META)
    by_astropy = Table.read(path, format="ascii.commented_header")
    assert tuple(by_astropy.colnames) == CATALOG_COLUMNS
    assert np.allclose(by_astropy["X"], sources["X"], atol=1e-5)
    by_pandas = pd.read_csv(path, sep=r"\s+", comment="#", names=CATALOG_COLUMNS)
    assert np.allclose(by_pandas["Y"], sources["Y"], atol=1e-5)
    by_galsim = galsim.Catalog(str(path))
    assert by_galsim.getFloat(2, CATALOG_COLUMNS.index("X")) == pytest.approx(sources["X"][2])


def test_empty_catalog(make_sources: MakeSources, tmp_path: Path) -> None:
    write_catalog(tmp_path / "a.dat", make_sources([], []), META)
    table = read_catalog(tmp_path / "a.dat")
    assert len(table) == 0
    assert tuple(table.colnames) == CATALOG_COLUMNS


def test_bad_catalogs(sources: Table, tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    with pytest.raises(DataNotFoundError, match=r"a\.dat does not exist; make it with: python"):
        read_catalog(path)
    path.touch()
    with pytest.raises(DataFormatError, match=r"a\.dat is empty; make it again with"):
        read_catalog(path)
    write_catalog(path, sources, META)
    text = path.read_text()
    path.write_text(text.replace("HLR", "SIZE", 1))
    with pytest.raises(DataFormatError, match=r"a\.dat, HLR: the source catalog has no column HLR"):
        read_catalog(path)
    path.write_text(text[: len(text) - 30])
    with pytest.raises(DataFormatError, match=r"cannot read source catalog .*a\.dat"):
        read_catalog(path)
    path.write_text(text.replace("0.5", "nan", 1))
    with pytest.raises(DataFormatError, match=r"a\.dat, \w+: expected finite values, but row 0"):
        read_catalog(path)
    sources["FLUX_I"][3] = np.inf
    with pytest.raises(DataFormatError, match="FLUX_I: expected finite values, but row 3 has inf"):
        write_catalog(path, sources, META)


def test_negative_sizes_and_words_in_catalogs(sources: Table, tmp_path: Path) -> None:
    sources["HLR"][1] = -1.0
    with pytest.raises(DataFormatError, match="HLR: expected sizes >= 0 arcsec, but row 1 has -1"):
        write_catalog(tmp_path / "a.dat", sources, META)
    sources["HLR"] = np.full(5, "small")
    with pytest.raises(DataFormatError, match="HLR: expected numbers, but got <U5"):
        write_catalog(tmp_path / "a.dat", sources, META)


def test_clusters_round_trip_with_further_columns(clusters: Table, tmp_path: Path) -> None:
    clusters["TILE"] = ["A", "B"]
    write_clusters(tmp_path / "a.ecsv", clusters, META)
    table = read_clusters(tmp_path / "a.ecsv")
    assert table.colnames == [*CLUSTER_COLUMNS, "TILE"]
    assert table.meta["index"] == 7
    assert list(table["LABELLED"]) == [True, False]


def test_bad_cluster_tables(clusters: Table, tmp_path: Path) -> None:
    del clusters["RICHNESS"]
    clusters.write(tmp_path / "a.ecsv", format="ascii.ecsv")
    with pytest.raises(DataFormatError, match="RICHNESS: the cluster table has no column RICHNESS"):
        read_clusters(tmp_path / "a.ecsv")
    (tmp_path / "b.ecsv").write_text("not a table")
    with pytest.raises(DataFormatError, match=r"cannot read cluster table .*b\.ecsv"):
        read_clusters(tmp_path / "b.ecsv")


def test_plain_images_keep_every_bit(tmp_path: Path) -> None:
    image = np.random.default_rng(0).standard_normal((20, 30), dtype=np.float32)
    write_image(tmp_path / "a.fits", image, {"BAND": ("g", "band"), "ZP": 30.0})
    back, header = read_image(tmp_path / "a.fits")
    assert np.array_equal(back, image)
    assert (header["BAND"], header["ZP"]) == ("g", 30.0)
    assert back.dtype.isnative
    assert read_header(tmp_path / "a.fits")["NAXIS1"] == 30


@pytest.mark.parametrize("shape", [(1, 300), (100, 100)])
def test_compressed_images_are_close_repeat_and_carry_no_date(
    shape: tuple[int, int], tmp_path: Path
) -> None:
    image = 3 * np.random.default_rng(0).standard_normal((200, 300), dtype=np.float32)
    compression = RiceCompression(16.0, shape, 77)
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.fits.fz", image, {"BAND": "g"}, compression)
    assert (tmp_path / "a.fits.fz").read_bytes() == (tmp_path / "b.fits.fz").read_bytes()
    back, header = read_image(tmp_path / "a.fits.fz")
    assert np.abs(back - image).max() < 3 / 16
    assert header["BAND"] == "g"
    with fits.open(tmp_path / "a.fits.fz", disable_image_compression=True) as hdus:
        table = hdus[1].header
        assert (table["ZCMPTYPE"], table["ZTILE1"], table["ZDITHER0"]) == ("RICE_1", shape[1], 77)
        assert not {"CHECKSUM", "DATASUM", "DATE"} & set(table)


def test_bad_images(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    with pytest.raises(DataNotFoundError, match=r"a\.fits does not exist; make it with: python"):
        read_image(path)
    path.touch()
    with pytest.raises(DataFormatError, match=r"a\.fits is empty"):
        read_image(path)
    path.write_text("no image" * 1000)
    with pytest.raises(DataFormatError, match=r"cannot read FITS image .*a\.fits: "):
        read_image(path)
    fits.PrimaryHDU().writeto(path, overwrite=True)
    with pytest.raises(DataFormatError, match="it holds no two-dimensional image"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.fits", "a.fits.fz"])
def test_truncated_images(name: str, tmp_path: Path) -> None:
    image = np.random.default_rng(0).standard_normal((200, 300), dtype=np.float32)
    compression = RiceCompression(16.0, (1, 300), 1) if name.endswith("fz") else None
    write_image(tmp_path / name, image, {"BAND": "g"}, compression)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataFormatError, match=rf"cannot read FITS image .*{name}: "):
        read_image(tmp_path / name)


def test_file_data_is_memory_mapped_and_valid(tmp_path: Path) -> None:
    paths = write_dummy_file_data(tmp_path, 2, 64, 16, ["g", "r"], 5)
    for path in paths:
        check_file_data(read_file_data(path), path)
    again = write_dummy_file_data(tmp_path / "again", 2, 64, 16, ["g", "r"], 5)
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("executed"),)


def test_bad_file_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pt"
    with pytest.raises(DataNotFoundError, match=r"a\.pt does not exist.*phases=\[datum\]"):
        read_file_data(path)
    path.touch()
    with pytest.raises(DataFormatError, match=r"a\.pt is empty"):
        read_file_data(path)
    whole = write_dummy_file_data(tmp_path, 1, 64, 16, ["g"], 5)[0].read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataFormatError, match=r"cannot read file datum .*a\.pt"):
        read_file_data(path)
    torch.save({"images": 1}, path)
    with pytest.raises(DataFormatError, match="it holds a dict, not a list of fields"):
        read_file_data(path)
    buffer = io.BytesIO()
    torch.save([Malicious()], buffer, pickle_module=pickle)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(DataFormatError, match=r"cannot read file datum .*a\.pt"):
        read_file_data(path)
    assert not (tmp_path / "executed").exists()


def bad_datum(tmp_path: Path, change: Callable[[dict[str, object]], None]) -> str:
    path = write_dummy_file_data(tmp_path, 1, 64, 16, ["g", "r"], 5)[0]
    data = read_file_data(path)
    change(data[0])
    write_file_data(tmp_path / "bad.pt", data)
    with pytest.raises(DataFormatError) as error:
        check_file_data(read_file_data(tmp_path / "bad.pt"), tmp_path / "bad.pt")
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("images"), "[0].images: expected this key, but it is missing"),
        (
            lambda d: d["tile_catalog"].pop("locs"),
            "[0].tile_catalog.locs: expected this key, but it is missing",
        ),
        (
            lambda d: d["tile_catalog"].update(redshift=torch.zeros(4, 4)),
            "[0].tile_catalog.redshift: expected float32 (4, 4, 1, 1), but got float32 (4, 4)",
        ),
        (
            lambda d: d["tile_catalog"].update(membership=torch.zeros(4, 4, 1, 1)),
            "[0].tile_catalog.membership: expected bool (4, 4, 1, 1), but got float32",
        ),
        (lambda d: d["tile_catalog"]["locs"].fill_(1.0), "locs: expected fractions in [0, 1)"),
        (lambda d: d["images"].fill_(torch.nan), "[0].images: expected finite values"),
        (lambda d: d.update(images=torch.zeros(3, 64, 64)), "[0].images: expected shape (2, H, W)"),
        (lambda d: d["meta"].pop("seed"), "[0].meta.seed: expected int, but got None"),
        (lambda d: d["meta"].update(format_version=99), "format_version: expected 3, but got 99"),
        (lambda d: d["meta"].update(cell_px=0), "[0].meta.cell_px: expected > 0, but got 0"),
        (lambda d: d["meta"]["psf_fwhm"].pop(), "psf_fwhm: expected 2 values, but got 1"),
        (lambda d: d.update(meta=None), "[0].meta: expected a mapping, but got NoneType"),
        (lambda d: d.update(tile_catalog=None), "[0].tile_catalog: expected a mapping, but got"),
        (
            lambda d: d["tile_catalog"]["cell_weight"].fill_(-3.0),
            "[0].tile_catalog.cell_weight: expected weights in [0, 1]",
        ),
        (
            lambda d: d["tile_catalog"]["membership"].fill_(True),
            "[0].tile_catalog.membership: expected True where n_members > 0",
        ),
        (
            lambda d: d["tile_catalog"]["cluster_redshift"].fill_(0.3),
            "[0].tile_catalog.cluster_redshift: expected >= 0, and 0 where there is no member",
        ),
        (
            lambda d: d["tile_catalog"]["cluster_richness"].neg_(),
            "[0].tile_catalog.cluster_richness: expected >= 0, and 0 where",
        ),
        (
            lambda d: d["meta"].update(reference_band="q"),
            "[0].meta.reference_band: expected one of ['g', 'r'], but got 'q'",
        ),
        (
            lambda d: d["meta"].update(noise_sigma=["a", "a"]),
            "[0].meta.noise_sigma: expected numbers > 0, but got ['a', 'a']",
        ),
        (lambda d: d["meta"].update(noise_sigma=[0.0, 0.0]), "noise_sigma: expected numbers > 0"),
        (lambda d: d["meta"].update(wcs={}), "[0].meta.wcs.CTYPE1: expected str, but got None"),
    ],
)
def test_the_message_names_file_and_key(
    change: Callable[[dict[str, object]], None], message: str, tmp_path: Path
) -> None:
    error = bad_datum(tmp_path, change)
    assert error.startswith(str(tmp_path / "bad.pt"))
    assert message in error


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(DataFormatError, match="expected at least one field, but got none"):
        check_file_data([], Path("a.pt"))
