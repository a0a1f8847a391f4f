"""Makes probabilities and errors hold on validation cells: two numbers for logits, one per error.

They are fitted to histograms, which all processes share, in double precision on the CPU, so that
every process finds the same numbers. Cells of one field tell much the same, and few fields tell
little: a fitted change is kept only as far as fields agree on it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torchmetrics import Metric

from encoders.calibration import share_to_keep

# Share of normally distributed errors within one standard deviation.
ONE_SIGMA = math.erf(math.sqrt(0.5))
MAX_STEPS = 100
TOLERANCE = 1e-10


class FieldAgreement(Metric):
    """How far fields agree that parameters must change: see `share_to_keep`.

    Args:
        n_parameters: Number of parameters K.
        **kwargs: Options of `torchmetrics.Metric`.
    """

    higher_is_better = None
    is_differentiable = False
    full_state_update = False
    total: Tensor
    square: Tensor

    def __init__(self, n_parameters: int, **kwargs: Any) -> None:  # noqa: ANN401 - torchmetrics
        super().__init__(**kwargs)
        zero = torch.zeros(n_parameters, dtype=torch.float64)
        self.add_state("total", default=zero, dist_reduce_fx="sum")
        self.add_state("square", default=zero.outer(zero), dist_reduce_fx="sum")

    def update(self, gradients: Tensor) -> None:
        """Count fields; those of a training that has diverged (not finite) say nothing.

        Args:
            gradients: Of the log-likelihood of each field, where nothing is changed (B, K).
        """
        gradients = gradients.detach().double()
        gradients = gradients[gradients.isfinite().all(dim=1)]
        self.total += gradients.sum(dim=0)
        self.square += gradients.T @ gradients

    def compute(self) -> Tensor:
        """Return the share of a change to keep, a float64 scalar on the CPU."""
        return share_to_keep(self.total.cpu(), self.square.cpu())


def logit_gradients(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the gradients of the log-likelihood of `sigmoid(slope * logit + offset)` at (1, 0).

    Args:
        logits: (B, ny, nx).
        target: 1 for a cell with a member, else 0 (B, ny, nx).
        weight: Of the cells (B, ny, nx).

    Returns:
        Per field, to slope and offset (B, 2), float64.
    """
    x = logits.double()
    excess = weight * (target - torch.sigmoid(x))
    return torch.stack(((excess * x).sum(dim=(1, 2)), excess.sum(dim=(1, 2))), dim=1)


def fit_logits(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Fit `logit p = slope * logit + offset` to counted cells: the least cross-entropy.

    With N+ and N- cells with and without a member, their targets are (N+ + 1) / (N+ + 2) and
    1 / (N- + 2) instead of 1 and 0, so that the slope stays finite where a threshold separates them
    (Platt 1999, "Probabilistic outputs for support vector machines", section 2.2). The function is
    convex; Newton's method with halved steps finds its minimum (Lin, Lin & Weng 2007,
    doi:10.1007/s10994-007-5018-6).

    Args:
        logits: One per bin (n_bins,).
        positive: Weight of cells with a member per bin (n_bins,).
        negative: Weight of the other cells per bin (n_bins,).

    Returns:
        Slope and offset (2,), float64 on the CPU; 1 and 0 where one kind of cell is missing, or
        where higher logits do not mean more members.
    """
    x, yes, no = (value.detach().cpu().double() for value in (logits, positive, negative))
    unchanged = x.new_tensor([1.0, 0.0])
    if not (yes.sum() > 0 and no.sum() > 0):
        return unchanged
    hits = yes * (yes.sum() + 1.0) / (yes.sum() + 2.0) + no / (no.sum() + 2.0)
    found = _minimise(torch.stack((x, torch.ones_like(x))), hits, yes + no - hits, unchanged)
    return found if float(found[0]) > 0 else unchanged


def _minimise(design: Tensor, hits: Tensor, misses: Tensor, begin: Tensor) -> Tensor:
    """Minimise `-sum(hits ln p + misses ln(1 - p))` with `logit p = found @ design`."""

    def entropy(found: Tensor) -> Tensor:
        value = found @ design
        return -(hits * logsigmoid(value) + misses * logsigmoid(-value)).sum()

    found = begin
    for _ in range(MAX_STEPS):
        p = torch.sigmoid(found @ design)
        slope = design @ ((hits + misses) * p - hits)
        curvature = (design * ((hits + misses) * p * (1.0 - p))) @ design.T
        # The pseudo-inverse also takes one bin, where only the offset matters or only the slope.
        step = torch.linalg.pinv(curvature, hermitian=True) @ slope
        while entropy(found - step) > entropy(found) and float(step.abs().max()) > TOLERANCE:
            step = 0.5 * step
        found = found - step
        if float(step.abs().max()) <= TOLERANCE:
            break
    return found


def central_width(histogram: Tensor, width: float) -> Tensor:
    """Return the absolute value below which 68.27 % of counted values lie.

    Args:
        histogram: Weight of absolute values in bins from 0 on (n_bins,).
        width: Of a bin.

    Returns:
        Scalar, interpolated within bins; 1 where nothing was counted.
    """
    below = histogram.cumsum(0)
    wanted = ONE_SIGMA * below[-1:]
    if not bool(wanted > 0):
        return histogram.new_ones(())
    place = torch.searchsorted(below, wanted)[0]
    return width * (place + 1.0 - (below[place] - wanted[0]) / histogram[place])
