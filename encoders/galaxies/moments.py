"""Sums over stamps and over products of their numbers, of all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from encoders.precision import double


class Moments(Metric):
    """Sums of `x x^T` over the stamps of each of several groups, in double precision.

    Not all devices and processes can exchange double precision: a sum is held as a number in single
    precision and what that leaves over.

    Args:
        n_groups: Number of sums.
        n_columns: Length of x.
        **kwargs: Options of `torchmetrics.Metric`.
    """

    higher_is_better: bool | None = None
    is_differentiable = False
    full_state_update = False
    sums: Tensor

    def __init__(self, n_groups: int, n_columns: int, **kwargs: Any) -> None:  # noqa: ANN401 - torchmetrics
        super().__init__(**kwargs)
        zeros = torch.zeros(2, n_groups, n_columns, n_columns)
        # Processes are stacked, and added up in double precision.
        self.add_state("sums", default=zeros, dist_reduce_fx=None)

    def add(self, rows: dict[int, Tensor]) -> None:
        """Count stamps.

        Args:
            rows: By group (n, n_columns).
        """
        total = self.totals()
        for group, x in rows.items():
            total[group] += double(x).T @ double(x)
        high = total.float()
        self.sums = torch.stack((high, (total - high).float()))

    def totals(self) -> Tensor:
        """Return the sums (n_groups, n_columns, n_columns) in double precision."""
        return double(self.sums).flatten(0, -4).sum(dim=0)


def with_one(rows: Tensor) -> Tensor:
    """Return rows (n, D) with a last column of ones, whose products are sums and counts."""
    return torch.cat((rows, torch.ones_like(rows[:, :1])), dim=1)
