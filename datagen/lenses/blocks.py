"""Batches whose bits do not depend on how many images are asked for.

Vectorised functions, transforms and matrix products differ in the last bits with the size of a
batch, the place of an image in it and the number of threads. So image `index` is always computed as
row index % BLOCK of the block that starts at a multiple of BLOCK, with one thread on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

BLOCK = 64


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch's CPU kernels on one thread, so that no row is split between two."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def in_blocks(compute: Callable[[Tensor], Sequence[Tensor]], index: Tensor) -> tuple[Tensor, ...]:
    """Evaluate `compute` on whole blocks and return the rows that were asked for.

    Args:
        compute: From the indices of a block, shape (BLOCK,), to tensors whose first dimension is
            BLOCK; row i may depend on index i alone.
        index: Images wanted, int64, shape (B,), in any order; consecutive ones are the cheapest.

    Returns:
        The tensors of `compute`, with first dimension B, in the order of `index`.
    """
    starts, block_of = torch.unique(index // BLOCK, return_inverse=True)
    steps = torch.arange(BLOCK, device=index.device)
    parts = []
    with one_thread():
        for k, start in enumerate(starts):
            rows = index[block_of == k] % BLOCK
            parts.append([values[rows] for values in compute(start * BLOCK + steps)])
    order = torch.argsort(torch.argsort(block_of, stable=True))
    return tuple(torch.cat(column)[order] for column in zip(*parts, strict=True))
