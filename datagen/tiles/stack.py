"""Opens all bands of a survey tile and makes sure that they show the same pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datagen.errors import DataFormatError
from datagen.tiles.align import TOLERANCE_PX, largest_offset_px, resample
from datagen.tiles.bands import BandFile, PlaneFiles, open_band
from datagen.tiles.listing import Tile
from datagen.tiles.sections import MOST_ROWS
from datagen.tiles.survey import SurveySettings


def plane_files(tile: Tile, survey: SurveySettings) -> list[PlaneFiles]:
    """Return for each band of a survey tile its planes and their files."""
    files = iter(tile.planes)
    by_plane = [tile.paths if plane.pattern is None else next(files) for plane in survey.planes]
    return [
        list(zip(survey.planes, [paths[k] for paths in by_plane], strict=True))
        for k in range(len(survey.bands))
    ]


class TileBands:
    """The open files of a survey tile, whose headers are checked.

    Args:
        tile: Which files.
        survey: How they are stored.
        zero_point: Zero point of the encoder [mag].

    Attributes:
        files: One for each band.
        is_moved: Which bands have to be resampled to the reference band.

    Raises:
        DataFormatError: The survey tile is incomplete, damaged, or its bands do not fit together.
    """

    def __init__(self, tile: Tile, survey: SurveySettings, zero_point: float) -> None:
        if tile.problem is not None:
            raise DataFormatError(tile.problem, value=tile.name)
        self.survey = survey
        paths = dict(zip(survey.bands, tile.paths, strict=True))
        planes = dict(zip(survey.bands, plane_files(tile, survey), strict=True))
        self._files: dict[str, BandFile] = {}
        self._held: dict[int, NDArray[np.float32]] = {}
        try:
            # What is wrong in all files is said of the reference band.
            for band in sorted(survey.bands, key=lambda band: band != survey.reference_band):
                self._files[band] = open_band(paths[band], survey, band, zero_point, planes[band])
            self.reference = self._files[survey.reference_band]
            self.shape = self.reference.shape
            self.files = [self._files[band] for band in survey.bands]
            self.is_moved = [self._is_moved(band, self._files[band]) for band in survey.bands]
        except BaseException:
            self.close()
            raise

    def forget(self, row: int, column: int) -> None:
        """Give back the memory of what lies above `row` and left of `column` [px]."""
        for file in self.files:
            file.pixels.forget(row, column)

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def read(self, rows: slice, columns: slice, out: NDArray[np.float32]) -> None:
        """Write a section of all bands [counts] to `out`, shape (C, h, w), NaN where masked.

        Bands that have to be resampled are held whole once they were asked for.

        Raises:
            DataFormatError: A file is damaged there.
        """
        for index, image in enumerate(out):
            if not self.is_moved[index]:
                self.files[index].read(rows, columns, image)
                continue
            if index not in self._held:
                self._held[index] = np.empty(self.shape, np.float32)
                self.whole(index, self._held[index])
            np.copyto(image, self._held[index][rows, columns])

    def whole(self, index: int, out: NDArray[np.float32]) -> None:
        """Write all pixels of a band, on those of the reference band, to `out` (H, W)."""
        file = self.files[index]
        image = np.empty(file.shape, np.float32) if self.is_moved[index] else out
        height, width = file.shape
        # As high as the highest pieces that are streamed: each is decoded once.
        for first in range(0, height, MOST_ROWS):
            rows = slice(first, min(first + MOST_ROWS, height))
            file.read(rows, slice(0, width), image[rows])
            file.pixels.forget(rows.stop, width)
        if self.is_moved[index]:
            out[:] = resample(image, self.reference.wcs, file.wcs, self.shape)

    def _is_moved(self, band: str, file: BandFile) -> bool:
        """Return whether the pixels of a band are others than those of the reference band."""
        if file is self.reference:
            return False
        name = self.survey.reference_band
        offset = largest_offset_px(self.reference.wcs, file.wcs, self.shape)
        same_shape = file.shape == self.shape
        if same_shape and offset <= TOLERANCE_PX:
            return False
        if self.survey.align:
            return True
        hint = "survey.align=true resamples it"
        if not same_shape:
            raise DataFormatError(
                f"band {band} has shape {file.shape}, but band {name} has {self.shape}; {hint}",
                value=file.shape,
            )
        raise DataFormatError(
            f"the WCS of band {band} is {offset:.2f} px off that of band {name} (allowed: "
            f"{TOLERANCE_PX} px); {hint}",
            value=offset,
        )
