"""Says how far a prediction is: a bar on a terminal, a line in the log now and then elsewhere."""

from __future__ import annotations

import datetime
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from tqdm import tqdm

from datagen.progress import LINE_SECONDS

log = logging.getLogger(__name__)

BAR_SECONDS = 0.2
_BAR = "{desc} {percentage:3.0f}%|{bar}|"


class Progress:
    """Counts windows and survey tiles of one rank and estimates when it will be done.

    How many windows a survey tile has is known when it is opened; those that were not yet are taken
    to have as many as the others on average.

    Args:
        n_tiles: Survey tiles to predict.
        label: What is under way.
        is_shown: Whether to say anything.
        stream: Where a bar goes if it is a terminal.
        clock: Gives the time [s].
    """

    def __init__(
        self,
        n_tiles: int,
        label: str,
        is_shown: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._n_tiles = n_tiles
        self._label = label
        self._clock = clock
        self._start = self._last = clock()
        self._n_ended = self._n_opened = self._n_unreadable = 0
        self._n_done = self._n_known = 0
        self._left: dict[str, int] = {}
        self._bar: Any = None
        stream = sys.stderr if stream is None else stream
        self._is_shown = is_shown
        if is_shown and stream.isatty():
            self._bar = tqdm(total=1, desc=label, file=stream, bar_format=_BAR)

    def add(self, tile: str, n_windows: int, n_planned: int) -> None:
        """Note that windows of a survey tile were predicted, which has `n_planned` in all."""
        if tile not in self._left:
            self._left[tile] = n_planned
            self._n_opened += 1
            self._n_known += n_planned
        self._left[tile] -= n_windows
        self._n_done += n_windows
        self._show()

    def end(self, tile: str) -> None:
        """Note that a survey tile is finished or has failed."""
        self._n_ended += 1
        left = self._left.pop(tile, None)
        if left is None:
            self._n_unreadable += 1
        else:
            # A survey tile that fails on the way has windows that will not come.
            self._n_known -= left
        self._show()

    def close(self) -> None:
        """Leave the bar as it is at the end."""
        if self._bar is not None:
            self._draw()
            self._bar.close()

    @property
    def n_expected(self) -> float:
        """Windows of all survey tiles, estimated for those that were not opened yet."""
        n_unopened = self._n_tiles - self._n_opened - self._n_unreadable
        return self._n_known * (1 + n_unopened / max(self._n_opened, 1))

    @property
    def seconds_left(self) -> float:
        """Estimate at the rate so far; infinite before the first window."""
        left = self.n_expected - self._n_done
        return left * self._seconds / self._n_done if self._n_done else float("inf")

    def text(self) -> str:
        """Return survey tiles, rates and the time that is left, such as `3/12 tiles, ...`."""
        windows = self._n_done / self._seconds
        tiles = self._n_tiles * windows / self.n_expected if self.n_expected else 0.0
        speed = f"{tiles:.1f} tiles/s" if tiles >= 1 else f"{3600 * tiles:.1f} tiles/h"
        left = "?"
        if self._n_done:
            left = str(datetime.timedelta(seconds=round(self.seconds_left)))
        counts = f"{self._n_ended}/{self._n_tiles} tiles"
        return f"{counts}, {speed}, {windows:.1f} windows/s, {left} left"

    @property
    def _seconds(self) -> float:
        return max(self._clock() - self._start, 1e-9)

    def _show(self) -> None:
        now = self._clock()
        if not self._is_shown or now - self._last < (BAR_SECONDS if self._bar else LINE_SECONDS):
            return
        self._last = now
        if self._bar is not None:
            self._draw()
        else:
            log.info("%s: %s", self._label, self.text())

    def _draw(self) -> None:
        self._bar.total, self._bar.n = max(self.n_expected, 1), self._n_done
        # A postfix of tqdm's would begin with a comma.
        self._bar.bar_format = f"{_BAR} {self.text()}"
        self._bar.refresh()
