"""Galaxies farther away are smaller and fainter, as closed forms say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from astropy.cosmology import FlatLambdaCDM

from datagen.errors import ConfigError
from encoders.galaxies.draws import About
from encoders.galaxies.geometry import Geometry, Resampling
from encoders.galaxies.redshifting import Redshifting, band_weights
from tests.encoders.galaxies.skies import SCALE, about_of, draw_of

STILL = {"turns": False, "flips": False, "jitter": 0.0, "size": [1.0, 1.0], "order": 3, "hides": []}
COSMOLOGY = FlatLambdaCDM(70.0, 0.3)
WAVELENGTHS = {"g": 4770.0, "r": 6231.0, "i": 7625.0}


def sersic(r: np.ndarray, n: float, r_eff: float) -> np.ndarray:
    """Return I / I(R_e) (Ciotti & Bertin 1999 for b)."""
    b = 2.0 * n - 1.0 / 3.0 + 4.0 / (405.0 * n)
    return np.exp(-b * ((r / r_eff) ** (1.0 / n) - 1.0))


@pytest.mark.parametrize("n", [1.0, 4.0])
def test_profiles_shrink_and_dim(n: float) -> None:
    y, x = np.indices((128, 128)) - 63.5
    stamp = torch.from_numpy(sersic(np.hypot(x, y) * SCALE, n, 4.0)).float()[None, None]
    moving = Redshifting([0.05, 0.05], None, "r", ["z"])
    op = Resampling(128, 65, Geometry(**STILL), None, moving)
    found, about = op(stamp, about_of(1), draw_of(1))
    assert about.redshift.item() == pytest.approx(0.15)
    before, after = (COSMOLOGY.angular_diameter_distance(z).value for z in (0.1, 0.15))
    y, x = np.indices((65, 65)) - 32.0
    r = np.hypot(x, y) * SCALE
    wanted = sersic(r, n, 4.0 * before / after) * (1.1 / 1.15) ** 3
    # The centre is a cusp, which pixels do not show.
    is_smooth = r > 2.0
    assert np.abs(found[0, 0].numpy() / wanted - 1.0)[is_smooth].max() < 0.002
    assert about.fwhm.item() == pytest.approx(0.7 * before / after, rel=1e-4)


def test_flux_follows_the_luminosity_distance() -> None:
    y, x = np.indices((96, 96)) - 47.5
    blob = torch.from_numpy(np.exp(-0.5 * (x**2 + y**2) / 16.0)).float()[None, None]
    n_stamps = 40
    moving = Redshifting([0.0, 0.08], None, "r", [])
    op = Resampling(96, 64, Geometry(**STILL), None, moving)
    found, about = op(blob.expand(n_stamps, -1, -1, -1), about_of(n_stamps), draw_of(n_stamps))
    z = about.redshift.double().numpy()
    assert z.min() < 0.11
    assert z.max() > 0.16
    ratio = COSMOLOGY.luminosity_distance(0.1).value / COSMOLOGY.luminosity_distance(z).value
    wanted = ratio**2 * (1.0 + z) / 1.1
    flux = found.double().sum((1, 2, 3)).numpy() / float(blob.sum())
    assert np.abs(flux / wanted - 1.0).max() < 2e-4


def test_noise_after_a_move() -> None:
    n_stamps = 64
    stamps = torch.randn(n_stamps, 3, 72, 72, generator=torch.Generator().manual_seed(2))
    moving = Redshifting([0.02, 0.1], WAVELENGTHS, "gri", [])
    op = Resampling(72, 40, Geometry(**(STILL | {"turns": True})), None, moving)
    found, about = op(stamps, about_of(n_stamps, bands=3), draw_of(n_stamps))
    scaled = found / about.sigma[..., None, None]
    assert scaled.square().mean((0, 2, 3)).sqrt().tolist() == pytest.approx([1.0] * 3, abs=0.02)


def test_no_border_is_seen_and_unknown_redshifts_stay() -> None:
    redshift = torch.tensor([0.05, math.nan, 0.0, 1.0])
    about = About(torch.ones(4), torch.ones(4, 1), torch.ones(4), redshift)
    size, gain, after = Redshifting([1.0, 1.0], None, "r", []).drawn(about, draw_of(4), 0.6)
    assert size[0].item() == pytest.approx(0.6, abs=2e-3)
    assert size[0] >= 0.6
    assert size[1:3].tolist() == gain[1:3].tolist() == [1.0, 1.0]
    torch.testing.assert_close(after[1:3], redshift[1:3], equal_nan=True)
    assert after[3].item() == pytest.approx(1.5, abs=1e-3)


@pytest.mark.parametrize("bands", ["gri", "irg", "r"])
def test_bands_are_interpolated(bands: str) -> None:
    logs = np.log([WAVELENGTHS[band] for band in bands])
    change = np.array([0.0, -0.05, -0.2, -1.0])
    flux = np.arange(1.0, len(bands) + 1.0)
    weights = band_weights(torch.from_numpy(logs), torch.from_numpy(change))
    order = np.argsort(logs)
    for row, step in zip(weights, change, strict=True):
        wanted = np.interp(logs + step, logs[order], flux[order])
        assert (row @ torch.from_numpy(flux)).tolist() == pytest.approx(wanted.tolist())


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="step"):
        Redshifting([-0.1, 0.1], None, "r", [])
    with pytest.raises(ConfigError, match="wavelengths for the bands g, z"):
        Redshifting([0.0, 0.1], WAVELENGTHS, "gz", [])
    with pytest.raises(ConfigError, match="expected wavelengths > 0"):
        Redshifting([0.0, 0.1], {"g": 0.0}, "g", [])
