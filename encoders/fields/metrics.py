"""Cell metrics from two histograms of logits: sums only, so that processes add them up exactly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

LOGIT_LIMIT = 16.0
N_BINS = 2048
N_CALIBRATION_BINS = 15


class ClusterMembershipAccuracy(Metric):
    """Accuracy, precision, recall, F1, average precision and calibration error over cells.

    Logits are counted in 2048 bins of 1/64 between -16 and 16, once for cells with a member and
    once for the others, weighted by cell. Every figure follows from the two histograms, so the
    memory is constant and the result does not depend on order or on the number of processes.
    Thresholds are rounded to bin edges; average precision treats logits in one bin as ties.

    Args:
        threshold: Probability above which a cell counts as predicted; None takes the one that
            maximises F1 on the counted cells themselves.
        **kwargs: Options of `torchmetrics.Metric`.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    positive: Tensor
    negative: Tensor

    def __init__(self, threshold: float | None = None, **kwargs: Any) -> None:  # noqa: ANN401 - torchmetrics
        super().__init__(**kwargs)
        self.threshold = threshold
        self.curve: Curve | None = None
        empty = torch.zeros(N_BINS, dtype=torch.float64)
        self.add_state("positive", default=empty, dist_reduce_fx="sum")
        self.add_state("negative", default=empty.clone(), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor, weight: Tensor) -> None:
        """Count cells.

        Args:
            logits: Any shape.
            target: 1 for a cell with a member, else 0; same shape.
            weight: Cells with weight 0 are ignored; same shape.

        Raises:
            ValueError: The shapes differ.
        """
        if not logits.shape == target.shape == weight.shape:
            raise ValueError(
                "expected `logits`, `target` and `weight` to have one shape, but got "
                f"{tuple(logits.shape)}, {tuple(target.shape)} and {tuple(weight.shape)}"
            )
        bins = bin_of(logits.detach()).flatten()
        counts, is_member = weight.double().flatten(), target.flatten() > 0
        self.positive.index_add_(0, bins, counts * is_member)
        self.negative.index_add_(0, bins, counts * ~is_member)

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name, as float32 scalars, and the `threshold` they hold at.

        The curve over all processes stays in `curve` for pictures.
        """
        self.curve = curve = Curve(self.positive, self.negative)
        edge = curve.best_edge() if self.threshold is None else edge_of(self.threshold)
        values = curve.at(edge)
        values["threshold"] = torch.tensor(probability_of(edge))
        values["average_precision"] = curve.average_precision()
        values["calibration_error"] = curve.calibration_error()
        return {name: value.float() for name, value in values.items()}


class MeanLoss(Metric):
    """Mean over all counted cells of all processes: `sum_b w_b L_b / sum_b w_b`.

    A mean over batches would depend on how fields are dealt out, and count those with weight 0 that
    only fill up a turn. NaN stays NaN: it says that a training has diverged. (`MeanMetric` of
    torchmetrics drops either NaN or the weights.)
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - torchmetrics
        super().__init__(**kwargs)
        zero = torch.zeros((), dtype=torch.float64)
        self.add_state("total", default=zero, dist_reduce_fx="sum")
        self.add_state("weight", default=zero.clone(), dist_reduce_fx="sum")

    def update(self, loss: Tensor, weight: Tensor) -> None:
        """Count a batch.

        Args:
            loss: Mean over the batch's cells, weighted by cell; a scalar.
            weight: Weights of the cells; any shape.
        """
        n_cells = weight.double().sum()
        self.total += loss.detach().double() * n_cells
        self.weight += n_cells

    def compute(self) -> Tensor:
        """Return the mean as a float32 scalar; 0 where no cell counts."""
        # Without cells the total is 0, or NaN from weights that are not finite.
        return torch.where(self.weight > 0, self.total / self.weight, self.total).float()


class Curve:
    """Counts above every bin edge, from highest to lowest, and what follows from them.

    Args:
        positive: Weight of cells with a member per bin (n_bins,).
        negative: Weight of the other cells per bin (n_bins,).
    """

    def __init__(self, positive: Tensor, negative: Tensor) -> None:
        self.positive, self.negative = positive, negative
        self.true_positive = _from_above(positive)
        self.false_positive = _from_above(negative)
        self.n_positive, self.n_negative = positive.sum(), negative.sum()

    @property
    def precision(self) -> Tensor:
        """Precision of `logit >= edge` per edge (n_bins + 1,); 0 where nothing is predicted."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> Tensor:
        """Recall of `logit >= edge` per edge (n_bins + 1,); 0 where there is no member."""
        return _ratio(self.true_positive, self.n_positive)

    @property
    def f1(self) -> Tensor:
        """F1 = 2 TP / (2 TP + FP + FN) per edge (n_bins + 1,)."""
        predicted = self.true_positive + self.false_positive
        return _ratio(2.0 * self.true_positive, predicted + self.n_positive)

    def at(self, edge: int) -> dict[str, Tensor]:
        """Return accuracy, precision, recall and F1 of `logit >= edge`."""
        n_cells = self.n_positive + self.n_negative
        right = self.true_positive[edge] + self.n_negative - self.false_positive[edge]
        return {
            "accuracy": _ratio(right, n_cells),
            "precision": self.precision[edge],
            "recall": self.recall[edge],
            "f1": self.f1[edge],
        }

    def average_precision(self) -> Tensor:
        """Return sum_k (R_k - R_k-1) P_k over falling thresholds."""
        precision, recall = self.precision.flip(0), self.recall.flip(0)
        return (recall.diff() * precision[1:]).sum()

    def calibration_error(self) -> Tensor:
        """Return the expected calibration error over 15 equal bins of probability.

        `sum_b n_b / n |members_b / n_b - mean probability_b|` (Guo et al. 2017, eq. 3,
        arXiv:1706.04599).
        """
        probability = torch.sigmoid(bin_centres(self.positive))
        count = self.positive + self.negative
        group = (probability * N_CALIBRATION_BINS).long().clamp_max(N_CALIBRATION_BINS - 1)
        sums = torch.zeros(N_CALIBRATION_BINS, dtype=count.dtype, device=count.device)
        gap = sums.index_add(0, group, self.positive - probability * count)
        return _ratio(gap.abs().sum(), count.sum())

    def best_edge(self) -> int:
        """Return the edge with the highest F1; of ties, the middle one."""
        f1 = self.f1
        best = torch.nonzero(f1 == f1.max()).flatten()
        return int(best[len(best) // 2])


def bin_of(logits: Tensor) -> Tensor:
    """Return the bin numbers of logits; outside of +-16 they fall into the outermost bins."""
    scaled = (logits.double() + LOGIT_LIMIT) * (N_BINS / (2.0 * LOGIT_LIMIT))
    return scaled.floor().long().clamp(0, N_BINS - 1)


def bin_centres(like: Tensor) -> Tensor:
    """Return the logits in the middle of the bins (n_bins,), with the type of a histogram."""
    bins = torch.arange(N_BINS, dtype=like.dtype, device=like.device)
    return (bins + 0.5) * _width() - LOGIT_LIMIT


def edge_of(threshold: float) -> int:
    """Return the number of the bin edge that lies nearest to a probability."""
    return edge_of_logit(float(torch.logit(torch.tensor(threshold, dtype=torch.float64))))


def edge_of_logit(logit: float) -> int:
    """Return the number of the bin edge that lies nearest to a logit."""
    edge = round((min(max(logit, -LOGIT_LIMIT), LOGIT_LIMIT) + LOGIT_LIMIT) / _width())
    return int(edge)


def _width() -> float:
    return 2.0 * LOGIT_LIMIT / N_BINS


def probability_of(edge: int) -> float:
    """Return the probability at a bin edge."""
    logit = torch.tensor(edge * _width() - LOGIT_LIMIT, dtype=torch.float64)
    return float(torch.sigmoid(logit))


def _from_above(histogram: Tensor) -> Tensor:
    """Return the sums of all bins at and above each edge, from the lowest edge to the highest."""
    sums = histogram.flip(0).cumsum(0).flip(0)
    return torch.cat((sums, sums.new_zeros(1)))


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return the ratio, 0 where nothing was counted."""
    return torch.where(denominator > 0, numerator / denominator, torch.zeros_like(numerator))
