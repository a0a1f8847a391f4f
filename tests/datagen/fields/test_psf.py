from __future__ import annotations

import galsim
import numpy as np
import pytest

from datagen.fields.psf import PsfModel, PsfSpread, draw_psf
from datagen.seeds import stream


def test_width_and_flux_of_the_profile() -> None:
    psf = PsfModel(0.9, 3.0, 0.0, 0.0).galsim()
    assert psf.flux == pytest.approx(1.0)
    assert psf.calculateFWHM() == pytest.approx(0.9, rel=3e-3)


def test_closed_forms_agree_with_galsim() -> None:
    model = PsfModel(0.9, 2.7, 0.0, 0.0)
    profile = model.galsim()
    peak = profile.xValue(0, 0)
    assert model.peak_per_arcsec2 == pytest.approx(peak, rel=1e-3)
    radius = model.radius_arcsec(1e-3)
    assert profile.xValue(radius, 0) / peak == pytest.approx(1e-3, rel=1e-3)
    assert model.radius_arcsec(1.0) == 0.0


def test_ellipticity_is_a_distortion_along_the_axes() -> None:
    psf = PsfModel(0.9, 3.0, 0.1, 0.0).galsim()
    moments = galsim.hsm.FindAdaptiveMom(psf.drawImage(nx=64, ny=64, scale=0.1))
    assert moments.observed_e1 == pytest.approx(0.1, abs=5e-3)
    assert moments.observed_e2 == pytest.approx(0.0, abs=1e-3)


def test_draws_scatter_about_the_median_and_repeat() -> None:
    spread = PsfSpread(scatter=0.1, ellipticity=0.02, beta=3.0)
    models = [draw_psf(0.88, spread, stream(1, index, "field_psf_i")) for index in range(1000)]
    width = np.log([model.fwhm_arcsec for model in models])
    assert np.exp(np.median(width)) == pytest.approx(0.88, rel=0.02)
    assert width.std() == pytest.approx(0.1, rel=0.1)
    assert np.std([model.e1 for model in models]) == pytest.approx(0.02, rel=0.1)
    assert models[3] == draw_psf(0.88, spread, stream(1, 3, "field_psf_i"))
