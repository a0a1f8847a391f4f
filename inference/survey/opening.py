"""Opens survey tiles one after the other, and prepares the next one while there is time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from datagen.errors import DataFormatError
from datagen.tiles.listing import Tile
from inference.survey.reading import TileReader

# Rows that are decoded ahead beyond those of one row of windows.
ROWS_AHEAD = 256


class OpenedTile:
    """A survey tile whose files are open, or that could not be opened.

    Args:
        tile: Which files.
        open_reader: Opens them.

    Attributes:
        seconds: Time spent on reading it so far.
    """

    def __init__(self, tile: Tile, open_reader: Callable[[Tile], TileReader]) -> None:
        self.name = tile.name
        self._reader: TileReader | None = None
        self._error: DataFormatError | None = None
        start = time.perf_counter()
        try:
            self._reader = open_reader(tile)
        except DataFormatError as error:
            self._error = error
        self.seconds = time.perf_counter() - start

    @property
    def reader(self) -> TileReader:
        """What reads it.

        Raises:
            DataFormatError: It could not be opened.
        """
        if self._error is not None:
            raise self._error
        assert self._reader is not None
        return self._reader

    @property
    def n_held(self) -> int:
        """Number of pixels in memory, all images together."""
        return 0 if self._reader is None else self._reader.n_held

    def room(self, window_rows: int) -> int:
        """Return how many pixels may be in memory: one row of windows and a little more."""
        if self._reader is None:
            return 0
        height, width = self._reader.shape
        n_rows = min(window_rows + ROWS_AHEAD, height)
        return n_rows * width * self._reader.n_kept

    def decode_ahead(self, room: int) -> bool:
        """Decode rows that will be asked for; return whether there was something to do."""
        start = time.perf_counter()
        did = self._reader is not None and self._reader.decode_ahead(room)
        self.seconds += time.perf_counter() - start
        return did

    def close(self) -> None:
        """Close the files."""
        if self._reader is not None:
            self._reader.close()


class TileQueue:
    """The survey tiles of one loader in their order.

    Args:
        tiles: Which.
        open_reader: Opens one.
        window_rows: Height of a window [px].
    """

    def __init__(
        self,
        tiles: Iterable[Tile],
        open_reader: Callable[[Tile], TileReader],
        window_rows: int,
    ) -> None:
        self._tiles = iter(tiles)
        self._open_reader = open_reader
        self._window_rows = window_rows
        self._current: OpenedTile | None = None
        self._next: OpenedTile | None = None

    def take(self) -> OpenedTile | None:
        """Close the current survey tile and return the next one, None after the last."""
        if self._current is not None:
            self._current.close()
        self._current, self._next = self._next or self._open(), None
        return self._current

    def work_ahead(self) -> bool:
        """Do a little of what will be needed, if memory allows it; return whether it did."""
        current = self._current
        if current is None:
            return False
        n_held = current.n_held + (self._next.n_held if self._next is not None else 0)
        room = current.room(self._window_rows) - n_held
        if room < 0:
            return False
        if current.decode_ahead(room):
            return True
        if self._next is None:
            self._next = self._open()
            return self._next is not None
        return self._next.decode_ahead(room)

    def close(self) -> None:
        """Close all files."""
        for opened in (self._current, self._next):
            if opened is not None:
                opened.close()

    def _open(self) -> OpenedTile | None:
        tile = next(self._tiles, None)
        return None if tile is None else OpenedTile(tile, self._open_reader)
