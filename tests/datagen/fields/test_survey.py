from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

from datagen import pipeline
from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.fields.format import read_catalog, read_clusters, read_image
from datagen.fields.render.components import components
from datagen.fields.survey import (
    patches_within,
    reach_deg,
    separation_deg,
    survey_tile,
    tile_name,
    tile_sky,
)
from datagen.fields.survey_config import SurveyConfig
from datagen.fields.survey_jobs import (
    make_tile_images,
    make_truth,
    sources_path,
    tile_image_path,
)
from datagen.fields.validate import validate_folder
from datagen.fields.wcs import pixel_to_sky, sky_to_pixel


def hashes(folder: str) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).glob("DES*/*"))
    }


@pytest.mark.parametrize(
    ("ra", "dec", "has_seconds", "name"),
    [
        (30.0, -30.0, False, "DES0200-3000"),
        (0.0, 0.0, False, "DES0000+0000"),
        (359.99, 12.9999, False, "DES2359+1259"),
        (15.0 * (5 + 6 / 60 + 7.5 / 3600), -0.5, True, "DES050607-003000"),
    ],
)
def test_names(ra: float, dec: float, has_seconds: bool, name: str) -> None:
    assert tile_name(ra, dec, has_seconds=has_seconds) == name


@pytest.mark.parametrize("size", [64, 500, 2560, 10_000])
def test_every_tile_has_its_own_name(size: int, survey_config: SurveyConfig) -> None:
    config = dataclasses.replace(survey_config, image_size=size, overlap=size // 10, n_columns=5)
    names = [survey_tile(config, index).name for index in range(40)]
    assert len(set(names)) == 40
    assert all(len(name) == (12 if size == 10_000 else 16) for name in names)


def test_neighbours_overlap_by_the_configured_pixels(survey_config: SurveyConfig) -> None:
    config = dataclasses.replace(survey_config, image_size=1000, overlap=100, n_columns=2)
    left, right, above = (survey_tile(config, index) for index in (0, 1, 2))
    x, _ = sky_to_pixel(left.wcs, right.ra_deg, right.dec_deg)
    assert 499.5 - x[0] == pytest.approx(900, abs=1.0)
    _, y = sky_to_pixel(left.wcs, above.ra_deg, above.dec_deg)
    assert abs(y[0] - 499.5) == pytest.approx(900, abs=1.0)


@given(
    ra=st.floats(0, 359.99),
    dec=st.floats(-80, 80),
    radius=st.floats(0.05, 1.5),
    angle=st.floats(0, 2 * np.pi),
    distance=st.floats(0, 1),
)
def test_patches_cover_every_point_of_a_circle_once(
    ra: float, dec: float, radius: float, angle: float, distance: float
) -> None:
    offset = np.deg2rad(distance * radius)
    sin_dec = np.sin(np.deg2rad(dec)) * np.cos(offset)
    sin_dec += np.cos(np.deg2rad(dec)) * np.sin(offset) * np.cos(angle)
    point_dec = np.rad2deg(np.arcsin(sin_dec))
    cos_dec = np.cos(np.deg2rad(point_dec))
    east = np.arcsin(np.clip(np.sin(angle) * np.sin(offset) / cos_dec, -1, 1))
    point = np.array([(ra + np.rad2deg(east)) % 360.0]), np.array([point_dec])
    patches = list(patches_within(ra, dec, radius * 1.001, 0.25))
    assert sum(int(patch.contains(*point)[0]) for patch in patches) == 1
    assert len({patch.index for patch in patches}) == len(patches)


def test_a_patch_is_covered_by_its_pixels(survey_config: SurveyConfig) -> None:
    for dec in (-75.0, 0.0, 40.0):
        for patch in patches_within(10.0, dec, 0.1, 0.25):
            area = patch.area(survey_config)
            ra = np.linspace(*patch.ra_range, 21)
            for edge in patch.dec_range:
                x, y = sky_to_pixel(area.wcs, ra, np.full(21, edge))
                assert (min(x.min(), y.min()) > -0.5, x.max() < area.width) == (True, True)
                assert y.max() < area.height


def test_neighbours_show_the_same_sources_at_the_same_sky_positions(
    survey_config: SurveyConfig,
) -> None:
    tiles = [survey_tile(survey_config, index) for index in (0, 1)]
    first, second = (tile_sky(survey_config, tile)[0] for tile in tiles)
    for table, tile in zip((first, second), tiles, strict=True):
        x, y = sky_to_pixel(tile.wcs, table["RA"], table["DEC"])
        assert np.abs(x - table["X"]).max() < 1e-6
        assert np.abs(y - table["Y"]).max() < 1e-6
    keys = [
        set(zip(t["RA"], t["DEC"], t["FLUX_I"], t["MEM"], strict=True)) for t in (first, second)
    ]
    common = [on_tile(table, tiles[1 - k]) for k, table in enumerate((first, second))]
    assert common[0] == common[1]
    assert len(common[0]) > 10
    assert common[0] <= keys[0] & keys[1]


def test_neighbours_show_every_galaxy_whose_light_reaches_both(survey_config: SurveyConfig) -> None:
    prior = dataclasses.replace(
        survey_config.prior,
        mag_limit=18.0,
        galaxy_density_arcmin2=10.0,
        star_density_arcmin2=0.0,
        abundance_deg2=0.0,
    )
    config = dataclasses.replace(survey_config, prior=prior, image_size=1500, overlap=200)
    tiles = [survey_tile(config, index) for index in (0, 1)]
    skies = [tile_sky(config, tile)[0] for tile in tiles]
    limit = np.array([config.image.faint_limit(band) for band in "griz"])
    n_far = 0
    for tile, other, own, others in zip(tiles, tiles[::-1], skies, skies[::-1], strict=True):
        y, x = np.mgrid[0:1500:20, 0:1500:20]
        common = other.contains(*pixel_to_sky(tile.wcs, x.ravel(), y.ravel()))
        points = np.column_stack([x.ravel(), y.ravel()])[common]
        place = np.column_stack([own["X"], own["Y"]])
        distance = np.linalg.norm(place[:, None] - points, axis=-1).min(axis=1)
        reach = components(own, "griz", 0.263).reach(limit)
        needed = own[reach > distance]
        assert set(needed["RA"].tolist()) <= set(others["RA"].tolist())
        n_far += (distance[reach > distance] > 300).sum()
    assert n_far > 5


def on_pixels(table: Table, size: int) -> np.ndarray:
    xy = np.column_stack([table["X"], table["Y"]])
    return np.all((xy >= -0.5) & (xy < size - 0.5), axis=1)


def on_tile(table: Table, tile: object) -> set[tuple[float, ...]]:
    """Return the sources of a table on the pixels of another tile and of its own."""
    x, y = sky_to_pixel(tile.wcs, table["RA"], table["DEC"])  # type: ignore[attr-defined]
    inside = (x > 0) & (x < 199) & (y > 0) & (y < 199)
    inside &= (table["X"] > 0) & (table["X"] < 199) & (table["Y"] > 0) & (table["Y"] < 199)
    found = table[inside]
    return set(zip(found["RA"], found["DEC"], found["FLUX_I"], found["MEM"], strict=True))


def test_the_field_has_the_density_of_the_prior(survey_config: SurveyConfig) -> None:
    prior = dataclasses.replace(
        survey_config.prior,
        galaxy_density_arcmin2=20.0,
        star_density_arcmin2=5.0,
        abundance_deg2=0.0,
    )
    config = dataclasses.replace(survey_config, prior=prior, image_size=3000)
    sources, clusters = tile_sky(config, survey_tile(config, 0))
    sources = sources[on_pixels(sources, 3000)]
    area_arcmin2 = (3000 * 0.263 / 60) ** 2
    is_star = np.asarray(sources["SOURCE_TYPE"]) == 1
    assert (~is_star).sum() / area_arcmin2 == pytest.approx(20.0, rel=0.05)
    assert is_star.sum() / area_arcmin2 == pytest.approx(5.0, rel=0.1)
    assert len(clusters) == 0


def test_clusters_reach_into_tiles_and_belong_to_one(survey_config: SurveyConfig) -> None:
    prior = dataclasses.replace(
        survey_config.prior,
        abundance_deg2=60.0,
        galaxy_density_arcmin2=0.0,
        star_density_arcmin2=0.0,
    )
    config = dataclasses.replace(
        survey_config, prior=prior, image_size=900, overlap=400, n_columns=2, nfiles=4
    )
    assert 0.1 < reach_deg(config) < 1.0
    skies = [tile_sky(config, survey_tile(config, index)) for index in range(4)]
    owned = np.concatenate([np.asarray(clusters["CLUSTER_ID"]) for _, clusters in skies])
    assert len(set(owned.tolist())) == len(owned) > 0
    shown = np.concatenate([np.asarray(sources["CLUSTER_ID"]) for sources, _ in skies])
    assert len(set(shown.tolist()) - set(owned.tolist())) > 0
    for _, clusters in skies:
        assert ((clusters["X"] >= -0.5) & (clusters["X"] < 899.5)).all()


@pytest.mark.parametrize("kind", ["fz", "plain"])
def test_files_of_a_survey(kind: str, survey_config: SurveyConfig) -> None:
    config = dataclasses.replace(survey_config, format=kind)
    pipeline.run(config)
    folder, tile = Path(config.data_dir), survey_tile(config, 1)
    assert tile.name.startswith("DES0") or tile.name.startswith("DES1")
    path = tile_image_path(folder, tile.name, "i", kind)
    end = ".fits.fz" if kind == "fz" else ".fits"
    assert path.name == f"{tile.name}_r0000p00_i_nobkg{end}"
    with fits.open(path) as hdus:
        assert hdus[1 if kind == "fz" else 0].data.dtype.itemsize == 4
        assert hdus[1 if kind == "fz" else 0].data.shape == (200, 200)
    image, header = read_image(path)
    assert header["TILENAME"] == tile.name
    assert image.std() > 4
    ra, dec = pixel_to_sky(WCS(header), 99.5, 99.5)
    assert separation_deg(tile.ra_deg, tile.dec_deg, ra, dec)[0] * 3600 < 1e-6
    sources = read_catalog(sources_path(folder, tile.name))
    x, y = sky_to_pixel(WCS(header), sources["RA"], sources["DEC"])
    assert np.hypot(x - sources["X"], y - sources["Y"]).max() < 1e-3
    assert "TILE" in read_clusters(folder / "truth_clusters.ecsv").colnames
    assert "4 images, 2 source catalogs, 3 cluster tables" in validate_folder(folder)


def test_a_source_is_at_the_same_sky_position_in_two_images(survey_config: SurveyConfig) -> None:
    prior = dataclasses.replace(
        survey_config.prior, mag_limit=19.0, star_density_arcmin2=30.0, abundance_deg2=0.0
    )
    config = dataclasses.replace(survey_config, prior=prior, image_size=300, overlap=150)
    pipeline.run(dataclasses.replace(config, phases=["catalog", "image"]))
    found = []
    for index in (0, 1):
        tile = survey_tile(config, index)
        image, header = read_image(tile_image_path(Path(config.data_dir), tile.name, "i", "fz"))
        sources = read_catalog(sources_path(Path(config.data_dir), tile.name))
        other = survey_tile(config, 1 - index).wcs
        x, y = sky_to_pixel(other, sources["RA"], sources["DEC"])
        edge = [sources["X"], sources["Y"], x, y]
        inside = np.all([(v > 12) & (v < 287) for v in edge], axis=0)
        inside &= isolated(sources)
        star = sources[inside][np.argmax(sources[inside]["FLUX_I"])]
        found.append((centroid(image, WCS(header), star["X"], star["Y"]), star["RA"], star["DEC"]))
    (one, *place), (two, *other_place) = found
    assert place == other_place
    assert np.abs(np.subtract(one, two)).max() * 3600 / 0.263 < 0.1


def isolated(sources: Table) -> np.ndarray:
    x, y = np.asarray(sources["X"]), np.asarray(sources["Y"])
    distance = np.hypot(x[:, None] - x, y[:, None] - y) + 1e9 * np.eye(len(x))
    return (distance.min(axis=1) > 25) & (np.asarray(sources["SOURCE_TYPE"]) == 1)


def centroid(image: np.ndarray, wcs: WCS, x: float, y: float) -> list[float]:
    row, col = round(y), round(x)
    stamp = image[row - 7 : row + 8, col - 7 : col + 8]
    rows, cols = np.indices(stamp.shape) - 7
    ra, dec = pixel_to_sky(
        wcs, col + (stamp * cols).sum() / stamp.sum(), row + (stamp * rows).sum() / stamp.sum()
    )
    return [float(ra[0]), float(dec[0])]


def test_noise_of_tiles_and_bands_is_independent(survey_config: SurveyConfig) -> None:
    prior = dataclasses.replace(
        survey_config.prior,
        galaxy_density_arcmin2=0.0,
        star_density_arcmin2=0.0,
        abundance_deg2=0.0,
    )
    config = dataclasses.replace(survey_config, prior=prior, image_size=500, format="plain")
    pipeline.run(dataclasses.replace(config, phases=["catalog", "image"]))
    images = []
    for index in (0, 1):
        name = survey_tile(config, index).name
        paths = [tile_image_path(Path(config.data_dir), name, band, "plain") for band in "ri"]
        images += [read_image(path)[0].ravel() for path in paths]
    assert [image.std() for image in images] == pytest.approx([2.645, 4.596] * 2, rel=0.02)
    assert np.abs(np.corrcoef(images) - np.eye(4)).max() < 0.015


def test_bytes_do_not_depend_on_the_number_of_tiles_or_shards(
    survey_config: SurveyConfig, tmp_path: Path
) -> None:
    pipeline.run(survey_config)
    once = hashes(survey_config.data_dir)
    truth = (Path(survey_config.data_dir) / "truth_clusters.ecsv").read_bytes()
    more = dataclasses.replace(survey_config, data_dir=str(tmp_path / "more"), nfiles=3)
    pipeline.run(more)
    assert {name: hashes(more.data_dir)[name] for name in once} == once
    parts = dataclasses.replace(survey_config, data_dir=str(tmp_path / "parts"))
    for shard in (1, 0):
        pipeline.run(dataclasses.replace(parts, shard=[shard, 2]))
    assert hashes(parts.data_dir) == once
    assert (Path(parts.data_dir) / "truth_clusters.ecsv").read_bytes() == truth


def test_a_folder_is_right_whichever_shard_ran_first(survey_config: SurveyConfig) -> None:
    prior = dataclasses.replace(
        survey_config.prior,
        cluster_fraction=1.0,
        redshift_range=[0.7, 0.8],
        group_redshift_range=[0.7, 0.9],
        galaxy_density_arcmin2=0.0,
    )
    # Of this seed each tile owns a cluster.
    config = dataclasses.replace(survey_config, prior=prior, seed=1, image_size=500, patch_deg=0.06)
    config = dataclasses.replace(config, phases=["catalog", "truth"])
    n_clusters = []
    for shard in (1, 0):
        pipeline.run(dataclasses.replace(config, shard=[shard, 2]))
        n_clusters.append(len(read_clusters(Path(config.data_dir) / "truth_clusters.ecsv")))
    assert 0 < n_clusters[0] < n_clusters[1]
    assert "3 cluster tables" in validate_folder(Path(config.data_dir))


def test_catalogs_of_other_settings_are_refused(survey_config: SurveyConfig) -> None:
    config = dataclasses.replace(survey_config, phases=["catalog"])
    pipeline.run(config)
    other = dataclasses.replace(config, seed=5)
    with pytest.raises(DataFormatError, match=r"_sources\.dat, config_hash: expected \w+ as in"):
        make_tile_images(other, 0)
    with pytest.raises(DataFormatError, match=r"_clusters\.ecsv, config_hash: expected \w+ as in"):
        make_truth(other)


def test_truth_grows_with_the_survey(survey_config: SurveyConfig) -> None:
    config = dataclasses.replace(survey_config, phases=["catalog", "truth"])
    path = Path(config.data_dir) / "truth_clusters.ecsv"
    pipeline.run(dataclasses.replace(config, nfiles=1))
    assert read_clusters(path).meta["n_tiles"] == 1
    assert pipeline.run(config) == {"made": 2, "skipped": 1}
    assert read_clusters(path).meta["n_tiles"] == 2
    assert pipeline.run(config) == {"made": 1, "skipped": 2}  # gathering is cheap


def test_phases_without_their_input(survey_config: SurveyConfig) -> None:
    with pytest.raises(DataNotFoundError, match=r"data_gen=survey data_gen.phases=\[catalog\]"):
        pipeline.run(dataclasses.replace(survey_config, phases=["image"]))
    with pytest.raises(DataNotFoundError, match="holds no cluster table of a tile; make them with"):
        pipeline.run(dataclasses.replace(survey_config, phases=["truth"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image_size": 20_000},
            r"expected image_size in \[64, 10000\], but got image_size = 20000",
        ),
        ({"overlap": 150}, r"expected overlap \(at most half of image_size\) in \[0, 100\]"),
        ({"dec_deg": -85.0}, "expected all tiles within 80 deg of the equator"),
        ({"format": "zip"}, "expected format to be one of fz, plain, but got format = zip"),
        ({"compressed_tile": [0, 0]}, r"expected compressed_tile to be \[rows, columns\]"),
        ({"quantize_level": 0.0}, "expected quantize_level > 0"),
        ({"bands": ["r", "y"]}, "expected bands to be distinct names out of g, r, i, z"),
        ({"phases": ["datum"]}, "expected phases to be distinct names out of catalog, image"),
        ({"n_columns": 10**6}, "expected n_columns in"),
        ({"patch_deg": 0.0}, "expected patch_deg in"),
    ],
)
def test_bad_settings(change: dict[str, object], message: str, survey_config: SurveyConfig) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(survey_config, **change)
