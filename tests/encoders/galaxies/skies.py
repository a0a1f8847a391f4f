"""Stamps of known sources for tests of views."""

from __future__ import annotations

from typing import Any

import galsim
import numpy as np
import torch
from torch import Tensor

from encoders.galaxies.draws import About, Draw
from encoders.galaxies.views import Views

SCALE = 0.3  # [arcsec/px]
FWHM = 0.7  # [arcsec]
WINGS = 3.5


def draw_of(n_stamps: int, epoch: int = 0, view: int = 0) -> Draw:
    return Draw(5, epoch, torch.arange(n_stamps), view)


def about_of(n_stamps: int, sigma: float = 1.0, bands: int = 1, redshift: float = 0.1) -> About:
    one = torch.ones(n_stamps)
    return About(FWHM * one, torch.full((n_stamps, bands), sigma), SCALE * one, redshift * one)


def drawn(profile: galsim.GSObject, side: int) -> Tensor:
    """Return an image of a profile with the PSF in the middle (1, 1, side, side), float32."""
    image = galsim.Convolve(profile, galsim.Moffat(beta=WINGS, fwhm=FWHM)).drawImage(
        nx=side, ny=side, scale=SCALE, method="no_pixel", dtype=float
    )
    return torch.from_numpy(np.array(image.array)).float()[None, None]


def point(side: int) -> Tensor:
    """Return an image of a star in the middle (1, 1, side, side)."""
    return drawn(galsim.DeltaFunction(), side)


def fitted_fwhm(image: Tensor) -> float:
    """Return the FWHM of the Moffat profile that fits an image of a star best [px]."""
    from scipy.optimize import least_squares

    pixels = image.double().numpy()
    y, x = np.indices(pixels.shape)

    def misfit(p: np.ndarray) -> np.ndarray:
        square = (
            ((x - p[2]) ** 2 + (y - p[3]) ** 2) * 4.0 * (2.0 ** (1.0 / WINGS) - 1.0) / p[1] ** 2
        )
        return (p[0] * (1.0 + square) ** -WINGS - pixels).ravel()

    middle = 0.5 * (len(pixels) - 1)
    fit = least_squares(misfit, [pixels.max(), FWHM / SCALE, middle, middle])
    return abs(float(fit.x[1]))


STEPS: dict[str, Any] = {
    "stretch": {"softening": 1.0},
    "geometry": {
        "turns": True,
        "flips": True,
        "jitter": 2.0,
        "size": [0.9, 1.1],
        "order": 3,
        "hides": [],
    },
    "exposure": None,
    "redshifting": None,
    "blur": None,
    "reddening": None,
    "noise": None,
}


def spread(median: float, scatter: float = 0.0) -> dict[str, float]:
    return {"shift": 0.0, "median": median, "scatter": scatter, "low": 0.0, "high": 100.0}


def views_of(store_px: int, train_px: int, bands: str = "r", **steps: object) -> Views:
    return Views(bands, store_px, train_px, 2, 5, **(STEPS | steps))
