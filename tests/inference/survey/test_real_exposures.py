"""Prediction over real DECam exposures, which no simulator made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from omegaconf import OmegaConf

from conf.running import JOBS_FAILED
from datagen.tiles.listing import list_tiles
from datagen.tiles.survey import SurveySettings
from encoders.checkpoint import load_checkpoint
from inference.engine import predict_survey, run
from inference.survey.reading import WholeTileReader
from inference.survey.run import SurveyRun
from inference.survey.scores import read_scores
from inference.survey.settings import PredictSettings

pytestmark = pytest.mark.real_data

CELL = 16
WITHOUT_PLANES = {"flags_pattern": None, "flags_mask": None, "weight_pattern": None}


@pytest.fixture
def exposures(root: Path) -> SurveySettings:
    """The survey that conf/ ships as an example."""
    values = OmegaConf.to_container(OmegaConf.load(root / "conf/survey/decam_exposures.yaml"))
    assert isinstance(values, dict)
    del values["_target_"]
    return SurveySettings(**values)


@pytest.fixture
def real(
    settings: PredictSettings, shared_data: Path, tmp_path: Path, checkpoint: Callable[..., Path]
) -> PredictSettings:
    return dataclasses.replace(
        settings,
        cached_data_path=str(shared_data / "images" / "decam"),
        weight_save_path=str(checkpoint(tmp_path / "best.ckpt", ("g", "r", "z"), CELL)),
        window_px=64,
        stride_px=64,
        halo_px=0,
        threshold=0.05,
    )


def assert_wcs_within_a_tenth_of_a_pixel(scores: Path, exposure: Path) -> None:
    """The centre of each cell means the same sky as the centre of its pixels in the exposure."""
    full, small = WCS(fits.getheader(exposure, 1)), WCS(fits.getheader(scores))
    ny, nx = fits.getdata(scores).shape
    y, x = np.mgrid[:ny, :nx]
    sky = small.all_pix2world(x.ravel(), y.ravel(), 0)
    full_x, full_y = full.wcs_world2pix(*sky, 0)
    assert np.abs(full_x - (x.ravel() * CELL + (CELL - 1) / 2)).max() < 0.1
    assert np.abs(full_y - (y.ravel() * CELL + (CELL - 1) / 2)).max() < 0.1


def test_three_exposures_are_one_aligned_tile(
    exposures: SurveySettings, real: PredictSettings, tmp_path: Path
) -> None:
    assert predict_survey(real, exposures) == 0
    path = tmp_path / "out" / "scores" / "decam.fits"
    scores = read_scores(path)
    assert scores.tile_shape == (100, 101)
    assert scores.score.shape == (7, 7)
    assert np.isfinite(scores.score).all()
    exposure = next(Path(real.cached_data_path).glob("c4d_*_ooi_r_ls9.N26.fits"))
    assert_wcs_within_a_tenth_of_a_pixel(path, exposure)
    catalog = Table.read(tmp_path / "out" / "catalog.ecsv")
    assert len(catalog) > 0
    np.testing.assert_allclose(catalog["ra"], 9.1228, atol=0.005)
    np.testing.assert_allclose(catalog["dec"], 3.3975, atol=0.005)


def test_alignment_brings_the_galaxy_to_one_place(
    exposures: SurveySettings, real: PredictSettings
) -> None:
    (tile,) = list_tiles(Path(real.cached_data_path), exposures)
    reader = WholeTileReader(tile, exposures, 30.0)
    centres = []
    for image, level in zip(
        reader.section(slice(None), slice(None)), reader.background, strict=True
    ):
        flux = np.nan_to_num(image - level)[40:60, 40:60].clip(0)
        y, x = np.mgrid[40:60, 40:60]
        centres.append((np.average(y, weights=flux), np.average(x, weights=flux)))
    assert (np.ptp(np.array(centres), axis=0) < 0.25).all()


def test_without_align_the_disagreement_is_named(
    exposures: SurveySettings, real: PredictSettings, tmp_path: Path
) -> None:
    assert predict_survey(real, dataclasses.replace(exposures, align=False)) == JOBS_FAILED
    failed = Table.read(tmp_path / "out" / "failed.ecsv")
    assert "band g has shape (101, 101), but band r has (100, 101)" in failed["reason"][0]
    assert "survey.align=true" in failed["reason"][0]


def test_a_tile_compressed_exposure_is_a_survey_of_one_band(
    exposures: SurveySettings,
    real: PredictSettings,
    tmp_path: Path,
    checkpoint: Callable[..., Path],
) -> None:
    one = dataclasses.replace(
        exposures,
        pattern="{tile}_ooi_{band}_ls9.N6.fits",
        bands=["r"],
        zero_points={"r": 25.2},
        align=False,
        **WITHOUT_PLANES,
    )
    module = load_checkpoint(checkpoint(tmp_path / "r.ckpt", ("r",), CELL), "membership")
    assert run(SurveyRun(real, one, module, "0" * 64)) == 0
    path = tmp_path / "out" / "scores" / "c4d_171113_060340.fits"
    assert read_scores(path).tile_shape == (375, 280)
    exposure = next(Path(real.cached_data_path).glob("*ooi_r_ls9.N6.fits"))
    assert_wcs_within_a_tenth_of_a_pixel(path, exposure)


def test_flags_and_weights_mask_what_astropy_shows(
    exposures: SurveySettings, real: PredictSettings
) -> None:
    """Without resampling, the masked pixels are those that ood or oow call bad, one by one."""
    folder = Path(real.cached_data_path)
    # The g exposure has bad pixels; alone it needs no alignment.
    one = dataclasses.replace(exposures, bands=["g"], reference_band="g", align=False)
    (tile,) = list_tiles(folder, one)
    reader = WholeTileReader(tile, one, 30.0)
    (image,) = reader.section(slice(None), slice(None))
    counts, flags, weight = (
        fits.getdata(next(folder.glob(f"c4d_*_{kind}_g_ls9.N26.fits")), 1)
        for kind in ("ooi", "ood", "oow")
    )
    bad = (flags != 0) | ~(weight > 0)
    assert (int((flags != 0).sum()), int(bad.sum())) == (65, 65)
    np.testing.assert_array_equal(np.isnan(image), bad)
    # Zero point 25.0 for 1 s and 90 s of exposure.
    scale = 10 ** (0.4 * (30.0 - 25.0)) / 90.0
    np.testing.assert_allclose(image[~bad], counts[~bad] * scale, rtol=1e-6)
