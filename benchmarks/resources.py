"""What a measurement costs: memory and processor time of a process and of its children."""

from __future__ import annotations

import multiprocessing
import resource
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")

SECONDS_BETWEEN_LOOKS = 0.01
# Reading the children's memory maps takes longer than the process's own.
SECONDS_BETWEEN_LOOKS_AT_CHILDREN = 0.05


class PeakMemory(threading.Thread):
    """Watches how much memory no file stands behind: of this process, and of its children.

    Memory that workers share with this process counts once, as that of the worker.

    Args:
        with_children: Whether to look at the children as well.

    Attributes:
        cpu_seconds: What the looking itself took, which is no cost of what is watched [s].
    """

    def __init__(self, with_children: bool = False) -> None:
        super().__init__(daemon=True)
        self._with_children = with_children
        self._is_over = threading.Event()
        self.cpu_seconds = 0.0
        self._before = self._peak = self._look()

    def run(self) -> None:
        """Look until it is over."""
        pause = SECONDS_BETWEEN_LOOKS_AT_CHILDREN if self._with_children else SECONDS_BETWEEN_LOOKS
        while not self._is_over.wait(pause):
            self._peak = max(self._peak, self._look())
            self.cpu_seconds = time.thread_time()

    def stop(self) -> int:
        """Return how much more than at the start there was [bytes]."""
        self._is_over.set()
        self.join()
        return self._peak - self._before

    def _look(self) -> int:
        total = anonymous_bytes("self")
        if self._with_children:
            total += sum(anonymous_bytes(process) for process in children())
        return total


def anonymous_bytes(process: str) -> int:
    """Return the resident memory of a process without pages of files [bytes]; 0 if it is gone.

    Pages that a forked process shares with its parent count in equal parts.
    """
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    sizes = {line.split(":")[0]: line.split()[1] for line in lines[1:]}
    return int(sizes["Pss_Anon"]) * 1024


def children() -> list[str]:
    """Return the processes that this one started."""
    found: list[str] = []
    for path in Path("/proc/self/task").glob("*/children"):
        found += path.read_text().split()
    return found


def cpu_seconds() -> float:
    """Return the processor time of this process and of the children that have ended [s]."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def in_process(function: Callable[[Argument], Result], argument: Argument) -> Result:
    """Return what a measurement finds in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(function, argument).result()
