from __future__ import annotations

import dataclasses
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from astropy.wcs import WCS

from datagen import pipeline
from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.fields.config import FieldsConfig
from datagen.fields.format import (
    CLUSTER_COLUMNS,
    catalog_path,
    check_file_data,
    clusters_path,
    file_data_path,
    image_path,
    read_catalog,
    read_clusters,
    read_file_data,
    read_image,
    write_catalog,
    write_clusters,
    write_image,
)
from datagen.fields.jobs import make_catalog, make_datum, make_images
from datagen.fields.wcs import pixel_to_sky, tan_wcs

MakeSources = Callable[..., Table]
SIZE, CELL = 192, 32


@pytest.fixture
def config(fields_config: FieldsConfig) -> FieldsConfig:
    return dataclasses.replace(
        fields_config, image_size=SIZE, tile_size=CELL, nfiles=1, n_catalogs_per_file=2
    )


def hashes(folder: str) -> dict[str, str]:
    root = Path(folder)
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("field_*")) + sorted(root.rglob("*.pt"))
    }


def test_three_phases_fill_three_folders(config: FieldsConfig) -> None:
    pipeline.run(config)
    folder = Path(config.data_dir)
    assert [p.name for p in sorted(folder.iterdir()) if p.is_dir()] == [
        "catalogs",
        "file_data",
        "images",
    ]
    path = file_data_path(folder, 0, 2)
    data = read_file_data(path)
    check_file_data(data, path)
    assert [datum["meta"]["index"] for datum in data] == [0, 1]
    assert data[0]["images"].shape == (4, SIZE, SIZE)
    meta, image = data[1]["meta"], read_image(image_path(folder, 1, "z"))
    assert np.array_equal(data[1]["images"][3].numpy(), image[0])
    assert meta["psf_fwhm"][3] == image[1]["PSFFWHM"]
    assert meta["config_hash"] == config.content_hash() == image[1]["CONFHASH"]
    assert meta["prior"]["richness_range"] == config.prior.richness_range
    assert len(read_clusters(folder / "catalogs" / "field_000001_clusters.ecsv").colnames) == 12


def test_the_size_is_told_before_the_work(
    config: FieldsConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        pipeline.run(config)
    folder = Path(config.data_dir)
    n_bytes = sum(path.stat().st_size for path in folder.glob("[if]*/*"))
    assert config.expected_bytes() == pytest.approx(n_bytes, rel=0.1)
    assert (
        caplog.messages[0] == f"{folder}: {config.expected_bytes() / 1e9:.3g} GB when all is made"
    )


def test_catalog_positions_are_those_of_the_image_header(config: FieldsConfig) -> None:
    pipeline.run(dataclasses.replace(config, phases=["catalog", "image"]))
    sources = read_catalog(catalog_path(Path(config.data_dir), 1))
    header = read_image(image_path(Path(config.data_dir), 1, "g"))[1]
    x, y = WCS(header).wcs_world2pix(sources["RA"], sources["DEC"], 0)
    assert np.abs(x - sources["X"]).max() < 1e-3
    assert np.abs(y - sources["Y"]).max() < 1e-3
    ra, dec = header["CRVAL1"], header["CRVAL2"]
    fields = {read_catalog(catalog_path(Path(config.data_dir), k)).meta["ra_deg"] for k in (0, 1)}
    assert str(ra) in fields
    assert len(fields) == 2
    assert abs(dec) < 60


def test_the_same_bytes_for_any_run(config: FieldsConfig, tmp_path: Path) -> None:
    pipeline.run(config)
    once = hashes(config.data_dir)
    more = dataclasses.replace(config, data_dir=str(tmp_path / "more"), nfiles=2)
    pipeline.run(more)
    assert {name: hashes(more.data_dir)[name] for name in once} == once
    changed = dataclasses.replace(config, data_dir=str(tmp_path / "seed"), seed=5)
    pipeline.run(changed)
    other = hashes(changed.data_dir)
    assert all(other[name] != value for name, value in once.items())


def test_a_rerun_makes_only_what_is_missing(config: FieldsConfig) -> None:
    pipeline.run(config)
    before = hashes(config.data_dir)
    image_path(Path(config.data_dir), 1, "r").unlink()
    file_data_path(Path(config.data_dir), 0, 2).unlink()
    assert pipeline.run(config) == {"made": 2, "skipped": 3}
    assert hashes(config.data_dir) == before


def test_jobs_belong_to_the_shard_of_their_file_and_can_be_sent_to_workers(
    config: FieldsConfig,
) -> None:
    phases = dataclasses.replace(config, nfiles=3).build_phases()
    assert [phase.name for phase in phases] == ["catalog", "image", "datum"]
    assert [job.index for job in phases[1].jobs] == [0, 0, 1, 1, 2, 2]
    assert pickle.loads(pickle.dumps(phases[0].jobs[0])).name == "catalogs/field_000000"
    names = [job.name for phase in phases for job in phase.jobs]
    assert len(set(names)) == len(names)


def test_one_bright_member_is_at_the_same_place_everywhere(
    config: FieldsConfig, make_sources: MakeSources
) -> None:
    x, y = 131.3, 42.8
    wcs = tan_wcs(211.0, -31.0, (SIZE, SIZE), config.image.pixel_scale)
    ra, dec = pixel_to_sky(wcs, x, y)
    one = make_sources([x], [y], MEM=1, RA=ra, DEC=dec, HLR=0.3)
    for band in "GRIZ":
        one[f"FLUX_{band}"] = 1e5
    folder = Path(config.data_dir)
    for index in (0, 1):
        meta = {"ra_deg": 211.0, "dec_deg": -31.0, "config_hash": config.content_hash()}
        write_catalog(catalog_path(folder, index), one, meta)
        cluster = {"Z": 0.35, "RICHNESS": 41.0}
        row = Table({name: [cluster.get(name, 0)] for name in CLUSTER_COLUMNS})
        write_clusters(clusters_path(folder, index), row, meta)
        make_images(config, index)
    make_datum(config, 0)

    datum = read_file_data(file_data_path(folder, 0, 2))[0]
    image, header = read_image(image_path(folder, 0, "r"))
    assert np.unravel_index(image.argmax(), image.shape) == (round(y), round(x))
    rows, cols = np.indices((15, 15)) - 7
    stamp = image[round(y) - 7 : round(y) + 8, round(x) - 7 : round(x) + 8]
    measured_x = round(x) + (stamp * cols).sum() / stamp.sum()
    measured_y = round(y) + (stamp * rows).sum() / stamp.sum()
    assert (measured_x, measured_y) == pytest.approx((x, y), abs=0.05)

    member = datum["tile_catalog"]["membership"][..., 0, 0]
    assert member.nonzero().tolist() == [[int(y) // CELL, int(x) // CELL]]
    row, col = member.nonzero()[0].tolist()
    fraction = datum["tile_catalog"]["locs"][row, col, 0].tolist()
    assert (row + fraction[0]) * CELL - 0.5 == pytest.approx(y, abs=1e-3)
    assert (col + fraction[1]) * CELL - 0.5 == pytest.approx(x, abs=1e-3)
    assert datum["tile_catalog"]["cluster_redshift"][row, col].item() == pytest.approx(0.35)
    assert datum["tile_catalog"]["cluster_richness"].sum() == 41.0

    sky = WCS(header).pixel_to_world(measured_x, measured_y)
    offset = np.hypot((sky.ra.deg - ra[0]) * np.cos(np.deg2rad(dec[0])), sky.dec.deg - dec[0])
    assert offset * 3600 / config.image.pixel_scale < 0.06


def test_a_phase_without_its_input_names_the_command(config: FieldsConfig) -> None:
    with pytest.raises(DataNotFoundError, match=r"make it with: .*data_gen.phases=\[catalog\]"):
        pipeline.run(dataclasses.replace(config, phases=["image"]))
    pipeline.run(dataclasses.replace(config, phases=["catalog"]))
    with pytest.raises(DataNotFoundError, match=r"make it with: .*data_gen.phases=\[image\]"):
        pipeline.run(dataclasses.replace(config, phases=["datum"]))


def test_bad_images_are_refused(config: FieldsConfig) -> None:
    pipeline.run(dataclasses.replace(config, phases=["catalog", "image"]))
    path = image_path(Path(config.data_dir), 0, "r")
    image, header = read_image(path)
    cards = {key: header[key] for key in ("PSFFWHM", "SKYSIGMA", "CRVAL1", "CRVAL2")}
    write_image(path, image[:-1], cards)
    with pytest.raises(DataFormatError, match=r"_r\.fits: expected shape \(192, 192\), but got"):
        make_datum(config, 0)
    image[3, 4] = np.nan
    write_image(path, image, cards)
    with pytest.raises(DataFormatError, match=r"_r\.fits: expected finite pixels, but found nan"):
        make_datum(config, 0)
    write_image(path, np.zeros_like(image), {"CRVAL1": 3.0})
    with pytest.raises(DataFormatError, match=r"_r\.fits, PSFFWHM: the header has no such card"):
        make_datum(config, 0)


def test_files_of_other_settings_are_refused(config: FieldsConfig) -> None:
    pipeline.run(dataclasses.replace(config, phases=["catalog", "image"]))
    other = dataclasses.replace(config, seed=5, phases=["datum"])
    for call in (make_images, make_datum):
        with pytest.raises(DataFormatError, match=r"000000\.dat, config_hash: expected \w+ as in"):
            call(other, 0)
    (Path(config.data_dir) / "settings.json").unlink()
    with pytest.raises(ConfigError, match=r"no settings\.json tells those of .*field_000000\.dat"):
        pipeline.run(other)
    make_catalog(other, 0)
    with pytest.raises(DataFormatError, match=r"_g\.fits, config_hash: expected \w+ as in"):
        make_datum(other, 0)


def test_a_catalog_without_its_pointing_is_refused(
    config: FieldsConfig, make_sources: MakeSources
) -> None:
    meta = {"config_hash": config.content_hash()}
    write_catalog(catalog_path(Path(config.data_dir), 0), make_sources([1.0], [2.0]), meta)
    with pytest.raises(DataFormatError, match="ra_deg and dec_deg: expected the field's centre"):
        make_images(config, 0)
