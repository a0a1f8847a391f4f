"""From a source catalog to the images of one field or survey tile, one FITS file per band."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen.fields.config import ImageConfig
from datagen.fields.noise import add_noise
from datagen.fields.psf import PsfModel, PsfSpread, draw_psf
from datagen.fields.render import View, get_renderer
from datagen.fields.version import FORMAT_VERSION
from datagen.files import Card
from datagen.seeds import stream
from datagen.version import VERSION

Header = dict[str, Card | tuple[Card, str]]


@dataclass(frozen=True)
class Exposure:
    """Everything but the sources that determines the images of one field or survey tile.

    Args:
        settings: Pixels, PSF and noise.
        renderer: Name of the renderer.
        seed: The run's seed.
        index: Number of the field or survey tile.
        kind: `field` or `tile`; names the random streams, so that field 3 and survey tile 3 of
            one seed differ.
        config_hash: Hash of the run's settings.
    """

    settings: ImageConfig
    renderer: str
    seed: int
    index: int
    kind: str
    config_hash: str

    def psf(self, band: str) -> PsfModel:
        """Draw the PSF of one band from its own stream."""
        settings = self.settings
        spread = PsfSpread(settings.psf_scatter, settings.psf_ellipticity, settings.psf_beta)
        rng = stream(self.seed, self.index, f"{self.kind}_psf_{band}")
        return draw_psf(settings.psf_fwhm_arcsec[band], spread, rng)

    def sigma(self, band: str) -> float:
        """Return the noise per pixel [counts] of one band."""
        return self.settings.sigma(band)

    def view(self, band: str, shape: tuple[int, int]) -> View:
        """Return what the renderer is asked to draw of one band."""
        settings = self.settings
        return View(shape, self.psf(band), band, settings.pixel_scale, settings.faint_limit(band))

    def noise_rng(self, band: str) -> np.random.Generator:
        """Return the stream of one band's noise."""
        return stream(self.seed, self.index, f"{self.kind}_noise_{band}")


def draw_bands(
    sources: Table, shape: tuple[int, int], bands: Sequence[str], exposure: Exposure
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield (band, image with noise) one after another.

    Args:
        sources: Source catalog with pixel positions of this image.
        shape: (H, W) [px].
        bands: Band names.
        exposure: PSF, noise and seeds.

    Yields:
        Band and counts, shape (H, W).
    """
    views = [exposure.view(band, shape) for band in bands]
    images = get_renderer(exposure.renderer)(sources, views)
    for band, image in zip(bands, images, strict=True):
        add_noise(image, exposure.sigma(band), exposure.noise_rng(band))
        yield band, image


def image_header(wcs_cards: dict[str, Card], band: str, exposure: Exposure) -> Header:
    """Return the FITS cards of one image.

    They hold no date, so that the same settings give the same bytes.

    Args:
        wcs_cards: World coordinates, from `datagen.fields.wcs.tan_cards`.
        band: Band name.
        exposure: PSF, noise and seeds.
    """
    psf, settings = exposure.psf(band), exposure.settings
    return {
        **wcs_cards,
        "BUNIT": ("counts", "at zero point MAGZERO"),
        "BAND": (band, "band"),
        "FILTER": (band, "band"),
        "MAGZERO": (settings.zero_point, "[mag] magnitude of one count"),
        "ZP": (settings.zero_point, "[mag] same as MAGZERO"),
        "PIXSCALE": (settings.pixel_scale, "[arcsec/px]"),
        "PSFFWHM": (psf.fwhm_arcsec, "[arcsec] Moffat FWHM"),
        "PSFBETA": (psf.beta, "Moffat beta"),
        "PSFE1": (psf.e1, "PSF distortion along x"),
        "PSFE2": (psf.e2, "PSF distortion along the diagonal"),
        "SKYSIGMA": (exposure.sigma(band), "[counts] noise per pixel"),
        "RENDERER": (exposure.renderer, "drew the sources"),
        "SEED": (exposure.seed, "seed of the run"),
        "INDEX": (exposure.index, f"number of the {exposure.kind}"),
        "CONFHASH": (exposure.config_hash, "hash of the settings"),
        "SOFTWARE": (f"skyfold {VERSION}", "made this file"),
        "FORMATV": (FORMAT_VERSION, "format version"),
    }
