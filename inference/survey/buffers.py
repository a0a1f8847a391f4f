"""Reads ahead in a thread, into memory that is used again."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Item = TypeVar("Item")


class Buffers:
    """Lends tensors; when the last reference to one is gone, its memory is lent again.

    Args:
        is_pinned: Whether a GPU shall be able to fetch it by itself.
    """

    def __init__(self, is_pinned: bool = False) -> None:
        self._is_pinned = is_pinned
        self._shape: tuple[int, ...] = ()
        self._free: list[NDArray[np.float32]] = []

    def lend(self, shape: tuple[int, ...], n: int) -> Tensor:
        """Return the first n parts of a float32 tensor of a shape, with any content.

        Memory of other shapes is given back.
        """
        if shape != self._shape:
            self._shape, self._free = shape, []
        memory = self._free.pop() if self._free else self._allocate(shape)
        # The tensor holds the view, and all its slices and aliases hold the same storage. A slice
        # of a tensor would hold that tensor, too, and `set_` on it would free nothing.
        view = memory[:n]
        weakref.finalize(view, self._free.append, memory).atexit = False
        return torch.from_numpy(view)

    def _allocate(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if not self._is_pinned:
            return np.empty(shape, np.float32)
        pinned: NDArray[np.float32] = torch.empty(shape, pin_memory=True).numpy()
        return pinned


class _Reader(threading.Thread):
    """Fills a queue with items, a failure, or the end.

    Args:
        items: Where they come from; closed in the same thread.
        n_ahead: How many items may be made that nobody has taken.
        work_ahead: Does a little for the next items; returns whether there was something to do.
    """

    def __init__(
        self, items: Generator[Item], n_ahead: int, work_ahead: Callable[[], bool]
    ) -> None:
        super().__init__(name="read-ahead", daemon=True)
        self._items = items
        self._work_ahead = work_ahead
        self._room = threading.Semaphore(n_ahead)
        self._queue: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()
        self._is_stopped = False

    def run(self) -> None:
        """Read until the end, a failure, or until nobody wants more."""
        try:
            while self._has_room():
                self._queue.put(("item", next(self._items)))
        except StopIteration:
            self._queue.put(("end", None))
        except BaseException as error:
            self._queue.put(("error", error))
        finally:
            self._items.close()

    def take(self) -> tuple[str, object]:
        """Wait for the next entry."""
        entry = self._queue.get()
        self._room.release()
        return entry

    def stop(self) -> None:
        """Let the thread end and wait for it."""
        self._is_stopped = True
        self._room.release()
        self.join()

    def _has_room(self) -> bool:
        """Wait until an item may be made, with useful work; return False when it is over."""
        while not self._room.acquire(blocking=False):
            if not self._work_ahead():
                self._room.acquire()
                break
        return not self._is_stopped


def read_ahead(
    items: Generator[Item], n_ahead: int, work_ahead: Callable[[], bool] = lambda: False
) -> Iterator[Item]:
    """Yield items, the next ones of which a thread makes meanwhile.

    Args:
        items: A generator; runs in the thread and is closed there.
        n_ahead: Number of items in memory beyond the one in use, the one being made among them;
            0 makes each when it is asked for.
        work_ahead: Called in the thread while there is no room for another item: does a little of
            what the next ones need, and returns whether there was something to do.

    Raises:
        BaseException: Whatever the generator raises, in its place.
    """
    if n_ahead == 0:
        yield from items
        return
    reader = _Reader(items, n_ahead, work_ahead)
    reader.start()
    try:
        while True:
            kind, content = reader.take()
            if kind == "error":
                assert isinstance(content, BaseException)
                raise content
            if kind == "end":
                return
            # An item that a local name holds could not be used again.
            holder, content = [content], None
            yield holder.pop()  # type: ignore[misc] # as it came from the generator
    finally:
        reader.stop()
