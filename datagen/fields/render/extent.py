"""How far the light of a source reaches: stamp sizes from flux, size and profile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gamma

from datagen.fields.psf import PsfModel


def sersic_slope(n: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return b_n of the Sersic profile exp(-b_n (r/R_e)^(1/n)).

    Series of Ciotti & Bertin 1999 (A&A 352, 447, eq. 18), good to 1e-4 for n >= 0.5.
    """
    n = np.maximum(n, 0.5)
    return np.asarray(2.0 * n - 1.0 / 3.0 + 4.0 / (405.0 * n) + 46.0 / (25515.0 * n**2))


def sersic_radius(
    flux: NDArray[np.float64],
    half_light: NDArray[np.float64],
    n: NDArray[np.float64],
    limit: float,
) -> NDArray[np.float64]:
    """Return the radius at which a round Sersic profile falls to a surface brightness.

    I(r) = I_0 exp(-b_n (r/R_e)^(1/n)) with I_0 = F b_n^(2n) / (2 pi n Gamma(2n) R_e^2).

    Args:
        flux: F, shape (n_sources,) [counts].
        half_light: R_e, shape (n_sources,) [px].
        n: Sersic index, shape (n_sources,).
        limit: Surface brightness [counts/px].

    Returns:
        Radius [px], shape (n_sources,); 0 where the profile is fainter everywhere.
    """
    b = sersic_slope(n)
    size = np.maximum(half_light, 1e-6)
    peak = flux * b ** (2 * n) / (2 * np.pi * n * gamma(2 * n) * size**2)
    return np.asarray(size * (np.log(np.maximum(peak / limit, 1.0)) / b) ** n)


def psf_radius(
    flux: NDArray[np.float64], psf: PsfModel, pixel_scale: float, limit: float
) -> NDArray[np.float64]:
    """Return the radius [px] at which point sources fall to `limit` [counts/px].

    Inverse of the Moffat profile; see `PsfModel`.
    """
    peak = np.maximum(flux, 0.0) * psf.peak_per_arcsec2 * pixel_scale**2
    ratio = np.maximum(peak / limit, 1.0)
    return np.asarray(psf.scale_arcsec / pixel_scale * np.sqrt(ratio ** (1.0 / psf.beta) - 1.0))
