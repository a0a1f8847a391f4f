"""Batches of all processes as one, with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd import Function


def gathered(values: Tensor) -> Tensor:
    """Return the rows of all processes, those of the first one first.

    A loss of a whole batch is computed from them in every process. The mean of its gradients over
    the processes, which distributed training takes, is then the gradient of one process with all
    rows.

    Args:
        values: (B, ...), of one shape in all processes.

    Returns:
        (n_processes B, ...); `values` where there is one process.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    found: Tensor = _Gather.apply(values)  # type: ignore[no-untyped-call]
    return found


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ANN401 - torch's own
        parts = [torch.empty_like(values) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        # Every process depends on these rows: their gradients add up.
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total.chunk(distributed.get_world_size())[distributed.get_rank()]
