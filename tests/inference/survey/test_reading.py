from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from scipy.ndimage import spline_filter

from datagen.errors import ConfigError, DataFormatError
from datagen.tiles import align
from datagen.tiles.geometry import celestial_wcs, wcs_cards
from datagen.tiles.listing import list_tiles
from datagen.tiles.survey import SurveySettings
from inference.survey.dataset import cell_coverage, cut
from inference.survey.masking import MaskCount
from inference.survey.reading import WholeTileReader, _level
from inference.survey.windows import WindowPlan, WindowShape

Write = Callable[..., Path]


def read(folder: Path, survey: SurveySettings) -> WholeTileReader:
    (tile,) = list_tiles(folder, survey)
    return WholeTileReader(tile, survey, 30.0)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40000])


def drop_wcs(path: Path) -> None:
    with fits.open(path) as hdus:
        fits.PrimaryHDU(np.array(hdus[0].data)).writeto(path, overwrite=True)


def reshape(path: Path) -> None:
    with fits.open(path) as hdus:
        data, header = np.array(hdus[0].data)[:-3], hdus[0].header
        fits.PrimaryHDU(data, header).writeto(path, overwrite=True)


def shift(path: Path) -> None:
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["CRPIX1"] += 0.5


def rescale(path: Path) -> None:
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["CD1_1"] *= 1.1


def fill(value: float) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with fits.open(path, mode="update") as hdus:
            hdus[0].data[:] = value

    return apply


def card(name: str, value: str) -> Callable[[Path], None]:
    """Put a value into a header that astropy itself would not write."""

    def apply(path: Path) -> None:
        data = path.read_bytes()
        start = data.index(f"{name:<8}=".encode())
        line = f"{name:<8}= {value:>20}".ljust(80).encode()
        path.write_bytes(data[:start] + line + data[start + 80 :])

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (card("CRVAL1", "1.2.3.4"), "T_g.fits cannot be read; .*: Unparsable card .CRVAL1"),
        (card("CRVAL2", "NaN"), "T_g.fits cannot be read; .*: Unparsable card .CRVAL2"),
        (card("CRPIX1", "1E999"), r"T_g.fits"),
        (truncate, "T_g.fits cannot be read; it is damaged, incomplete or no FITS file"),
        (lambda path: path.write_bytes(b""), r"T_g.fits is empty \(0 bytes\)"),
        (lambda path: path.write_text("hello " * 1000), "T_g.fits cannot be read"),
        (lambda path: path.unlink(), "band g is missing: no file T/T_g.fits"),
        (drop_wcs, "T_g.fits has no celestial WCS"),
        (reshape, r"band g has shape \(147, 203\), but band r has \(150, 203\); survey.align=true"),
        (shift, r"the WCS of band g is 0.50 px off that of band r \(allowed: 0.1 px\)"),
        (rescale, r"T_g.fits has 0.27\d+ arcsec/px, but survey.pixel_scale = 0.263"),
        (fill(np.nan), "band g has no valid pixel: all are NaN or survey.blank_value"),
        (fill(3.0), "all pixels of band g are 3.0; is it an image?"),
    ],
)
def test_bad_files_are_explained(
    tmp_path: Path,
    survey: SurveySettings,
    tile: Write,
    damage: Callable[[Path], object],
    message: str,
) -> None:
    tile(tmp_path, "T")
    damage(tmp_path / "T" / "T_g.fits")
    with pytest.raises(DataFormatError, match=message):
        read(tmp_path, survey)


@pytest.mark.parametrize("hdu", [3, "SCI"])
def test_wrong_hdu_lists_what_is_there(
    tmp_path: Path, survey: SurveySettings, tile: Write, hdu: int | str
) -> None:
    tile(tmp_path, "T")
    message = rf"T_r.fits has no two-dimensional image in survey.hdu = {hdu}; it holds 0 PRIMARY"
    with pytest.raises(DataFormatError, match=message):
        read(tmp_path, dataclasses.replace(survey, hdu=hdu))


def test_compressed_tiles_read_like_plain_ones(
    tmp_path: Path, survey: SurveySettings, tile: Write
) -> None:
    folder = tile(tmp_path, "T")
    plain = read(tmp_path, survey)
    for path in folder.glob("*.fits"):
        with fits.open(path) as hdus:
            image = fits.CompImageHDU(
                hdus[0].data, hdus[0].header, compression_type="GZIP_1", quantize_level=0
            )
            fits.HDUList([fits.PrimaryHDU(), image]).writeto(f"{path}.fz")
    fz = dataclasses.replace(survey, pattern="{tile}/{tile}_{band}.fits.fz", hdu=1)
    compressed = read(tmp_path, fz)
    everything = slice(None), slice(None)
    np.testing.assert_array_equal(plain.section(*everything), compressed.section(*everything))
    np.testing.assert_array_equal(plain.background, compressed.background)


def test_zero_points_come_from_numbers_or_headers(
    tmp_path: Path, survey: SurveySettings, tile: Write
) -> None:
    tile(tmp_path, "T", MAGZERO=27.5)
    keyword = dataclasses.replace(survey, zero_points={"g": 27.5, "r": "MAGZERO"})
    with pytest.raises(DataFormatError, match=r"T_r.fits has zero point 27.5, .*trained on 30.0"):
        read(tmp_path, keyword)
    scaled = read(tmp_path, dataclasses.replace(keyword, calibrate=True))
    plain = read(tmp_path, survey)
    everything = slice(None), slice(None)
    np.testing.assert_allclose(scaled.section(*everything), 10 * plain.section(*everything), 1e-6)
    wrong = dataclasses.replace(survey, zero_points={"g": 30.0, "r": "ZP"})
    with pytest.raises(DataFormatError, match=r"no header keyword ZP, which survey.zero_points.r"):
        read(tmp_path, wrong)


def test_alignment_moves_sources_to_the_reference(
    tmp_path: Path, survey: SurveySettings, tile: Write, header: Callable[..., fits.Header]
) -> None:
    """The same source on the sky, half a pixel off in one band, lands on the same pixel."""
    folder = tile(tmp_path, "T")
    y, x = np.mgrid[:150, :203]
    noise = np.random.default_rng(0).normal(0, 1e-3, (150, 203))
    for band, dx, dy in (("r", 0.0, 0.0), ("g", 0.5, -1.25)):
        image = 100 * np.exp(-((x - 90 - dx) ** 2 + (y - 70 - dy) ** 2) / 18) + noise
        cards = header((150, 203))
        cards["CRPIX1"] += dx
        cards["CRPIX2"] += dy
        fits.PrimaryHDU(image.astype(np.float32), cards).writeto(
            folder / f"T_{band}.fits", overwrite=True
        )
    g, r = read(tmp_path, dataclasses.replace(survey, align=True)).section(
        slice(40, 100), slice(60, 120)
    )
    np.testing.assert_allclose(g, r, atol=0.02)
    assert g[30, 30] > 99


def test_masked_pixels_become_background_and_are_counted(
    tmp_path: Path, survey: SurveySettings, tile: Write
) -> None:
    folder = tile(tmp_path, "T")
    with fits.open(folder / "T_g.fits", mode="update") as hdus:
        hdus[0].data[16:32, 32:40] = np.nan
    reader = read(tmp_path, survey)
    plan = WindowPlan(reader.shape, WindowShape(96, 48, 16, 16, 16))
    window = cut(reader, plan, [(0, 0)])[0]
    assert (window[0, 16:32, 32:40] == reader.background[0]).all()
    count = MaskCount(plan)
    cut(reader, plan, plan.starts, mask=count)
    masked = count.fraction()
    assert masked[1, 2] == 0.5
    assert masked.sum() == 0.5
    corner = cut(reader, plan, [plan.starts[-1]])[0]
    assert (corner[1, -10:] == reader.background[1]).all()
    coverage = cell_coverage(plan)
    assert coverage[0, 0] == 1
    np.testing.assert_allclose(coverage[-1, -1], 6 / 16 * 11 / 16)
    np.testing.assert_allclose(coverage.sum() * 256, 150 * 203, rtol=1e-6)


@pytest.mark.parametrize("value", ["unknown", True])
def test_a_zero_point_in_the_header_must_be_a_number(
    tmp_path: Path, survey: SurveySettings, tile: Write, value: str | bool
) -> None:
    tile(tmp_path, "T", MAGZERO=value)
    keyword = dataclasses.replace(survey, zero_points={"g": "MAGZERO", "r": "MAGZERO"})
    with pytest.raises(DataFormatError, match=rf"MAGZERO of T_r\.fits .* got MAGZERO = '?{value}"):
        read(tmp_path, keyword)


def test_a_zero_point_that_cannot_be_parsed(
    tmp_path: Path, survey: SurveySettings, tile: Write
) -> None:
    tile(tmp_path, "T", MAGZERO=30.0)
    keyword = dataclasses.replace(survey, zero_points={"g": "MAGZERO", "r": "MAGZERO"})
    card("MAGZERO", "3.0.0")(tmp_path / "T" / "T_r.fits")
    with pytest.raises(DataFormatError, match=r"T_r\.fits cannot be read; .*MAGZERO"):
        read(tmp_path, keyword)


def test_a_file_that_disappears_is_a_bad_file(
    tmp_path: Path, survey: SurveySettings, tile: Write
) -> None:
    folder = tile(tmp_path, "T")
    (listed,) = list_tiles(tmp_path, survey)
    (folder / "T_g.fits").unlink()
    with pytest.raises(DataFormatError, match=r"T_g\.fits cannot be read.*No such file"):
        WholeTileReader(listed, survey, 30.0)


def test_blank_pixels_were_not_observed(
    tmp_path: Path, survey: SurveySettings, tile: Write
) -> None:
    """Most of an image may be blank; background and noise are those of the rest."""
    whole = read(tmp_path, survey) if tile(tmp_path, "T") else None
    assert whole is not None
    with fits.open(tmp_path / "T" / "T_g.fits", mode="update") as hdus:
        hdus[0].data[:, :140] = 0.0
    blank = read(tmp_path, survey)
    assert np.isnan(blank.section(slice(None), slice(0, 140))[0]).all()
    assert blank.sigma[0] == pytest.approx(whole.sigma[0], rel=0.1)
    with pytest.raises(DataFormatError, match=r"noise of band g cannot be measured: 100\.0% of"):
        read(tmp_path, dataclasses.replace(survey, blank_value=None))
    with pytest.raises(ConfigError, match=r"survey\.blank_value to be null or a finite number"):
        dataclasses.replace(survey, blank_value=np.nan)


def test_a_noise_of_exactly_one_is_no_reason_to_refuse() -> None:
    image = np.zeros((100, 101), np.float32)
    image[:, :20], image[:, 80:] = -1.0, 1.0
    valid = np.ones(image.shape, bool)
    assert _level(image, valid, "g") == (0.0, 1.0)
    with pytest.raises(DataFormatError, match="noise of band g cannot be measured"):
        _level(image * (image > 0), valid, "g")


def test_an_image_is_filtered_once_whatever_the_number_of_strips(
    header: Callable[..., fits.Header], monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (600, 80)
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    here, there = (celestial_wcs(wcs_cards(header(shape, ra=10 + d)), "T") for d in (0, 1e-4))
    calls = []

    def counted(*arguments: object, **options: object) -> np.ndarray:
        calls.append(1)
        return spline_filter(*arguments, **options)

    monkeypatch.setattr(align, "spline_filter", counted)
    strips = align.resample(image, here, there, shape)
    assert len(calls) == 1
    monkeypatch.setattr(align, "_STRIP_ROWS", 1000)
    np.testing.assert_array_equal(align.resample(image, here, there, shape), strips)
