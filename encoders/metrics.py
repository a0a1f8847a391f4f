"""Figures of classifiers that several tasks share."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
