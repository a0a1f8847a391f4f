"""Figures of embeddings: exact, and the same for any number of processes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from encoders.galaxies.neighbours import nearest, pieces
from encoders.precision import double


class Rows(NamedTuple):
    """What was collected of stamps, by rising index; each stamp once.

    Args:
        index: Number of each stamp (n,), int64.
        objects: Which object each stamp shows (n,), int64.
        embeddings: (n, D), double precision.
        labels: NaN where unknown (n, F), double precision.
    """

    index: Tensor  # type: ignore[assignment] # the method of tuples serves nothing here
    objects: Tensor
    embeddings: Tensor
    labels: Tensor


class Collector(Metric):
    """Collects embeddings of all processes.

    Metrics of one `torchmetrics.MetricCollection` that collect the same share what they keep.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    higher_is_better: bool | None = None
    is_differentiable = False
    full_state_update = False
    numbers: list[Tensor]
    values: list[Tensor]
    n_labels = 0

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - torchmetrics
        super().__init__(**kwargs)
        self.add_state("numbers", default=[], dist_reduce_fx="cat")
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def update(self, embeddings: Tensor, objects: Tensor, index: Tensor) -> None:
        """Collect a batch.

        Args:
            embeddings: (B, D).
            objects: Which object each stamp shows (B,), int64.
            index: Number of each stamp (B,), int64.
        """
        self.numbers.append(torch.stack((index, objects), dim=1))
        self.values.append(embeddings.detach().float())

    def rows(self) -> Rows:
        """Return what all processes collected."""
        numbers, values = dim_zero_cat(self.numbers), double(dim_zero_cat(self.values))
        order = numbers[:, 0].argsort()
        index = numbers[order, 0]
        is_first = torch.cat((torch.ones_like(index[:1]).bool(), index[1:] != index[:-1]))
        kept = order[is_first]
        n = values.shape[1] - self.n_labels
        index, objects = numbers[kept].T.contiguous()
        return Rows(index, objects, values[kept, :n], values[kept, n:])


class Uniformity(Collector):
    """How evenly embeddings at length 1 cover the sphere; lower is more even.

    `log mean_{i != j} exp(-2 |x_i - x_j|^2)` (Wang & Isola 2020, arXiv:2005.10242, eq. 2).

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    def compute(self) -> Tensor:
        """Return the uniformity, float32; NaN for fewer than two stamps."""
        x = normalize(self.rows().embeddings, dim=1)
        n = len(x)
        parts = [(4.0 * (x[part] @ x.T) - 4.0).exp().sum() for part in pieces(n, n)]
        # Each stamp met itself once, at distance 0.
        total: Tensor = torch.stack(parts).sum() - n
        mean = total / (n * (n - 1)) if n > 1 else torch.full_like(total, torch.nan)
        return mean.log().float()


class RetrievalPrecision(Collector):
    """Which part of the nearest stamps by cosine shows the object of a stamp.

    `mean_i hits_i / min(k, siblings_i)` over stamps with other stamps (siblings) of their object,
    among the k nearest of all others: 1 is perfect.

    Args:
        k: Number of nearest stamps.
        **kwargs: Options of `torchmetrics.Metric`.
    """

    higher_is_better = True

    def __init__(self, k: int, **kwargs: Any) -> None:  # noqa: ANN401 - torchmetrics
        super().__init__(**kwargs)
        self.k = k

    def compute(self) -> Tensor:
        """Return the precision, float32; NaN where no stamp has siblings."""
        rows = self.rows()
        x = normalize(rows.embeddings, dim=1)
        itself = torch.arange(len(x), device=x.device)
        places, distances = nearest(x, itself, x, itself, self.k)
        is_hit = (rows.objects[places] == rows.objects[:, None]) & distances.isfinite()
        ordered = rows.objects.sort().values
        first = torch.searchsorted(ordered, rows.objects)
        n_siblings = torch.searchsorted(ordered, rows.objects, right=True) - first - 1
        share = is_hit.sum(dim=1) / n_siblings.clamp(1, self.k)
        return share[n_siblings > 0].mean().float()


class Alignment(Metric):
    """Mean squared distance of two views of a stamp at length 1.

    `mean |a - b|^2` (Wang & Isola 2020, arXiv:2005.10242, eq. 1 with alpha = 2).

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - torchmetrics
        super().__init__(**kwargs)
        self.add_state("total", default=torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, a: Tensor, b: Tensor) -> None:
        """Count two views (B, D) of a batch."""
        apart = normalize(a.detach().float(), dim=1) - normalize(b.detach().float(), dim=1)
        self.total += apart.square().sum()
        self.count += len(a)

    def compute(self) -> Tensor:
        """Return the mean, float32."""
        return self.total / self.count
