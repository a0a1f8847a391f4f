"""Exact search for nearest neighbours, in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Distances that are held at a time: 256 MB in double precision.
N_HELD = 1 << 25
# Share of the mean square that single precision, in which embeddings come, may leave as variance.
ROUNDING = 1e-12


def standardised(rows: Tensor) -> Tensor:
    """Return rows (n, D) with mean 0 and variance 1 in each dimension; constant ones become 0."""
    centred = rows - rows.mean(dim=0)
    return centred / spread(centred.square().mean(dim=0), rows.square().mean(dim=0))


def spread(variance: Tensor, mean_square: Tensor) -> Tensor:
    """Return standard deviations (D,), or 1 where they are no more than rounding."""
    return torch.where(variance > ROUNDING * mean_square, variance.clamp_min(0.0).sqrt(), 1.0)


def nearest(
    queries: Tensor,
    query_objects: Tensor,
    references: Tensor,
    reference_objects: Tensor,
    n_neighbours: int,
) -> tuple[Tensor, Tensor]:
    """Return the nearest references of other objects than that of a query, nearest first.

    Args:
        queries: (n, D).
        query_objects: (n,), int64.
        references: (m, D).
        reference_objects: (m,), int64.
        n_neighbours: k.

    Returns:
        Places among the references (n, min(k, m)), int64, and distances, infinite where there are
        no more references of other objects.
    """
    k = min(n_neighbours, len(references))
    places, distances = [], []
    for part in pieces(len(queries), len(references)):
        apart = torch.cdist(queries[part], references)
        is_same = query_objects[part, None] == reference_objects
        found = apart.masked_fill(is_same, torch.inf).topk(k, dim=1, largest=False)
        places.append(found.indices)
        distances.append(found.values)
    return torch.cat(places), torch.cat(distances)


def pieces(n: int, m: int, n_held: int = N_HELD) -> Iterator[slice]:
    """Yield parts of n rows, each of which may be compared with m others at a time."""
    step = max(1, n_held // max(1, m))
    for first in range(0, max(1, n), step):
        yield slice(first, first + step)
