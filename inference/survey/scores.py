"""Score maps: one FITS file per survey tile, one pixel per cell."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from datagen import files
from datagen.errors import DataFormatError, DataNotFoundError
from datagen.tiles.geometry import Cards, celestial_wcs, rescaled_cards, wcs_cards
from inference.survey.estimates import ESTIMATES, Planes

FORMAT_VERSION = 1
PLANES = ("SCORE", "COVERAGE", "MASKFRAC")

_COMMENTS = {
    "TILE": "survey tile",
    "CELL_PX": "side of a cell [px of the survey tile]",
    "NPIX_X": "width of the survey tile [px]",
    "NPIX_Y": "height of the survey tile [px]",
    "CKPTSHA": "",  # a SHA-256 leaves no room for a comment
    "RUNHASH": "checkpoint and settings",
    "TILEHASH": "checkpoint, settings and input",
    "VERSION": "Skyfold version",
    "THRESH": "threshold of candidates",
    "NWINDOWS": "windows of the survey tile",
    "NPLANES": "images in this file",
    "FMTVERS": "format version",
}


@dataclass(frozen=True)
class ScoreMap:
    """Scores of one survey tile.

    Args:
        score: Probability that a cell holds a cluster member, shape (ny, nx); NaN where no pixel
            was seen.
        coverage: Fraction of each cell on the survey tile.
        mask_fraction: Fraction of these pixels that are masked in any band.
        tile_cards: WCS cards of the survey tile itself.
        meta: TILE, CELL_PX, NPIX_X, NPIX_Y and where the scores come from.
        estimates: Those of `estimates.ESTIMATES` that the encoder has heads for, shape (ny, nx)
            each; NaN where the score is.
    """

    score: NDArray[np.float32]
    coverage: NDArray[np.float32]
    mask_fraction: NDArray[np.float32]
    tile_cards: Cards
    meta: Mapping[str, str | int | float]
    estimates: Planes = field(default_factory=dict)

    @property
    def tile(self) -> str:
        """Name of the survey tile."""
        return str(self.meta["TILE"])

    @property
    def cell_px(self) -> int:
        """Side of a cell [px]."""
        return int(self.meta["CELL_PX"])

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Shape (H, W) of the survey tile [px]."""
        return int(self.meta["NPIX_Y"]), int(self.meta["NPIX_X"])

    @property
    def tile_wcs(self) -> WCS:
        """WCS of the survey tile."""
        return celestial_wcs(self.tile_cards, self.tile)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Cells of which at least half was seen, shape (ny, nx)."""
        seen: NDArray[np.bool_] = self.seen_fraction >= 0.5
        return seen

    @property
    def seen_fraction(self) -> NDArray[np.float32]:
        """Fraction of each cell that is on the survey tile and not masked, shape (ny, nx)."""
        fraction: NDArray[np.float32] = self.coverage * (1 - self.mask_fraction)
        return fraction


def write_scores(path: Path, scores: ScoreMap) -> None:
    """Write a score map atomically."""
    files.write_bytes(path, to_fits(scores))


def to_fits(scores: ScoreMap) -> bytes:
    """Return a score map as the bytes of a FITS file; equal maps give equal bytes."""
    cards = rescaled_cards(scores.tile_cards, scores.cell_px)
    planes = [*zip(PLANES, (scores.score, scores.coverage, scores.mask_fraction), strict=True)]
    planes += [(ESTIMATES[name], plane) for name, plane in scores.estimates.items()]
    counts = {"FMTVERS": FORMAT_VERSION, "NPLANES": len(planes)}
    hdus = []
    for index, (name, plane) in enumerate(planes):
        header = fits.Header()
        for key, value in cards.items():
            header[key] = value
        if index == 0:
            for key, value in {**scores.meta, **counts}.items():
                header[key] = (value, _COMMENTS.get(key, ""))
        hdu = fits.PrimaryHDU if index == 0 else fits.ImageHDU
        hdus.append(hdu(plane.astype(np.float32), header))
        hdus[-1].header["EXTNAME"] = name
    buffer = io.BytesIO()
    fits.HDUList(hdus).writeto(buffer)
    return buffer.getvalue()


def read_scores(path: Path) -> ScoreMap:
    """Read a score map.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: The file is no score map.
    """
    try:
        with fits.open(path, memmap=False) as hdus:
            header = hdus[0].header
            planes = [np.asarray(hdus[name].data, np.float32) for name in PLANES]
            estimates = {
                name: np.asarray(hdus[plane].data, np.float32)
                for name, plane in ESTIMATES.items()
                if plane in hdus
            }
            _check_count(hdus)
            meta = {key: header[key] for key in _COMMENTS if key in header}
            cards = rescaled_cards(wcs_cards(header), 1 / int(meta["CELL_PX"]))
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{path} does not exist", value=str(path)) from error
    except Exception as error:  # astropy raises many unrelated classes for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataFormatError(
            f"{path} is damaged or no score map: {reason}; `python inference/predict.py` with the "
            "same settings writes it again",
            value=str(path),
        ) from error
    return ScoreMap(planes[0], planes[1], planes[2], cards, meta, estimates)


def _check_count(hdus: fits.HDUList) -> None:
    """Raise if images are missing: a file that lost its end can look like one without estimates."""
    expected = hdus[0].header.get("NPLANES", len(PLANES))
    if len(hdus) != expected:
        raise ValueError(f"it has {len(hdus)} images instead of {expected}")
