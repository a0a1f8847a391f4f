"""Density of red-sequence galaxies per cell: the classical answer that an encoder must beat.

Every detection is weighted with how well its colours fit the red sequence at a redshift; the
weights are binned on cells, smoothed, compared with the background at that redshift, and the
redshift with the highest contrast wins (in the spirit of Gladders & Yee 2000,
doi:10.1086/301557).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datagen.fields import galaxies

Array = NDArray[np.float64]

REDSHIFTS = np.arange(0.10, 0.91, 0.04)
# Slices in which the members of one system stand alone when redshifts are known.
SLICES = np.arange(0.10, 0.91, 0.004)


@dataclass(frozen=True)
class DensitySettings:
    """What the validation fields choose.

    Args:
        smoothing: Standard deviation of the smoothing kernel [cells].
        local: Weight of the cell's own contrast beside the smoothed one.
        colour_width: Width of the red sequence beyond photometric errors [mag].
        magnitude_offset: Correction from aperture to total magnitude [mag].
        floor: Weight per cell that is added to the background in the noise of the contrast, so
            that single galaxies at redshifts where the background is empty do not win.
    """

    smoothing: float
    local: float
    colour_width: float
    magnitude_offset: float
    floor: float


GRID = tuple(
    DensitySettings(*values)
    for values in itertools.product(
        (2.0, 3.0, 4.0), (0.15, 0.3, 0.6), (0.07, 0.10, 0.15), (-0.4, 0.0), (0.03, 0.3)
    )
)


def red_sequence_weights(
    magnitudes: Array, colours: Array, colour_errors: Array, settings: DensitySettings
) -> Array:
    """Weight galaxies with their fit to the red sequence at each trial redshift.

    Args:
        magnitudes: i-band magnitudes, shape `(n,)`.
        colours: g-r, r-i, i-z, shape `(n, 3)` [mag].
        colour_errors: Their errors, shape `(n, 3)` [mag].
        settings: Width of the sequence and magnitude offset.

    Returns:
        exp(-chi^2 / 2) for galaxies brighter than 0.2 L*, else 0; shape `(redshifts, n)`.
    """
    expected: Array = galaxies.red_sequence(REDSHIFTS)[:, None, :]
    variance = colour_errors**2 + settings.colour_width**2
    chi2 = np.sum((colours - expected) ** 2 / variance, axis=-1)
    characteristic = galaxies.mstar(REDSHIFTS)[:, None]
    total = magnitudes + settings.magnitude_offset
    is_bright = (total < characteristic + galaxies.COUNTED_MAG) & (total > characteristic - 3.0)
    weights: Array = np.where(is_bright, np.exp(-0.5 * chi2), 0.0)
    return weights


def redshift_weights(magnitudes: Array, redshifts: Array) -> Array:
    """Weight galaxies whose true redshift is known: the oracle's weights.

    Args:
        magnitudes: i-band magnitudes, shape `(n,)`.
        redshifts: True redshifts, shape `(n,)`; 0 for stars.

    Returns:
        1 inside a slice and brighter than 0.2 L*, else 0; shape `(slices, n)`.
    """
    is_near = np.abs(redshifts - SLICES[:, None]) <= SLICES[1] - SLICES[0]
    is_bright = magnitudes < galaxies.mstar(SLICES)[:, None] + galaxies.COUNTED_MAG
    weights: Array = (is_near & is_bright).astype(float)
    return weights


def cell_counts(x: Array, y: Array, weights: Array, cell_px: int, n_cells: int) -> Array:
    """Sum weights on the cells of a square field.

    Args:
        x: Columns, shape `(n,)` [px].
        y: Rows, shape `(n,)` [px].
        weights: Shape `(redshifts, n)`.
        cell_px: Side of a cell [px].
        n_cells: Cells per side.

    Returns:
        Sums, shape `(redshifts, n_cells, n_cells)`.
    """
    # Pixel centres are integers, so that a cell spans [-0.5, cell_px - 0.5).
    column = np.floor((x + 0.5) / cell_px).astype(int)
    row = np.floor((y + 0.5) / cell_px).astype(int)
    is_inside = (column >= 0) & (column < n_cells) & (row >= 0) & (row < n_cells)
    flat = row[is_inside] * n_cells + column[is_inside]
    sums = [np.bincount(flat, w[is_inside], n_cells**2) for w in weights]
    return np.reshape(sums, (len(weights), n_cells, n_cells))


def background_counts(counts: Sequence[Array], membership: Sequence[NDArray[np.bool_]]) -> Array:
    """Return the mean weight per cell without members at each trial redshift.

    Args:
        counts: Per field, shape `(redshifts, ny, nx)`.
        membership: True labels per field, shape `(ny, nx)`.

    Returns:
        Shape `(redshifts,)`.
    """
    empty = [field[:, ~labels] for field, labels in zip(counts, membership, strict=True)]
    mean: Array = np.concatenate(empty, axis=1).mean(axis=1)
    return mean


def contrast(counts: Array, background: Array, settings: DensitySettings) -> Array:
    """Score each cell with the contrast at the redshift where its neighbourhood stands out most.

    Args:
        counts: One field, shape `(redshifts, ny, nx)`.
        background: Mean weight per empty cell, shape `(redshifts,)`.
        settings: Smoothing and weight of the cell itself.

    Returns:
        Scores, shape `(ny, nx)`; higher means more likely a member cell.
    """
    kernel = (0.0, settings.smoothing, settings.smoothing)
    # Dividing by the smoothed footprint keeps the density unbiased at the edge of the field.
    footprint = ndimage.gaussian_filter(np.ones_like(counts), kernel, mode="constant")
    smooth = ndimage.gaussian_filter(counts, kernel, mode="constant") / footprint
    level = background[:, None, None]
    noise = np.sqrt(level + settings.floor)
    context = (smooth - level) / noise
    best = np.argmax(context, axis=0)[None]
    own = (counts - level) / noise
    scores: Array = np.take_along_axis(context + settings.local * own, best, axis=0)[0]
    return scores
