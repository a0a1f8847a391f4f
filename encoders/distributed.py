"""Batches of all processes as one, with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd import Function


def gathered(values: Tensor) -> Tensor:
    """Return the rows of all processes, those of the first one first.

    Every process computes the loss of the whole batch from them, or its share: the mean over its
    own rows, each compared with all. The mean of the gradients over the processes, which
    distributed training takes, is then the gradient of one process with all rows.

    Args:
        values: (B, ...), of one shape in all processes.

    Returns:
        (n_processes B, ...); `values` where there is one process.
    """
    if not _are_many():
        return values
    found: Tensor = _Gather.apply(values)  # type: ignore[no-untyped-call]
    return found


def n_processes() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if _are_many() else 1


def first_row(n_rows: int) -> int:
    """Return where the rows of this process, `n_rows` as in all of them, begin in `gathered`."""
    return n_rows * distributed.get_rank() if _are_many() else 0


def _are_many() -> bool:
    return distributed.is_available() and distributed.is_initialized()


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ANN401 - torch's own
        values = values.contiguous()
        parts = [torch.empty_like(values) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, values)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        # Every process depends on these rows: their gradients add up.
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total.chunk(distributed.get_world_size())[distributed.get_rank()]
