"""Real images pass with nothing but a file of their suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from omegaconf import DictConfig

from conf.build import build_settings
from datagen import pipeline
from datagen.files import read_json
from datagen.stamps import format as files

pytestmark = pytest.mark.real_data


def test_the_hsc_cutout_passes(
    composed: Callable[..., DictConfig], shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "images" / "hsc"
    changes = ["data_gen.image.store_px=48", f"suites.hsc_cutout.folder={folder}"]
    cfg = composed("datagen", "data_gen=stamps", "suite=[hsc_cutout]", *changes)
    cfg.data_gen.data_dir = str(tmp_path)
    assert pipeline.run(build_settings(cfg.data_gen, "data_gen")) == {"made": 2, "skipped": 0}
    table = files.read_labels(tmp_path / "hsc_cutout")
    stamp = files.read_stamps(files.stamps_path(tmp_path / "hsc_cutout", 0))[0]
    with np.load(folder / "hsc_cosmos_35.npz") as found:
        raw, variance = found["images"].astype(float), found["variance"]
    assert files.bands_of(table.meta) == ["g", "r", "i", "z", "y"]
    assert table["OBJECT"].tolist() == [35]
    assert table["SCALE"][0] == pytest.approx(0.168)
    # The largest square of 58 x 48 pixels, from zero point 27 to 22.5.
    assert stamp == pytest.approx(raw[:, 5:53] * 10 ** (-0.4 * 4.5), rel=1e-5)
    # Noise as measured, in a scene full of sources, is somewhat more than what the image brings.
    sigma = np.sqrt(np.median(variance[0])) * 10 ** (-0.4 * 4.5)
    assert sigma < table["SKYSIGMA"][0] < 2 * sigma


def test_decam_exposures_pass(
    composed: Callable[..., DictConfig], shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "images" / "decam"
    changes = ["data_gen.image.store_px=96", f"suites.decam_exposures.folder={folder}"]
    changes += ["suites.decam_exposures.crop.factor=0.9"]
    cfg = composed("datagen", "data_gen=stamps", "suite=[decam_exposures]", *changes)
    cfg.data_gen.data_dir = str(tmp_path)
    pipeline.run(build_settings(cfg.data_gen, "data_gen"))
    table = files.read_labels(tmp_path / "decam_exposures")
    stamps = files.read_stamps(files.stamps_path(tmp_path / "decam_exposures", 0))
    assert stamps.shape == (4, 1, 96, 96)
    assert np.isfinite(stamps).all()
    scales = sorted(table["SCALE"].tolist())
    assert scales == pytest.approx([0.2623 * n / 96 for n in (90, 91, 91, 252)], rel=1e-3)
    for row, stamp in zip(table, stamps, strict=True):
        with fits.open(folder / str(row["FILE"])) as hdus:
            exposure, gain = hdus[0].header["EXPTIME"], hdus[1].header["GAINA"]
            fwhm, sky = hdus[1].header["FWHM"], hdus[1].header["AVSKY"]
        assert row["FWHM"] == pytest.approx(fwhm * 0.2623)
        # The sky is gone, but for the wings of galaxies, and its noise is that of photons.
        assert abs(np.median(stamp)) < 2 * row["SKYSIGMA"]
        factor = 10 ** (-0.4 * (25.1 + 2.5 * np.log10(exposure) - 22.5))
        pixels = row["SCALE"] / 0.2623
        assert row["SKYSIGMA"] == pytest.approx(np.sqrt(sky / gain) * factor * pixels, rel=0.5)
    assert read_json(tmp_path / "decam_exposures" / "report.json")["dropped"] == {}
