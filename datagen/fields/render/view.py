"""What a renderer is asked to draw besides the sources."""

from __future__ import annotations

from dataclasses import dataclass

from datagen.fields.psf import PsfModel


@dataclass(frozen=True)
class View:
    """One image in one band.

    Args:
        shape: Image shape (H, W) [px].
        psf: The image's point-spread function.
        band: Band whose fluxes are drawn.
        pixel_scale: [arcsec/px].
        faint_limit: Surface brightness below which the outskirts of a source may be left out
            [counts/px]; a small fraction of the noise.
    """

    shape: tuple[int, int]
    psf: PsfModel
    band: str
    pixel_scale: float
    faint_limit: float
