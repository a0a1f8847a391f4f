"""Whether a network says the same of all stamps, from sums that all processes share.

The rank of embeddings alone misleads: it falls while a network learns what matters. The alarm asks
for three signs at once.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from encoders.galaxies.moments import Moments, with_one

# Added to the shares of singular values, whose logarithm is taken (RankMe).
TINY = 1e-7
# All three are signs of collapse; the first is in units of 1 / sqrt(D), where isotropic rows lie.
LEAST_STD, LEAST_RANK, MOST_COSINE = 0.1, 4.0, 0.98


def dimension_std(totals: Tensor) -> Tensor:
    """Return the standard deviation of each dimension (D,).

    Args:
        totals: Sums of products of rows with a last column of ones (D + 1, D + 1).
    """
    mean = totals[-1, :-1] / totals[-1, -1]
    return (totals.diagonal()[:-1] / totals[-1, -1] - mean.square()).clamp_min(0.0).sqrt()


def effective_rank(totals: Tensor) -> Tensor:
    """Return RankMe, how many dimensions embeddings fill.

    `exp(-sum_k p_k log p_k)` with `p_k = s_k / sum s + 1e-7` and the singular values s of the rows
    (Garrido et al. 2023, arXiv:2210.02885, eq. 1). Singular values are roots of eigenvalues of the
    sum of products.

    Args:
        totals: See `dimension_std`.

    Returns:
        Between 1 and D, a scalar; NaN where all rows are 0, or some are not finite.
    """
    if not totals.isfinite().all():
        return totals.new_tensor(torch.nan)
    values = torch.linalg.eigvalsh(totals[:-1, :-1].cpu()).clamp_min(0.0).sqrt()
    shares = values / values.sum() + TINY
    return torch.exp(-(shares * shares.log()).sum())


def mean_cosine(totals: Tensor) -> Tensor:
    """Return the mean cosine of two different rows of length 1, a scalar.

    `(|sum x|^2 - n) / (n (n - 1))`.

    Args:
        totals: See `dimension_std`.
    """
    n = totals[-1, -1]
    return (totals[-1, :-1].square().sum() - n) / (n * (n - 1))


def is_collapsed(std: float, rank: float, cosine: float, n_dimensions: int) -> bool:
    """Return whether all three figures of rows of length 1 are signs of collapse.

    Args:
        std: Mean over dimensions of their standard deviations; isotropic rows have 1 / sqrt(D).
        rank: See `effective_rank`.
        cosine: See `mean_cosine`.
        n_dimensions: D.
    """
    is_narrow = std < LEAST_STD / math.sqrt(n_dimensions)
    return is_narrow and rank < LEAST_RANK and cosine > MOST_COSINE


class _OfEmbeddings(Moments):
    """Sums over embeddings.

    Args:
        n_dimensions: D.
        **kwargs: Options of `torchmetrics.Metric`.
    """

    is_of_directions = True

    def __init__(self, n_dimensions: int, **kwargs: Any) -> None:  # noqa: ANN401 - torchmetrics
        super().__init__(1, n_dimensions + 1, **kwargs)
        self.n_dimensions = n_dimensions

    def update(self, embeddings: Tensor) -> None:
        """Count a batch (B, D)."""
        rows = embeddings.detach().float()
        self.add({0: with_one(normalize(rows, dim=1) if self.is_of_directions else rows)})


class RankMe(_OfEmbeddings):
    """How many dimensions the embeddings of all processes fill, see `effective_rank`.

    Args:
        n_dimensions: D.
        **kwargs: Options of `torchmetrics.Metric`.
    """

    is_of_directions = False

    def compute(self) -> Tensor:
        """Return the rank, float32."""
        return effective_rank(self.totals()[0]).to(self.sums)


class DimensionStd(_OfEmbeddings):
    """Standard deviations of the dimensions of embeddings at length 1, in units of 1 / sqrt(D).

    The mean of their squares is 1 for embeddings around 0; a dimension that says nothing has 0.

    Args:
        n_dimensions: D.
        **kwargs: Options of `torchmetrics.Metric`.
    """

    def compute(self) -> Tensor:
        """Return one number for each dimension (D,), float32."""
        return (dimension_std(self.totals()[0]) * math.sqrt(self.n_dimensions)).to(self.sums)


class Collapse(_OfEmbeddings):
    """Figures of embeddings at length 1 that tell whether a network says the same of all stamps.

    Args:
        n_dimensions: D.
        **kwargs: Options of `torchmetrics.Metric`.
    """

    def compute(self) -> dict[str, Tensor]:
        """Return `std`, `rank`, `cosine`, and `is_collapsed` as 0 or 1, float32.

        `std` is the mean over dimensions.
        """
        totals = self.totals()[0]
        found = {
            "std": dimension_std(totals).mean(),
            "rank": effective_rank(totals),
            "cosine": mean_cosine(totals),
        }
        figures = {name: float(value) for name, value in found.items()}
        alarm = self.sums.new_tensor(float(is_collapsed(**figures, n_dimensions=self.n_dimensions)))
        return {name: value.to(self.sums) for name, value in found.items()} | {
            "is_collapsed": alarm
        }
