"""Stars have the FWHM that was drawn, whatever else has happened to them."""

from __future__ import annotations

import math
from dataclasses import replace

import galsim
import numpy as np
import pytest
import torch

from datagen.errors import ConfigError
from encoders.galaxies.blurring import WINGS, Blur, transfer
from encoders.galaxies.geometry import Geometry, Resampling
from tests.encoders.galaxies.skies import SCALE, about_of, draw_of, fitted_fwhm, point, spread

ANY = {"turns": True, "flips": True, "jitter": 2.0, "size": [0.9, 1.1], "order": 3, "hides": []}


@pytest.mark.parametrize(("fwhm", "order"), [(0.8, 3), (1.0, 3), (1.4, 3), (1.0, 1)])
def test_stars_reach_their_fwhm_in_any_pose(fwhm: float, order: int) -> None:
    n_stars = 8
    blur = Blur(spread(fwhm), 3.5, ["fwhm"])
    op = Resampling(64, 33, Geometry(**(ANY | {"order": order})), blur, None)
    found, about = op(point(64).expand(n_stars, -1, -1, -1), about_of(n_stars), draw_of(n_stars))
    assert op.hides == ("fwhm",)
    assert about.fwhm.tolist() == pytest.approx([fwhm] * n_stars)
    measured = np.array([fitted_fwhm(star[0]) for star in found])
    assert np.abs(measured * SCALE / fwhm - 1.0).max() < (0.01 if order == 3 else 0.02)


@pytest.mark.parametrize("wings", [None, *WINGS])
def test_kernels_turn_one_psf_into_another(wings: float | None) -> None:
    def psf(fwhm: float) -> galsim.GSObject:
        return galsim.Gaussian(fwhm=fwhm) if wings is None else galsim.Moffat(wings, fwhm=fwhm)

    radius = torch.linspace(0.0, 0.7, 8, dtype=torch.float64)[None]
    before, after = torch.tensor([2.1, 3.0]).double(), torch.tensor([3.3, 3.0]).double()
    found = transfer(radius, before, after, wings)[:, 0]
    k = 2.0 * math.pi * radius[0]
    wanted = [psf(3.3).kValue(x, 0).real / psf(2.1).kValue(x, 0).real for x in k.tolist()]
    assert found[0].tolist() == pytest.approx(wanted, abs=1e-5)
    assert found[1].tolist() == pytest.approx([1.0] * 8)


def test_wide_and_unknown_psfs_stay() -> None:
    about = replace(about_of(2), fwhm=torch.tensor([1.5, math.nan]))
    blur = Blur(spread(1.0), 3.5, [])
    op = Resampling(64, 48, Geometry(**(ANY | {"size": [1.0, 1.0]})), blur, None)
    same = Resampling(64, 48, op.geometry, None, None)
    stamps, draw = point(64).expand(2, -1, -1, -1), draw_of(2)
    found, after = op(stamps, about, draw)
    torch.testing.assert_close(found, same(stamps, about, draw)[0])
    torch.testing.assert_close(after.fwhm, about.fwhm, equal_nan=True)


def test_wings_without_a_closed_form_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"got wings = 3\.0"):
        Blur(spread(1.0), 3.0, [])
