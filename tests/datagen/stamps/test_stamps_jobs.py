"""`data_gen=stamps`: raw files become stamps with labels; bad ones are counted, or named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from datagen import pipeline
from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.files import read_json, sha256_file
from datagen.stamps import format as files
from datagen.stamps.plan import is_taken
from datagen.stamps.validate import validate_stamps
from datagen.validate import main as validate
from tests.datagen.stamps.conftest import Configured
from tests.datagen.stamps.raw import (
    BANDS,
    SCALE,
    SIDE,
    ZEROPT,
    label_columns,
    planes_of,
    write_image,
    write_labels,
    write_suite,
)


def drops(folder: Path) -> dict[str, str]:
    """Return file -> kind of what was not used."""
    table = Table.read(folder / "drops.ecsv", format="ascii.ecsv")
    return {str(row["file"]): str(row["kind"]) for row in table}


def test_stamps_have_the_pixels_labels_and_header_of_their_images(
    configured: Configured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipeline.run(configured()) == {"made": 3, "skipped": 0}
    folder = tmp_path / "stamps" / "a"
    table = files.read_labels(folder)
    assert len(table) == 8
    assert table["FILE_NUMBER"].tolist() == [0] * 5 + [1] * 3
    assert table["ROW"].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert {
        "SUITE": "a",
        "BANDS": "g,r,i",
        "SIDE": 16,
        "ZEROPT": 22.5,
    }.items() <= table.meta.items()
    assert table.meta["UNIT"] == "nanomaggy"
    factor = 10 ** (-0.4 * (ZEROPT - 22.5))
    for row in table:
        stamp = files.read_stamps(files.stamps_path(folder, row["FILE_NUMBER"]))[row["ROW"]]
        planes = planes_of(row["OBJECT"])
        assert str(row["FILE"]) == f"images/snap_099-{row['OBJECT']}_{row['PROJECTION']}.fits"
        for plane, band in zip(stamp, BANDS, strict=True):
            binned = planes[band].reshape(16, 2, 16, 2).sum((1, 3)) * factor
            assert plane == pytest.approx(binned, rel=2e-6, abs=1e-6)
        assert row["redshift"] == pytest.approx(0.1 + 0.01 * row["OBJECT"])
        assert row["SNAPSHOT"] == 99
    assert table["SCALE"].tolist() == pytest.approx([SCALE * SIDE / 16] * 8)
    # Two by two pixels have twice the noise of one.
    assert table["SKYSIGMA_I"].tolist() == pytest.approx([0.02 * 2 * factor] * 8)
    assert table["FWHM"].tolist() == table["FWHM_G"].tolist() == [0.7] * 8
    assert table["r_eff"].unit == "kpc"
    assert table["R50"].unit == "arcsec"
    # An exponential disc of half-light radius 3 px.
    assert table["R50"].tolist() == pytest.approx([3 * SCALE] * 8, rel=0.03)
    report = read_json(folder / "report.json")
    assert (report["n_stamps"], report["n_objects"], report["dropped"]) == (8, 4, {})
    assert report["labels"]["merger_time"]["n_missing"] == 8
    assert report["pixel_scale_arcsec"]["low"] == pytest.approx(0.6)
    assert "8 of 4 objects, bands g, r, i, 16 px" in validate_stamps(folder)
    validate([str(folder)])
    assert capsys.readouterr().out.startswith("OK: 2 files of stamps")


def test_a_run_goes_on_where_it_was_and_makes_again_what_changed(
    configured: Configured, tmp_path: Path
) -> None:
    raw = write_suite(tmp_path / "raw")
    config = configured(folder=str(raw), measure=False)
    pipeline.run(config)
    folder = tmp_path / "stamps" / "a"
    first = {path: sha256_file(path) for path in sorted(folder.rglob("*.npy"))}
    # The report is written each time.
    assert pipeline.run(config) == {"made": 1, "skipped": 2}
    # Another place of the raw files changes nothing.
    moved = raw.rename(tmp_path / "moved")
    config = configured(folder=str(moved), measure=False)
    assert pipeline.run(config) == {"made": 1, "skipped": 2}
    shutil.rmtree(folder)
    pipeline.run(config)
    assert {path: sha256_file(path) for path in sorted(folder.rglob("*.npy"))} == first
    # An image of the second file changes, and so does that file alone.
    write_image(moved / "images" / "snap_099-3_0.fits", planes_of(9))
    assert pipeline.run(config) == {"made": 2, "skipped": 1}
    assert {p for p, sha in first.items() if sha256_file(p) != sha} == {
        files.stamps_path(folder, 1)
    }
    # A label changes.
    columns = label_columns(4, 2)
    columns["Z"][0] = 0.3
    write_labels(moved / "labels" / "labels_000000.fits", columns)
    assert pipeline.run(config) == {"made": 2, "skipped": 1}
    assert files.read_labels(folder)["redshift"][0] == 0.3
    # Other settings are refused, and fewer images leave no file behind.
    with pytest.raises(ConfigError, match=r"data_gen\.image\.store_px was 16, now 32"):
        pipeline.run(configured(folder=str(moved), store_px=32, measure=False))
    for path in (moved / "images").glob("*-[23]_*"):
        path.unlink()
    pipeline.run(config)
    assert [path.name for path in files.stamp_files(folder)] == ["stamps_000000.npy"]


def test_whatever_is_wrong_with_an_image_or_row_is_counted(
    configured: Configured, tmp_path: Path
) -> None:
    raw = write_suite(tmp_path / "raw", n_objects=12, n_projections=1)
    images, columns = raw / "images", label_columns(12, 1)
    planes = planes_of(0)
    (images / "notes.fits").write_text("x")
    (images / "snap_099-1_0.fits").write_bytes(b"no image")
    write_image(images / "snap_099-2_0.fits", {"g": planes["g"], "r": planes["r"]})
    planes["r"][3, 4] = np.nan
    write_image(images / "snap_099-3_0.fits", planes)
    planes = planes_of(0)
    write_image(images / "snap_099-4_0.fits", planes | {"i": planes["i"][:-1]})
    write_image(images / "snap_099-5_0.fits", planes, PIXSCALE=0.0)
    write_image(images / "snap_099-6_0.fits", planes, FWHM="unknown")
    with fits.open(write_image(images / "snap_099-7_0.fits", planes), mode="update") as hdus:
        hdus["i"].header["PIXSCALE"] = 0.4
    write_image(images / "snap_099-008_0.fits", planes)
    write_image(images / "snap_099-99_0.fits", planes)
    (images / "snap_099-9_0.fits").unlink()
    rows = [*range(12), 10]
    write_labels(
        raw / "labels" / "labels_000000.fits",
        {name: np.asarray(values)[rows] for name, values in columns.items()},
    )
    config = configured(folder=str(raw), n_stamps_per_file=100)
    config.suites["a"].columns["log_mass"].range = [9.0, 10.55]
    assert pipeline.run(config) == {"made": 2, "skipped": 0}
    folder = tmp_path / "stamps" / "a"
    found = drops(folder)
    assert found == {
        "images/notes.fits": "name",
        "images/snap_099-1_0.fits": "unreadable",
        "images/snap_099-2_0.fits": "band",
        "images/snap_099-3_0.fits": "pixels",
        "images/snap_099-4_0.fits": "shape",
        "images/snap_099-5_0.fits": "calibration",
        "images/snap_099-6_0.fits": "calibration",
        "images/snap_099-7_0.fits": "calibration",
        "images/snap_099-8_0.fits": "duplicate image",
        "images/snap_099-99_0.fits": "no row",
        "snapshot 99, object 9, projection 0": "no image",
        "labels_000000.fits, row 12": "duplicate row",
        "images/snap_099-11_0.fits": "range",
    }
    assert files.read_labels(folder)["OBJECT"].tolist() == [0, 8, 10]
    report = read_json(folder / "report.json")
    assert report["dropped"]["calibration"] == 3
    assert sum(report["dropped"].values()) == len(found)
    reasons = " ".join(Table.read(folder / "drops.ecsv", format="ascii.ecsv")["reason"])
    assert "log_mass = 10.6, outside [9, 10.55]" in reasons
    assert "there is no i" in reasons
    assert "1 pixels are nan or inf" in reasons


def test_a_file_without_any_good_image_fails_and_the_others_go_on(
    configured: Configured, tmp_path: Path
) -> None:
    raw = write_suite(tmp_path / "raw")
    for name in ("2_1", "3_0", "3_1"):
        write_image(raw / "images" / f"snap_099-{name}.fits", {"g": planes_of(0)["g"]})
    counts = pipeline.run(configured(folder=str(raw), measure=False))
    assert counts == {"made": 2, "skipped": 0, "failed": 1}
    failed = read_json(tmp_path / "stamps" / "a" / "failed-0of1.json")
    assert "none of 3 images can be used; images/snap_099-2_1.fits" in next(iter(failed.values()))


def test_suites_that_are_wrong_as_a_whole_are_refused(
    configured: Configured, raw: Path, tmp_path: Path
) -> None:
    def refused(kind: type[Exception], match: str, *names: str, **changes: object) -> None:
        with pytest.raises(kind, match=match):
            pipeline.run(configured(*names, **changes))
        assert not (tmp_path / "stamps").exists()

    refused(DataNotFoundError, r"holds no files images/\*\.fits; correct folder", folder="nowhere")
    refused(
        DataFormatError,
        r"suite a to have images .* none of the first 8 .* there is no Y",
        bands={"g": "g", "y": "Y"},
        crop__band=None,
        columns={},
        labels=None,
    )
    refused(DataFormatError, "takes SCALE, but the columns are SIMPLE", pixel_scale="SCALE")
    refused(DataFormatError, "does not match", pattern=r"(?P<object>\d+)\.fits")
    refused(DataNotFoundError, "holds no tables rows/", labels__files="rows/*.fits")
    refused(DataFormatError, "a column ID .*but got SNAPSHOT", labels__keys={"object": "ID"})
    refused(DataFormatError, "cannot read the table .*LABELS_2", labels__table="LABELS_2")
    refused(ConfigError, r"store_px in \[8, 4096\]", store_px=4)


def test_suites_of_one_run_agree_in_bands_and_pixel_scale(
    configured: Configured, tmp_path: Path
) -> None:
    config = configured("a", "obs", measure=False)
    config.suites["obs"].bands = {"r": "r", "i": "i"}
    with pytest.raises(ConfigError, match="same bands, but got a: g, r, i, and obs: r, i"):
        config.__post_init__()
    coarse = write_suite(tmp_path / "coarse")
    for path in (coarse / "images").iterdir():
        write_image(path, planes_of(0), PIXSCALE=0.4)
    config = configured("a", "obs", measure=False)
    config.suites["obs"].folder = str(coarse)
    with pytest.raises(DataFormatError, match=r"same pixel scale, but got a 0\.6, obs 0\.8"):
        pipeline.run(config)
    config.image.same_scale = False
    assert pipeline.run(config) == {"made": 6, "skipped": 0}
    assert {path.name for path in (tmp_path / "stamps").iterdir()} == {"a", "obs"}
    # The same bands in another order are chosen by name.
    config = configured("obs", data_dir=str(tmp_path / "two"))
    config.image.bands = ["i", "g"]
    pipeline.run(config)
    table = files.read_labels(tmp_path / "two" / "obs")
    assert files.bands_of(table.meta) == ["i", "g"]
    one = files.read_stamps(files.stamps_path(tmp_path / "two" / "obs", 0))
    other = files.read_stamps(files.stamps_path(tmp_path / "stamps" / "a", 0))
    assert np.array_equal(one, other[:, [2, 0]])


def test_a_fraction_takes_whole_objects_and_a_larger_one_keeps_them(
    configured: Configured, tmp_path: Path
) -> None:
    configs = configured(fraction=0.3), configured(fraction=0.6), configured(fraction=0.3, seed=1)
    few, more, other = ({k for k in range(2000) if is_taken(config, k)} for config in configs)
    assert few < more
    assert (len(few), len(more)) == (pytest.approx(600, abs=80), pytest.approx(1200, abs=80))
    assert len(few & other) == pytest.approx(180, abs=50)
    config = configured(fraction=0.6, measure=False)
    pipeline.run(config)
    taken = more & set(range(4))
    objects = files.read_labels(tmp_path / "stamps" / "a")["OBJECT"].tolist()
    assert objects == [number for number in sorted(taken) for _ in range(2)]
    assert read_json(tmp_path / "stamps" / "a" / "report.json")["n_not_taken"] == 8 - len(objects)


@pytest.mark.slow
def test_workers_change_no_byte(configured: Configured, tmp_path: Path) -> None:
    hashes = []
    for n_jobs in (1, 2):
        out = tmp_path / str(n_jobs)
        pipeline.run(configured(data_dir=str(out), n_jobs=n_jobs))
        hashes.append([sha256_file(path) for path in sorted(out.rglob("stamps_*"))])
    assert len(hashes[0]) == 4
    assert hashes[0] == hashes[1]
