"""A detection catalogue from images: peaks and colours measured alike in every band."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]

# Full width at half maximum of a Gaussian in units of its standard deviation.
FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


@dataclass(frozen=True)
class Detections:
    """Sources found in one image.

    Args:
        x: Columns, shape `(n,)` [px, 0-based pixel centres].
        y: Rows, shape `(n,)` [px].
        flux: Gaussian-aperture fluxes, normalised for point sources, shape `(n, bands)` [counts].
        flux_error: Their background errors, shape `(bands,)` [counts].
    """

    x: Array
    y: Array
    flux: Array
    flux_error: Array


def detect_sources(
    images: NDArray[np.float32],
    fwhm_px: Array,
    aperture_fwhm_px: float = 6.0,
    threshold: float = 5.0,
) -> Detections:
    """Find sources and measure colours in apertures that see the same part of a galaxy.

    All bands are smoothed to the worst seeing, then weighted with one Gaussian aperture. A source
    is a local maximum of the summed signal-to-noise ratio of all bands.

    Args:
        images: Background-subtracted images, shape `(bands, H, W)` [counts].
        fwhm_px: Seeing per band, shape `(bands,)` [px].
        aperture_fwhm_px: Width of the Gaussian aperture [px].
        threshold: Smallest combined signal-to-noise ratio.

    Returns:
        The detections.
    """
    worst = float(np.max(fwhm_px))
    maps = np.stack(
        [
            ndimage.gaussian_filter(
                image.astype(np.float64), np.hypot(aperture_fwhm_px, extra) / FWHM, truncate=3.0
            )
            for image, extra in zip(images, np.sqrt(worst**2 - fwhm_px**2), strict=True)
        ]
    )
    noise = np.array([_robust_sigma(image) for image in maps])
    combined = np.sum(maps / noise[:, None, None], axis=0) / np.sqrt(len(maps))
    is_peak = (combined == ndimage.maximum_filter(combined, size=7)) & (combined > threshold)
    y, x = np.nonzero(is_peak)
    # Response of the smoothing kernels to a point source of unit flux at its peak.
    peak = FWHM**2 / (2.0 * np.pi * (worst**2 + aperture_fwhm_px**2))
    return Detections(x.astype(float), y.astype(float), maps[:, y, x].T / peak, noise / peak)


def _robust_sigma(image: Array) -> float:
    """Return the standard deviation of the background from the lower half of a sub-sample."""
    sample = image[::4, ::4].ravel()
    low, median = np.percentile(sample, [15.865, 50.0])
    return float(median - low)
