"""How images of galaxies and groups are seen: PSF, noise, and what a survey adds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import galsim
import numpy as np
from numpy.typing import NDArray

from datagen.fields.galaxies import (
    field_density,
    sample_field_magnitudes,
    sample_field_redshifts,
)
from datagen.fields.templates import template_colours
from datagen.galaxies import physics
from datagen.galaxies.galaxy import disc_profile
from datagen.galaxies.render import Component, moffat
from datagen.galaxies.settings import ImagingSettings, SystematicsSettings
from datagen.galaxies.streams import Array, rotation
from datagen.galaxies.version import BANDS

# Brightest unrelated galaxy [i mag]; brighter ones would be the object.
_BRIGHTEST = 18.0
# Half-light radii of unrelated galaxies: median at i = 22 [arcsec], change and scatter [dex/mag].
_SIZE, _SIZE_SLOPE, _SIZE_SCATTER = 0.5, -0.08, 0.15


@dataclass(frozen=True)
class Conditions:
    """What one image is seen through.

    Args:
        psf: PSF of unit flux [arcsec].
        fwhm: Its full width at half maximum [arcsec].
        sky: Noise of the sky, (bands,) [nanomaggies per pixel].
        factor: Of all fluxes, (bands,).
        background: What is left of the sky: its mean, and its change from the centre to the edge
            along x and y, (3, bands) [nanomaggies per pixel].
    """

    psf: galsim.GSObject
    fwhm: float
    sky: Array
    factor: Array
    background: Array


def draw_conditions(
    imaging: ImagingSettings, systematics: SystematicsSettings, rng: np.random.Generator
) -> Conditions:
    """Draw what one image is seen through; without systematics it is the same for all."""
    bands, sky = imaging.bands, np.array([imaging.sky[band] for band in imaging.bands])
    n = len(bands)
    if not systematics.is_on:
        psf = moffat(imaging.fwhm, imaging.moffat)
        return Conditions(psf, imaging.fwhm, sky, np.ones(n), np.zeros((3, n)))
    normal = rng.standard_normal(4)
    fwhm = imaging.fwhm * math.exp(systematics.fwhm_scatter * normal[0])
    g1, g2 = (float(np.clip(systematics.ellipticity * value, -0.3, 0.3)) for value in normal[1:3])
    sky = sky * math.exp(systematics.depth_scatter * normal[3])
    extinction = np.array([physics.EXTINCTION[band] for band in bands])
    dimming = extinction * systematics.reddening * rng.standard_exponential()
    dimming = dimming + systematics.zero_point * rng.standard_normal(n)
    background = systematics.background * rng.standard_normal((3, n)) * sky
    psf = moffat(fwhm, imaging.moffat, g1, g2)
    return Conditions(psf, fwhm, sky, 10.0 ** (-0.4 * dimming), background)


def neighbours(
    limit: float, bands: list[str], width: float, rng: np.random.Generator
) -> Iterator[Component]:
    """Draw unrelated galaxies, with counts and redshifts of `datagen.fields.galaxies`.

    Args:
        limit: Their faintest i magnitude.
        bands: Out of g, r, i, z.
        width: Of the image [arcsec].
        rng: Generator.
    """
    area = (width / 60.0) ** 2
    n = int(rng.poisson((field_density(limit) - field_density(_BRIGHTEST)) * area))
    magnitude = sample_field_magnitudes(rng, n, _BRIGHTEST, limit)
    z = sample_field_redshifts(rng, magnitude)
    colours = template_colours(2.0 * rng.random(n), z)
    size = _SIZE * 10.0 ** (
        _SIZE_SLOPE * (magnitude - 22.0) + _SIZE_SCATTER * rng.standard_normal(n)
    )
    gr, ri, iz = colours.T
    above_i = np.stack([gr + ri, ri, np.zeros_like(ri), -iz], axis=-1)
    fluxes = physics.flux(magnitude[:, None] + above_i)[:, [BANDS.index(band) for band in bands]]
    for k in range(n):
        shape = physics.ellipse(rotation(rng), 0.2)
        x, y = width * (rng.random(2) - 0.5)
        profile = disc_profile(float(size[k]), *shape)
        yield Component(profile, fluxes[k], (float(x), float(y)), is_whole=False)


def observe(
    image: Array, gain: float, conditions: Conditions, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Add noise of sky and photons and what is left of the sky.

    Args:
        image: Noiseless, (bands, side, side) [nanomaggies].
        gain: Electrons per nanomaggy.
        conditions: What it is seen through.
        rng: Generator of the noise.
    """
    seen = image * conditions.factor[:, None, None]
    variance = conditions.sky[:, None, None] ** 2 + np.maximum(seen, 0.0) / gain
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    slope = np.linspace(-1.0, 1.0, image.shape[-1])
    level, along_x, along_y = conditions.background[:, :, None, None]
    left = level + along_x * slope + along_y * slope[:, None]
    observed: NDArray[np.float32] = (seen + left + np.sqrt(variance) * noise).astype(np.float32)
    return observed
