"""Figures of classifiers that several tasks share."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

Array = NDArray[np.float64]
N_CALIBRATION_BINS = 15


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Return the share of images whose likeliest class is true; NaN without images."""
    return float((probabilities.argmax(dim=1) == labels).double().mean())


def confusion(probabilities: Tensor, labels: Tensor) -> NDArray[np.int64]:
    """Return counts (K, K): true classes in rows, found classes in columns."""
    n_classes = probabilities.shape[1]
    pairs = n_classes * labels + probabilities.argmax(dim=1)
    counts = torch.bincount(pairs, minlength=n_classes**2).view(n_classes, n_classes)
    found: NDArray[np.int64] = counts.numpy()
    return found


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error of the likeliest class over 15 equal bins.

    `sum_b n_b / n |right_b / n_b - mean confidence_b|` (Guo et al. 2017, arXiv:1706.04599, eq. 3).
    """
    confidence, found = probabilities.max(dim=1)
    bins = (confidence * N_CALIBRATION_BINS).nan_to_num().long().clamp(0, N_CALIBRATION_BINS - 1)
    gap = torch.zeros(N_CALIBRATION_BINS, dtype=torch.float64)
    gap.index_add_(0, bins, (found == labels).double() - confidence)
    return float(gap.abs().sum() / max(1, len(labels)))


def area(scores: Array, is_positive: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve: P(score of a positive > score of a negative).

    From the sum of ranks (Hanley & McNeil 1982, doi:10.1148/radiology.143.1.7063747); ties count
    half.

    Args:
        scores: (n,).
        is_positive: (n,).

    Returns:
        NaN if there are no positives, no negatives, or scores that are not finite.
    """
    n_positive = int(is_positive.sum())
    n_negative = len(scores) - n_positive
    if not n_positive or not n_negative or not np.isfinite(scores).all():
        return float("nan")
    ranks = rankdata(scores)[is_positive].sum()
    return float((ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def roc_curve(scores: Array, is_positive: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Return false and true positive rates over falling thresholds, from (0, 0) to (1, 1).

    Args:
        scores: (n,).
        is_positive: (n,).
    """
    order = np.argsort(-scores, kind="stable")
    # Images of equal score are passed together.
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf) != 0)
    hits = np.concatenate(([0], np.cumsum(is_positive[order])[last]))
    misses = np.concatenate(([0], np.cumsum(~is_positive[order])[last]))
    return misses / max(1, misses[-1]), hits / max(1, hits[-1])
