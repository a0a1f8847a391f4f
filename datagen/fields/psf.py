"""The point-spread function of one image: an elliptical Moffat profile."""

from __future__ import annotations

import math
from dataclasses import dataclass

import galsim
import numpy as np


@dataclass(frozen=True)
class PsfModel:
    """An elliptical Moffat profile of unit flux.

    I(r) ~ (1 + (r / r_d)^2)^-beta, Moffat 1969 (A&A 3, 455).

    Args:
        fwhm_arcsec: Full width at half maximum before the ellipticity is applied [arcsec].
        beta: Slope of the wings, > 1.
        e1: Distortion (a^2 - b^2)/(a^2 + b^2) along x, in pixel coordinates.
        e2: Distortion along the diagonal, in pixel coordinates.
    """

    fwhm_arcsec: float
    beta: float
    e1: float
    e2: float

    @property
    def scale_arcsec(self) -> float:
        """Return the Moffat scale radius r_d [arcsec]."""
        return self.fwhm_arcsec / (2.0 * math.sqrt(2.0 ** (1.0 / self.beta) - 1.0))

    def radius_arcsec(self, peak_ratio: float) -> float:
        """Return the radius [arcsec] where the profile has fallen to `peak_ratio` of its peak."""
        if peak_ratio >= 1.0:
            return 0.0
        return self.scale_arcsec * math.sqrt(peak_ratio ** (-1.0 / self.beta) - 1.0)

    @property
    def peak_per_arcsec2(self) -> float:
        """Return the central surface brightness of unit flux [1/arcsec^2]."""
        return (self.beta - 1.0) / (math.pi * self.scale_arcsec**2)

    def galsim(self) -> galsim.GSObject:
        """Return the profile as a GalSim object in units of arcsec."""
        profile = galsim.Moffat(beta=self.beta, fwhm=self.fwhm_arcsec)
        return profile.shear(e1=self.e1, e2=self.e2)


@dataclass(frozen=True)
class PsfSpread:
    """How the PSF varies between images.

    Args:
        scatter: Relative scatter of the FWHM (standard deviation of its logarithm).
        ellipticity: Standard deviation of each of e1 and e2.
        beta: Slope of the Moffat wings, the same for all images.
    """

    scatter: float
    ellipticity: float
    beta: float


def draw_psf(median_fwhm_arcsec: float, spread: PsfSpread, rng: np.random.Generator) -> PsfModel:
    """Draw the PSF of one image: log-normal FWHM about the band's median, Gaussian e1 and e2.

    Args:
        median_fwhm_arcsec: The band's median FWHM [arcsec].
        spread: Variation between images.
        rng: The image's own stream.
    """
    scatter, e1, e2 = rng.standard_normal(3)
    return PsfModel(
        fwhm_arcsec=float(median_fwhm_arcsec * math.exp(spread.scatter * scatter)),
        beta=spread.beta,
        e1=float(spread.ellipticity * e1),
        e2=float(spread.ellipticity * e2),
    )
