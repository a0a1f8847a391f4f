"""Which stamps of a batch attract each other, which repel, and which are let alone.

Several projections of one object are no evidence against each other: they never repel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from encoders.distributed import first_row, gathered, n_processes

NO_OBJECT = -1


class Pairs(NamedTuple):
    """How n anchors see m keys.

    Args:
        is_positive: Which keys attract an anchor (n, m), bool.
        is_negative: Which repel it (n, m), bool; what is neither plays no part.
    """

    is_positive: Tensor
    is_negative: Tensor


class Stamps(NamedTuple):
    """The stamps of a process and of all processes.

    Args:
        numbers: Place of each stamp of this process in the batch of all processes (B,), int64.
        objects: Which object each of them shows (B,), int64.
        all_objects: Objects of the stamps of all processes (n_processes B,), int64.
    """

    numbers: Tensor
    objects: Tensor
    all_objects: Tensor


def stamps_of(rows: Tensor, objects: Tensor | None) -> Stamps:
    """Number the stamps of all processes.

    Args:
        rows: One row of each stamp of this process (B, D).
        objects: Which object each stamp shows, >= 0 (B,), int64; None where each shows its own.
    """
    numbers = first_row(len(rows)) + torch.arange(len(rows), device=rows.device)
    if objects is None:
        everyone = torch.arange(n_processes() * len(rows), device=rows.device)
        return Stamps(numbers, numbers, everyone)
    return Stamps(numbers, objects, gathered(objects))


def across_views(stamps: Stamps, as_positives: bool, more_objects: Tensor | None = None) -> Pairs:
    """Return how one view of the stamps of this process sees the other view of all stamps.

    Args:
        stamps: See `stamps_of`.
        as_positives: Whether other stamps of an anchor's object attract it, or are left out.
        more_objects: A second object that each anchor shows (B,), int64.

    Returns:
        Pairs (B, n_processes B).
    """
    n_all, device = len(stamps.all_objects), stamps.numbers.device
    is_same = stamps.numbers[:, None] == torch.arange(n_all, device=device)
    is_akin = stamps.objects[:, None] == stamps.all_objects
    if more_objects is not None:
        is_akin = is_akin | (more_objects[:, None] == stamps.all_objects)
    return Pairs(is_akin if as_positives else is_same, ~is_akin)


def among_views(stamps: Stamps, as_positives: bool) -> Pairs:
    """Return how both views of the stamps of this process see both views of all stamps.

    Args:
        stamps: See `stamps_of`.
        as_positives: Whether other stamps of an anchor's object attract it, or are left out.

    Returns:
        Pairs (2 B, 2 n_processes B); the first view of all stamps stands before the second one. No
        row sees itself.
    """
    one = across_views(stamps, as_positives)
    n_all = len(stamps.all_objects)
    places = torch.cat((stamps.numbers, n_all + stamps.numbers))
    is_self = places[:, None] == torch.arange(2 * n_all, device=places.device)
    return Pairs(one.is_positive.repeat(2, 2) & ~is_self, one.is_negative.repeat(2, 2))
