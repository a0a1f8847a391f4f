"""A queue of earlier stamps, in which nearest neighbours are sought."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from datagen.errors import ConfigError
from encoders.distributed import gathered
from encoders.galaxies.negatives import NO_OBJECT
from encoders.precision import precise


class Neighbours(NamedTuple):
    """Nearest rows of a queue, one for each query.

    Args:
        rows: Of length 1 (B, D).
        objects: Which objects they show, -1 where unknown (B,), int64.
    """

    rows: Tensor
    objects: Tensor


class Queue(nn.Module):
    """The last rows of all processes, each of length 1, oldest first.

    It travels with the weights, is the same in all processes, and gets no gradient.

    Args:
        n_rows: Rows kept.
        n_dimensions: D, of each row.

    Raises:
        ConfigError: `n_rows` is below 1.
    """

    kept: Tensor
    kept_objects: Tensor
    n_seen: Tensor

    def __init__(self, n_rows: int, n_dimensions: int) -> None:
        super().__init__()
        if n_rows < 1:
            raise ConfigError(f"expected n_rows of a queue >= 1, but got n_rows = {n_rows}", n_rows)
        self.register_buffer("kept", torch.zeros(n_rows, n_dimensions))
        self.register_buffer("kept_objects", torch.full((n_rows,), NO_OBJECT))
        self.register_buffer("n_seen", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, rows: Tensor, objects: Tensor | None = None) -> None:
        """Take up rows of all processes, those of the first one first, in place of the oldest.

        Args:
            rows: Of any length (B, D), as many in each process.
            objects: Which object each shows, >= 0 (B,), int64.
        """
        if objects is None:
            objects = torch.full((len(rows),), NO_OBJECT, device=rows.device)
        rows, objects = gathered(normalize(precise(rows), dim=1)), gathered(objects)
        n_rows = len(self.kept)
        places = (self.n_seen + torch.arange(len(rows), device=rows.device))[-n_rows:] % n_rows
        self.kept[places] = rows[-n_rows:].to(self.kept.dtype)
        self.kept_objects[places] = objects[-n_rows:]
        self.n_seen += len(rows)

    @torch.no_grad()
    def nearest(self, rows: Tensor, objects: Tensor | None = None) -> Neighbours:
        """Return the nearest kept row by cosine; rows themselves where there is none.

        Args:
            rows: Of any length (B, D).
            objects: Which object each shows, whose own earlier rows do not count (B,), int64; None
                where each row counts as an object.
        """
        queries = normalize(precise(rows), dim=1)
        with torch.autocast(rows.device.type, enabled=False):
            cosines = queries @ self.kept.to(queries.dtype).T
        is_out = torch.arange(len(self.kept), device=rows.device) >= self.n_seen
        if objects is not None:
            is_out = is_out | (self.kept_objects == objects[:, None])
        cosine, best = cosines.masked_fill(is_out, -torch.inf).max(dim=1)
        is_there = cosine.isfinite()
        found = torch.where(is_there[:, None], self.kept[best].to(queries.dtype), queries)
        return Neighbours(found, self.kept_objects[best].masked_fill(~is_there, NO_OBJECT))

    def rows(self) -> Tensor:
        """Return the rows taken up so far, oldest first (n, D)."""
        n_seen, n_rows = int(self.n_seen), len(self.kept)
        return self.kept[:n_seen] if n_seen <= n_rows else self.kept.roll(-(n_seen % n_rows), 0)
