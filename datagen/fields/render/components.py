"""From source catalog to what a renderer draws: sheared Sersic profiles and points."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen.fields.render.extent import sersic_radius

FloatArray = NDArray[np.float64]

# Tables are kept per Sersic index; a finer grid would rebuild them all the time.
SERSIC_STEP = 0.1
SERSIC_RANGE = (0.3, 6.2)
EXPONENTIAL, DE_VAUCOULEURS = 1.0, 4.0
MAX_SHEAR = 0.95


@dataclass(frozen=True)
class Components:
    """N profiles; a galaxy that mixes two profiles has two rows.

    Args:
        x: Column of the centre, shape (N,) [px].
        y: Row of the centre, shape (N,) [px].
        flux: Shape (N, bands) [counts].
        half_light: Half-light radius before the shear, shape (N,) [px]; 0 for points.
        sersic: Sersic index, a multiple of `SERSIC_STEP`, shape (N,).
        shear: Reduced shear (g1, g2), |g| <= `MAX_SHEAR`, shape (N, 2).
    """

    x: FloatArray
    y: FloatArray
    flux: FloatArray
    half_light: FloatArray
    sersic: FloatArray
    shear: FloatArray

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Components:
        """Return some of the rows."""
        return Components(**{name: getattr(self, name)[rows] for name in _names()})

    def with_flux(self, flux: FloatArray) -> Components:
        """Return the same profiles with other fluxes, shape (N, bands) [counts]."""
        return dataclasses.replace(self, flux=flux)

    def reach(self, limit: FloatArray) -> FloatArray:
        """Return how far each profile stays brighter than a limit along its major axis.

        Args:
            limit: Surface brightness of each band, shape (bands,) [counts/px].

        Returns:
            Radius [px] in the band where it is largest, shape (N,).
        """
        shear = np.hypot(*self.shear.T)
        stretch = np.sqrt((1 + shear) / (1 - shear))
        signal = (self.flux / limit).max(axis=1, initial=0.0)
        radius = sersic_radius(signal, self.half_light, self.sersic, 1.0)
        return np.where(self.half_light > 0, radius * stretch, 0.0)


def components(sources: Table, bands: Sequence[str], pixel_scale: float) -> Components:
    """Return the profiles of a source catalog.

    Galaxies follow SERSIC_N where it is given (> 0), else FRACDEV mixes de Vaucouleurs with
    exponential. Stars and galaxies without a size are points. What has no flux is left out.

    Args:
        sources: Source catalog with pixel positions.
        bands: Bands whose fluxes are taken.
        pixel_scale: [arcsec/px].
    """
    flux = np.stack([_column(sources, f"FLUX_{band.upper()}") for band in bands], axis=1)
    half_light = np.maximum(_column(sources, "HLR") / pixel_scale, 0.0)
    half_light[_column(sources, "SOURCE_TYPE") == 1] = 0.0
    sersic = _column(sources, "SERSIC_N")
    is_mixed = (half_light > 0) & ~(sersic > 0)
    late = 1.0 - _column(sources, "FRACDEV")
    shear = np.stack([_column(sources, "G1"), _column(sources, "G2")], axis=1)
    shear *= np.minimum(MAX_SHEAR / np.maximum(np.hypot(*shear.T), MAX_SHEAR), 1.0)[:, None]
    x, y = _column(sources, "X"), _column(sources, "Y")
    quantised = np.round(sersic.clip(*SERSIC_RANGE) / SERSIC_STEP) * SERSIC_STEP
    first = Components(
        x=x,
        y=y,
        flux=flux * np.where(is_mixed, 1.0 - late, 1.0)[:, None],
        half_light=half_light,
        sersic=np.where(half_light > 0, np.where(is_mixed, DE_VAUCOULEURS, quantised), EXPONENTIAL),
        shear=shear,
    )
    second = dataclasses.replace(
        first,
        flux=flux * np.where(is_mixed, late, 0.0)[:, None],
        sersic=np.full_like(x, EXPONENTIAL),
    )
    return _joined(_shining(first), _shining(second))


def _shining(parts: Components) -> Components:
    return parts.take((parts.flux != 0).any(axis=1))


def _joined(first: Components, second: Components) -> Components:
    pairs = {name: (getattr(first, name), getattr(second, name)) for name in _names()}
    return Components(**{name: np.concatenate(pair) for name, pair in pairs.items()})


def _names() -> list[str]:
    return [field.name for field in dataclasses.fields(Components)]


def _column(sources: Table, name: str) -> FloatArray:
    return np.asarray(sources[name], np.float64)
