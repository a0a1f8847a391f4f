"""Says now and then how far long work is, where no progress bar can be seen."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)

LINE_SECONDS = 60.0
Clock = Callable[[], float]
T = TypeVar("T")


class Minutes:
    """Tells whether a minute has passed since it last said so, or since it began.

    Args:
        clock: Gives the time [s].
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock, self._last = clock, clock()

    def is_over(self) -> bool:
        """Tell whether a minute is over, and begin the next one."""
        now = self._clock()
        if now - self._last < LINE_SECONDS:
            return False
        self._last = now
        return True


def counted(
    items: Iterable[T], n_items: int, label: str, clock: Clock = time.monotonic
) -> Iterator[T]:
    """Yield jobs as they are done; show a bar on a terminal, elsewhere a line a minute in the log.

    Args:
        items: What is done, in the order in which it ends.
        n_items: How many there are.
        label: What is under way.
        clock: Gives the time [s].
    """
    if sys.stderr.isatty():
        yield from tqdm(items, total=n_items, desc=label, unit="job")
        return
    minutes = Minutes(clock)
    for n_done, item in enumerate(items, start=1):
        yield item
        if minutes.is_over() and n_done < n_items:
            log.info("%s: %d of %d jobs done", label, n_done, n_items)
