"""Batches whose bits do not depend on how many images are asked for.

Vectorised functions, transforms and matrix products differ in the last bits with the size of a
batch, the place of an image in it and the number of threads. So image `index` is always computed as
row index % BLOCK of the block that starts at a multiple of BLOCK, with one thread on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 64


def in_blocks(index: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Tell which blocks hold the images that are asked for.

    Args:
        index: Images wanted, int64, shape (B,), in any order; consecutive ones are the cheapest.

    Returns:
        For each block its images, (BLOCK,), and the wanted rows of it; and the order that brings
        the wanted rows of all blocks, one after another, into that of `index`, (B,).
    """
    starts, block_of = torch.unique(index // BLOCK, return_inverse=True)
    blocks = [
        (start * BLOCK + torch.arange(BLOCK), index[block_of == number] % BLOCK)
        for number, start in enumerate(starts.tolist())
    ]
    return blocks, torch.argsort(torch.argsort(block_of, stable=True))
