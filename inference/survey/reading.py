"""Reads one survey tile: all bands on the same pixels, checked, in native floats.

`TileReader` is what the rest sees. `StreamingReader` reads sections from the files as they are
asked for. `WholeTileReader` holds the survey tile in memory, where bands have to be resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from datagen.errors import DataFormatError
from datagen.tiles.geometry import Cards
from datagen.tiles.listing import Tile
from datagen.tiles.sections import Steps, decode_first
from datagen.tiles.stack import TileBands
from datagen.tiles.survey import SurveySettings
from encoders.fields.normalize import N_SAMPLES, estimate_background

# Background and noise come from so few rows that files of compressed rows are hardly read twice;
# to decode one row alone costs astropy as much as several rows together.
SAMPLED_ROWS = 125


class TileReader(Protocol):
    """One survey tile.

    Attributes:
        shape: Shape (H, W) [px].
        cards: WCS cards of the reference band.
        background: Level of each band [counts], shape (C,).
        sigma: Noise of each band [counts], shape (C,).
    """

    shape: tuple[int, int]
    cards: Cards
    background: NDArray[np.float32]
    sigma: NDArray[np.float32]

    @property
    def n_kept(self) -> int:
        """Number of images of which decoded rows are kept: bands, and their planes."""

    @property
    def n_held(self) -> int:
        """Number of pixels in memory, all images together."""

    def read(self, rows: slice, columns: slice, out: NDArray[np.float32]) -> None:
        """Write pixels [counts] to `out`, shape (C, h, w), NaN where masked.

        Sections are asked for row by row of windows, from top to bottom; both slices have start
        and stop.

        Raises:
            DataFormatError: A file is damaged there.
        """

    def forget(self, row: int, column: int) -> None:
        """Give back the memory of what lies above `row` and left of `column` [px]."""

    def decode_ahead(self, room: int) -> bool:
        """Decode rows that will be asked for if they are at most `room` pixels.

        Returns:
            Whether anything was decoded.
        """

    def close(self) -> None:
        """Close the files."""


class StreamingReader:
    """Reads sections from the files as they are asked for.

    Args:
        bands: The files, all on the same pixels; closed with the reader.
    """

    def __init__(self, bands: TileBands) -> None:
        self._bands = bands
        self._is_damaged = False
        self.shape, self.cards = bands.shape, bands.reference.cards
        steps = sample_steps(self.shape)
        samples = [file.sample(steps) for file in bands.files]
        self.background, self.sigma = _measure(bands.survey.bands, samples, steps)

    def read(self, rows: slice, columns: slice, out: NDArray[np.float32]) -> None:
        """Write pixels [counts] to `out`, shape (C, h, w), NaN where masked; see `TileReader`."""
        for file, image in zip(self._bands.files, out, strict=True):
            file.read(rows, columns, image)

    @property
    def n_kept(self) -> int:
        """Number of images of which decoded rows are kept: bands, and their planes."""
        return sum(file.pixels.n_kept for file in self._bands.files)

    @property
    def n_held(self) -> int:
        """Number of pixels in memory, all images together."""
        return sum(file.pixels.n_held for file in self._bands.files)

    def forget(self, row: int, column: int) -> None:
        """Give back the memory of what lies above `row` and left of `column` [px]."""
        self._bands.forget(row, column)

    def decode_ahead(self, room: int) -> bool:
        """Decode rows that will be asked for if they are at most `room` pixels."""
        if self._is_damaged:
            return False
        try:
            return decode_first(room, self._bands.files)
        except DataFormatError:
            # It is raised again when these rows are asked for; those before are well.
            self._is_damaged = True
            return False

    def close(self) -> None:
        """Close the files."""
        self._bands.close()


class WholeTileReader:
    """Holds a whole survey tile.

    Args:
        tile: Which files.
        survey: How they are stored.
        zero_point: Zero point of the encoder [mag].
        bands: Its files, where they are open; closed in any case.

    Raises:
        DataFormatError: The survey tile is incomplete, damaged, or its bands do not fit together.
    """

    def __init__(
        self,
        tile: Tile,
        survey: SurveySettings,
        zero_point: float,
        bands: TileBands | None = None,
    ) -> None:
        bands = bands or TileBands(tile, survey, zero_point)
        try:
            self.shape, self.cards = bands.shape, bands.reference.cards
            self._images = np.empty((len(bands.files), *self.shape), np.float32)
            for index, image in enumerate(self._images):
                bands.whole(index, image)
        finally:
            bands.close()
        steps = sample_steps(self.shape)
        samples = [image[:: steps[0], :: steps[1]] for image in self._images]
        self.background, self.sigma = _measure(survey.bands, samples, steps)

    def section(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Return pixels [counts], shape (C, h, w), NaN where masked; not to be changed."""
        view: NDArray[np.float32] = self._images[:, rows, columns]
        return view

    def read(self, rows: slice, columns: slice, out: NDArray[np.float32]) -> None:
        """Write pixels [counts] to `out`, shape (C, h, w), NaN where masked; see `TileReader`."""
        np.copyto(out, self.section(rows, columns))

    @property
    def n_kept(self) -> int:
        """Rows are not kept beside the images."""
        return 0

    @property
    def n_held(self) -> int:
        """Number of pixels in memory, all images together."""
        return self._images.size

    def forget(self, row: int, column: int) -> None:
        """All is kept until the end."""

    def decode_ahead(self, room: int) -> bool:
        """All is decoded."""
        return False

    def close(self) -> None:
        """Nothing is open."""


def open_tile(tile: Tile, survey: SurveySettings, zero_point: float) -> TileReader:
    """Return a reader that streams, or holds a survey tile whose bands have to be resampled.

    Args:
        tile: Which files.
        survey: How they are stored.
        zero_point: Zero point of the encoder [mag].

    Raises:
        DataFormatError: The survey tile is incomplete, damaged, or its bands do not fit together.
    """
    bands = TileBands(tile, survey, zero_point)
    try:
        if not any(bands.is_moved):
            return StreamingReader(bands)
    except BaseException:
        bands.close()
        raise
    return WholeTileReader(tile, survey, zero_point, bands)


def sample_steps(shape: tuple[int, int]) -> Steps:
    """Return from every how many rows and columns background and noise are measured.

    Few rows and in them many pixels, for files whose rows are compressed. The same for all kinds of
    files, because the scores depend on it.
    """
    height, width = shape
    row_step = -(-height // SAMPLED_ROWS)
    n_rows = -(-height // row_step)
    return row_step, -(-width // (N_SAMPLES // n_rows))


def _measure(
    bands: Sequence[str], samples: Sequence[NDArray[np.float32]], steps: Steps
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the background and the noise of each band, both of shape (C,)."""
    where = "" if steps == (1, 1) else f" (one of {steps[0]} rows and of {steps[1]} columns seen)"
    levels = []
    for band, sample in zip(bands, samples, strict=True):
        valid = np.isfinite(sample)
        if not valid.any():
            raise DataFormatError(
                f"band {band} has no valid pixel: all are NaN or survey.blank_value{where}",
                value=band,
            )
        if np.nanmin(sample) == np.nanmax(sample):
            level = float(np.nanmin(sample))
            raise DataFormatError(
                f"all pixels of band {band} are {level}; is it an image?{where}", value=level
            )
        levels.append(_level(sample, valid, band))
    array = np.array(levels, np.float32)
    return array[:, 0], array[:, 1]


def _level(image: NDArray[np.float32], valid: NDArray[np.bool_], band: str) -> tuple[float, float]:
    """Return the background and the noise of a band [counts]; refuse what has no noise."""
    background, sigma = estimate_background(image, valid)
    # 1 also stands for "unknown" there; a true noise doubles with the counts.
    if sigma == 1 and estimate_background(2 * image, valid)[1] == 1:
        raise DataFormatError(
            f"the noise of band {band} cannot be measured: {valid.mean():.1%} of its pixels are "
            "valid, and most of these are equal; survey.blank_value names a value that marks "
            "pixels without data",
            value=band,
        )
    return background, sigma
