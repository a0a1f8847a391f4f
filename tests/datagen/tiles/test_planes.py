"""Flags, weights and units of survey tiles."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.units import ABmag, Jy, uJy

from datagen.errors import ConfigError, DataFormatError
from datagen.tiles import planes
from datagen.tiles.listing import list_tiles
from datagen.tiles.sections import HeldPixels, RowPixels
from datagen.tiles.stack import TileBands
from datagen.tiles.survey import SurveySettings, survey_values
from inference.survey.records import tile_hash

SHAPE = (150, 203)
BITS = 1 << 28
STORED = ("plain", "rows", "squares", "whole", "scaled", "packed")


def pixels(folder: Path, survey: SurveySettings, zero_point: float = 30.0) -> np.ndarray:
    """All bands of the one tile, read in sections as windows are, from top to bottom."""
    (tile,) = list_tiles(folder, survey)
    bands = TileBands(tile, survey, zero_point)
    out = np.empty((len(survey.bands), *bands.shape), np.float32)
    for top in range(0, SHAPE[0], 60):
        rows = slice(top, min(top + 70, SHAPE[0]))
        for left in (0, 90):
            columns = slice(left, min(left + 120, SHAPE[1]))
            bands.read(rows, columns, out[:, rows, columns])
    sampled = [file.sample((7, 5)) for file in bands.files]
    bands.close()
    np.testing.assert_array_equal(np.stack(sampled), out[:, ::7, ::5])
    return out


def write_plane(path: Path, image: np.ndarray, stored: str) -> Path:
    """Write a plane to HDU 1, in one of the ways in which images are stored."""
    shapes = {"rows": (1, SHAPE[1]), "squares": (40, 64), "whole": SHAPE}
    if stored in shapes:
        kind = {"compression_type": "GZIP_1", "tile_shape": shapes[stored]}
        hdu = fits.CompImageHDU(image, quantize_level=0, **kind)
    else:
        hdu = fits.ImageHDU(image.copy())
    if stored == "scaled":
        hdu.scale("int32", bzero=1000)
    name = path.with_suffix(".fits.gz") if stored == "packed" else path
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(name)
    return name


@pytest.fixture
def flags() -> np.ndarray:
    rng = np.random.default_rng(3)
    values = rng.choice([0, 1, 4, BITS, BITS + 1], SHAPE, p=[0.9, 0.04, 0.02, 0.02, 0.02])
    return values.astype(np.int32)


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize(("mask", "bad_values"), [("all", (1, 4, BITS, BITS + 1)),
                                                  (5, (1, 4, BITS + 1)),
                                                  (BITS, (BITS, BITS + 1))])  # fmt: skip
def test_flags_of_a_file_of_their_own(
    tmp_path: Path,
    survey: SurveySettings,
    tile: Callable[..., Path],
    flags: np.ndarray,
    stored: str,
    mask: int | str,
    bad_values: tuple[int, ...],
) -> None:
    """However it is stored, the plane masks exactly what numpy finds in its integers."""
    folder = tile(tmp_path, "T")
    plain = pixels(tmp_path, survey)
    for band in "gr":
        write_plane(folder / f"mask_{band}.fits", flags if band == "g" else 0 * flags, stored)
    end = "fits.gz" if stored == "packed" else "fits"
    masked = dataclasses.replace(
        survey, flags_pattern="{tile}/mask_{band}." + end, flags_hdu=1, flags_mask=mask
    )
    found = pixels(tmp_path, masked)
    expected = plain.copy()
    expected[0][np.isin(flags, bad_values)] = np.nan
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("stored", ["plain", "rows", "squares"])
def test_weights_and_flags_in_other_hdus_of_the_image(
    tmp_path: Path, survey: SurveySettings, tile: Callable[..., Path], stored: str
) -> None:
    folder = tile(tmp_path, "T")
    plain = pixels(tmp_path, survey)
    weight = np.ones(SHAPE, np.float32)
    weight[20:30], weight[30:35], weight[35:37] = 0.0, -1.0, np.nan
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, 7] = 2
    make = fits.ImageHDU
    if stored != "plain":
        shape = (1, SHAPE[1]) if stored == "rows" else (40, 64)
        kind = {"compression_type": "GZIP_1", "quantize_level": 0, "tile_shape": shape}
        make = functools.partial(fits.CompImageHDU, **kind)
    for band in "gr":
        path = folder / f"T_{band}.fits"
        with fits.open(path) as hdus:
            image, header = np.array(hdus[0].data), hdus[0].header
        hdus = [fits.PrimaryHDU(), make(image, header=header, name="SCI")]
        hdus += [make(mask, name="MSK"), make(weight, name="WGT")]
        fits.HDUList(hdus).writeto(path, overwrite=True)
    both = dataclasses.replace(survey, hdu="SCI", flags_hdu="MSK", flags_mask=2, weight_hdu="WGT")
    found = pixels(tmp_path, both)
    bad = np.zeros(SHAPE, bool)
    bad[20:37], bad[:, 7] = True, True
    np.testing.assert_array_equal(found, np.where(bad, np.nan, plain))


def test_one_mask_file_may_serve_all_bands(
    tmp_path: Path, survey: SurveySettings, tile: Callable[..., Path], flags: np.ndarray
) -> None:
    write_plane(tile(tmp_path, "T") / "T_mask.fits", flags, "squares")
    shared = dataclasses.replace(
        survey, flags_pattern="{tile}/{tile}_mask.fits", flags_hdu=1, flags_mask="all"
    )
    for image in pixels(tmp_path, shared):
        np.testing.assert_array_equal(np.isnan(image), flags != 0)


def test_a_changed_mask_outdates_the_tile(
    tmp_path: Path, survey: SurveySettings, tile: Callable[..., Path], flags: np.ndarray
) -> None:
    path = write_plane(tile(tmp_path, "T") / "T_mask.fits", flags, "rows")
    shared = dataclasses.replace(
        survey, flags_pattern="{tile}/{tile}_mask.fits", flags_hdu=1, flags_mask="all"
    )
    (before,) = list_tiles(tmp_path, shared)
    path.unlink()
    write_plane(path, 0 * flags, "rows")
    (after,) = list_tiles(tmp_path, shared)
    (without,) = list_tiles(tmp_path, survey)
    assert len({tile_hash(t, "run") for t in (before, after, without)}) == 3
    assert before.mtimes_ns != after.mtimes_ns
    assert before.mtimes_ns[:2] == after.mtimes_ns[:2] == without.mtimes_ns


MASK = {"flags_pattern": "{tile}/mask_{band}.fits"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"flags_pattern": "{tile}/no_{band}.fits"},
            "flags plane of band g is missing: no file T/no_g",
        ),
        ({"flags_pattern": "{tile}/?*_{band}.fits"}, "3 files fit flags plane of band g: T_g"),
        (MASK | {"flags_hdu": 3}, r"in HDU 3 of mask_r.fits, but got no image"),
        (MASK | {"flags_hdu": 9}, r"in HDU 9 of mask_r.fits, but got no such HDU"),
        (MASK | {"flags_hdu": 0}, r"but got shape \(\)"),
        (MASK | {"flags_hdu": 2}, r"got shape \(150, 202\)"),
        (MASK | {"flags_hdu": 4}, "holds flags as floats"),
        ({"weight_hdu": "WGT"}, r"expected weight of shape \(150, 203\), .* HDU WGT of T_r.fits"),
        ({"flags_pattern": "{tile}/junk_{band}.fits"}, r"junk_r.fits cannot be read; it is damage"),
    ],
)
def test_bad_planes_fail_their_tile_with_the_reason(
    tmp_path: Path,
    survey: SurveySettings,
    tile: Callable[..., Path],
    flags: np.ndarray,
    change: dict[str, object],
    message: str,
) -> None:
    folder = tile(tmp_path, "T")
    for band in "gr":
        planes = [fits.ImageHDU(flags), fits.ImageHDU(flags[:, 1:]), fits.ImageHDU(flags * 1.0)]
        table = fits.TableHDU.from_columns([])
        hdus = [fits.PrimaryHDU(), *planes[:2], table, planes[2]]
        fits.HDUList(hdus).writeto(folder / f"mask_{band}.fits")
        (folder / f"junk_{band}.fits").write_text("junk" * 100)
    mask = {"flags_mask": 1} if "flags_pattern" in change else {}
    with pytest.raises(DataFormatError, match=message):
        pixels(tmp_path, dataclasses.replace(survey, **mask, **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flags_hdu": 2}, r"survey.flags_mask to be bits \(an integer > 0\), or all, .*None"),
        ({"flags_hdu": 2, "flags_mask": 0}, "survey.flags_mask to be bits"),
        ({"flags_hdu": 2, "flags_mask": "any"}, "survey.flags_mask to be bits"),
        ({"flags_mask": "all"}, "null without survey.flags_hdu or flags_pattern"),
        ({"units": "nJy"}, r"survey.zero_points to be \{\} for nJy, in a file of conf/survey"),
        ({"units": "maggies"}, "survey.units to be counts, counts_per_second, nanomaggies"),
        (
            {"units": "nJy", "zero_points": {}, "exposure_time": "EXPTIME"},
            "survey.exposure_time to be null for nJy",
        ),
    ],
)
def test_settings_of_planes_and_units_are_checked(
    survey: SurveySettings, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(survey, **change)


def test_settings_that_are_not_used_leave_a_runs_identity(survey: SurveySettings) -> None:
    old = {"name", "pattern", "hdu", "bands", "zero_points", "calibrate", "pixel_scale", "align"}
    assert set(survey_values(survey)) == old | {"reference_band", "blank_value"}
    flux = dataclasses.replace(survey, units="nJy", zero_points={}, calibrate=True)
    assert survey_values(flux)["units"] == "nJy"


@pytest.mark.parametrize("name", ["nanomaggies", "nJy", "uJy"])
def test_fluxes_become_counts_as_astropy_converts_them(
    tmp_path: Path, survey: SurveySettings, tile: Callable[..., Path], name: str
) -> None:
    """A pixel of one unit has so many counts at zero point 27 as its AB magnitude says."""
    tile(tmp_path, "T")
    plain = pixels(tmp_path, survey)
    flux = {"nanomaggies": 3631e-9 * Jy, "nJy": 1e-3 * uJy, "uJy": 1 * uJy}[name]
    magnitude = flux.to_value(ABmag)
    assert magnitude == pytest.approx(-2.5 * np.log10(flux.to_value(Jy) / 3631), abs=1e-3)
    calibrated = dataclasses.replace(survey, units=name, zero_points={}, calibrate=True)
    found = pixels(tmp_path, calibrated, 27.0)
    np.testing.assert_allclose(found, plain * 10 ** (0.4 * (27.0 - magnitude)), rtol=1e-4)
    with pytest.raises(DataFormatError, match=r"has zero point \d+.\d, .*survey.calibrate=true"):
        pixels(tmp_path, dataclasses.replace(calibrated, calibrate=False), 27.0)


@pytest.mark.parametrize(
    ("name", "keyword", "factor"),
    [
        ("counts", None, 1.0),
        ("counts_per_second", None, 1.0),
        # Zero points are those of counts per second.
        ("counts", "EXPTIME", 1 / 90),
        # Zero points are those of counts.
        ("counts_per_second", "EXPTIME", 90.0),
    ],
)
def test_exposure_times_connect_counts_and_counts_per_second(
    tmp_path: Path,
    survey: SurveySettings,
    tile: Callable[..., Path],
    name: str,
    keyword: str | None,
    factor: float,
) -> None:
    tile(tmp_path, "T", EXPTIME=90.0)
    plain = pixels(tmp_path, survey)
    changed = dataclasses.replace(survey, units=name, exposure_time=keyword, calibrate=True)
    source = 5 * units.s * factor  # the same arithmetic with numbers alone
    np.testing.assert_allclose(
        pixels(tmp_path, changed), plain * source.to_value(units.s) / 5, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.0, r"EXPTIME of T_r.fits to be an exposure time > 0 s, but got 0.0"),
        ("long", "EXPTIME of T_r.fits to be an exposure time > 0 s, but got EXPTIME = 'long'"),
        (None, "has no header keyword EXPTIME, which survey.exposure_time names"),
    ],
)
def test_bad_exposure_times(
    tmp_path: Path,
    survey: SurveySettings,
    tile: Callable[..., Path],
    value: float | str | None,
    message: str,
) -> None:
    tile(tmp_path, "T", **({} if value is None else {"EXPTIME": value}))
    with pytest.raises(DataFormatError, match=message):
        pixels(tmp_path, dataclasses.replace(survey, exposure_time="EXPTIME", calibrate=True))


def test_damage_in_the_middle_of_a_plane_names_its_file(tmp_path: Path) -> None:
    class Broken:
        def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
            raise ValueError("decompression error")

    judged = planes._Judged(Broken(), planes._is_unweighted, tmp_path / "T_weight.fits.fz")
    mask = RowPixels(judged, (8, 8), 1)
    image = HeldPixels(np.ones((8, 8), np.float32), 64)
    pixels = planes.MaskedPixels(image, [mask])
    with pytest.raises(DataFormatError, match=r"T_weight.fits.fz cannot be read; it is damaged"):
        pixels.read(slice(0, 4), slice(0, 4), np.empty((4, 4), np.float32))
