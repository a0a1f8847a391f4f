"""Runs a function in two processes that talk over gloo."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def in_two_processes(work: Callable[[int], Any], folder: Path) -> list[Any]:
    """Return what `work(rank)` returns in each process: tensors and plain values."""
    context = multiprocessing.get_context("fork")  # spawn would import torch twice more: seconds
    workers = [
        context.Process(target=_run, daemon=True, args=(work, rank, folder)) for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    return [torch.load(folder / f"out{rank}") for rank in range(2)]


def _run(work: Callable[[int], Any], rank: int, folder: Path) -> None:
    # A pool of threads does not survive the fork: what waits for it waits for ever.
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2
    )
    torch.save(work(rank), folder / f"out{rank}")
    torch.distributed.destroy_process_group()
