"""What embeddings tell of physical fields, by simple means, on objects that were not used.

Projections of one object share its labels and look alike: a stamp is never predicted from another
stamp of its object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from datagen.errors import ConfigError
from encoders.galaxies.metrics import Collector, Rows
from encoders.galaxies.moments import Moments, with_one
from encoders.galaxies.neighbours import ROUNDING, nearest, spread, standardised


class Gallery(Collector):
    """Keeps embeddings with labels.

    Args:
        n_labels: F, labels of a stamp.
        **kwargs: Options of `torchmetrics.Metric`.
    """

    def __init__(self, n_labels: int, **kwargs: Any) -> None:  # noqa: ANN401 - torchmetrics
        super().__init__(**kwargs)
        self.n_labels = n_labels

    def update(  # type: ignore[override]
        self, embeddings: Tensor, objects: Tensor, index: Tensor, labels: Tensor
    ) -> None:
        """Collect a batch.

        Args:
            embeddings: (B, D).
            objects: Which object each stamp shows (B,), int64.
            index: Number of each stamp (B,), int64.
            labels: NaN where unknown (B, F).
        """
        both = torch.cat((embeddings.detach().float(), labels.float()), dim=1)
        super().update(both, objects, index)

    def compute(self) -> Rows:
        """Return what all processes collected."""
        return self.rows()


class KNNProbe(Gallery):
    """Fields as means over the nearest stamps of other objects, and classes by their vote.

    Distances are Euclidean, between embeddings that are standardised in each dimension. A stamp
    whose label is unknown does not count for that field.

    Args:
        fields: Names of the columns of the labels.
        classes: Those of them that are numbers of classes.
        n_neighbours: k.
        **kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ConfigError: A class is none of the fields, or k is below 1.
    """

    higher_is_better = True

    def __init__(
        self,
        fields: Sequence[str],
        classes: Sequence[str],
        n_neighbours: int,
        **kwargs: Any,  # noqa: ANN401 - torchmetrics
    ) -> None:
        super().__init__(len(fields), **kwargs)
        unknown = sorted(set(classes) - set(fields))
        if unknown or n_neighbours < 1:
            raise ConfigError(
                f"expected classes of a probe to be among its fields {', '.join(fields)} and "
                f"n_neighbours >= 1, but got classes = {list(classes)}, n_neighbours = "
                f"{n_neighbours}",
                unknown or n_neighbours,
                list(fields),
            )
        self.fields, self.classes, self.n_neighbours = list(fields), list(classes), n_neighbours

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """Return `knn_r2_<field>`, and `knn_accuracy_<field>` of classes, float32.

        NaN where no object has other objects to be predicted from, or all have the same label.
        """
        rows = self.rows()
        x, is_known = standardised(rows.embeddings), rows.labels.isfinite()
        # Fields that are known for the same stamps share a search.
        patterns, which = is_known.T.unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
        found: dict[str, Tensor] = {}
        for number, is_used in enumerate(patterns):
            columns = (which == number).nonzero()[:, 0].tolist()
            kept = Rows(*(part[is_used] for part in rows._replace(embeddings=x)))
            found |= self._figures(kept, columns)
        return found

    def _figures(self, rows: Rows, columns: list[int]) -> dict[str, Tensor]:
        """Return the figures of fields that are known for all of some stamps."""
        x, objects = rows.embeddings, rows.objects
        places, distances = nearest(x, objects, x, objects, self.n_neighbours)
        is_near = distances.isfinite()
        has_any, found = is_near.any(dim=1), {}
        for column in columns:
            name, truth = self.fields[column], rows.labels[:, column]
            near = truth[places].masked_fill(~is_near, 0.0)
            mean = near.sum(dim=1) / is_near.sum(dim=1)
            found[f"knn_r2_{name}"] = r2(mean[has_any], truth[has_any]).float()
            if name in self.classes:
                is_right = vote(truth[places][has_any], is_near[has_any]) == truth[has_any]
                found[f"knn_accuracy_{name}"] = is_right.float().mean()
        return found


class RidgeProbe(Moments):
    """Fields as linear functions of embeddings, fitted to objects in other folds.

    Ridge regression on embeddings that are standardised in each dimension, from sums alone: no
    embedding is kept. Which fold an object is in depends on its number alone. A stamp whose label
    is unknown does not count for that field.

    Args:
        fields: Names of the columns of the labels.
        n_dimensions: D.
        penalty: Of the squared weights, > 0, as `alpha` of scikit-learn's `Ridge`.
        n_folds: Parts, each of which is predicted from the others.
        **kwargs: Options of `torchmetrics.Metric`.

    Raises:
        ConfigError: `penalty` is not positive, or `n_folds` is below 2.
    """

    higher_is_better = True

    def __init__(
        self,
        fields: Sequence[str],
        n_dimensions: int,
        penalty: float,
        n_folds: int,
        **kwargs: Any,  # noqa: ANN401 - torchmetrics
    ) -> None:
        if not penalty > 0 or n_folds < 2:
            raise ConfigError(
                "expected penalty > 0 and n_folds >= 2 of a probe, but got penalty = "
                f"{penalty}, n_folds = {n_folds}",
                (penalty, n_folds),
            )
        # Products of the embedding, a one and the label, of each field in each fold.
        super().__init__(n_folds * len(fields), n_dimensions + 2, **kwargs)
        self.fields, self.penalty, self.n_folds = list(fields), penalty, n_folds

    def update(self, embeddings: Tensor, objects: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            embeddings: (B, D).
            objects: Which object each stamp shows (B,), int64.
            labels: NaN where unknown (B, F).
        """
        x, folds = with_one(embeddings.detach().float()), folds_of(objects, self.n_folds)
        rows = {}
        for column in range(len(self.fields)):
            label = labels[:, column].float()
            for fold in range(self.n_folds):
                is_used = label.isfinite() & (folds == fold)
                both = torch.cat((x, label[:, None]), dim=1)[is_used]
                rows[fold * len(self.fields) + column] = both
        self.add(rows)

    def compute(self) -> dict[str, Tensor]:
        """Return `ridge_r2_<field>`, float32; NaN where a fold has no stamps.

        Errors of all folds are added up, and compared with the variance of all labels.
        """
        totals = self.totals().cpu()
        found = {}
        for column, name in enumerate(self.fields):
            value = _cross_validated(totals[column :: len(self.fields)], self.penalty)
            found[f"ridge_r2_{name}"] = value.to(self.sums)
        return found


def ridge(total: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Fit `y = w x + c` by ridge regression from sums of products.

    Minimises `sum (y - w x - c)^2 + penalty sum_d (w_d s_d)^2` with the standard deviations s.

    Args:
        total: Sums of products of rows of x, 1 and y (D + 2, D + 2), double precision.
        penalty: > 0.

    Returns:
        Weights w (D,) and the constant c.
    """
    n, mean = total[-2, -2], total[-2] / total[-2, -2]
    scatter = total - n * mean[:, None] * mean
    scale = spread(scatter.diagonal()[:-2] / n, total.diagonal()[:-2] / n)
    matrix = scatter[:-2, :-2] / (scale[:, None] * scale)
    matrix = matrix + penalty * torch.eye(len(scale), dtype=total.dtype)
    weights = torch.linalg.solve(matrix, scatter[:-2, -1] / scale) / scale
    return weights, mean[-1] - weights @ mean[:-2]


def _cross_validated(folds: Tensor, penalty: float) -> Tensor:
    """Return R^2 of predictions of each fold from the others, from sums of products."""
    total = folds.sum(dim=0)
    if not (folds[:, -2, -2] > 0).all():
        return total.new_tensor(torch.nan)
    error = total.new_zeros(())
    for held in folds:
        weights, constant = ridge(total - held, penalty)
        residual = torch.cat((-weights, -constant[None], weights.new_ones(1)))
        error = error + residual @ held @ residual
    variance = total[-1, -1] - total[-2, -1].square() / total[-2, -2]
    return _explained(error, variance, total[-1, -1])


def folds_of(objects: Tensor, n_folds: int) -> Tensor:
    """Return the fold of each object (n,), which does not follow regularities of their numbers."""
    return ((objects * 0x9E3779B1) >> 15) % n_folds


def vote(labels: Tensor, counts: Tensor) -> Tensor:
    """Return the most frequent label in each row, the lowest of several.

    Args:
        labels: (n, k).
        counts: Which of them have a vote (n, k), bool.
    """
    votes = ((labels[:, :, None] == labels[:, None]) & counts[:, None]).sum(dim=2)
    is_most = counts & (votes == votes.masked_fill(~counts, 0).amax(dim=1, keepdim=True))
    return labels.masked_fill(~is_most, torch.inf).amin(dim=1)


def r2(found: Tensor, truth: Tensor) -> Tensor:
    """Return the share of the variance that is explained; NaN where there is none."""
    error, variance = (found - truth).square().sum(), (truth - truth.mean()).square().sum()
    return _explained(error, variance, truth.square().sum())


def _explained(error: Tensor, variance: Tensor, square: Tensor) -> Tensor:
    return torch.where(variance > ROUNDING * square, 1.0 - error / variance, torch.nan)
