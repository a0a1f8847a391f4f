"""Redshift and richness of the cluster whose members a cell holds, with errors.

Networks estimate `ln(1 + z)` and the logarithm of the richness with normally distributed errors:
errors of photometric redshifts grow with 1 + z, those of counts with the count.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from encoders.calibration import share_to_keep
from encoders.fields.calibration import ONE_SIGMA, central_width
from encoders.statistics import MAD_TO_SIGMA

PROPERTIES = ("redshift", "richness")
# Range of the residuals (z' - z) / (1 + z) and ln(richness' / richness), and of absolute errors in
# units of the estimated error; what lies outside falls into the outermost bins.
RESIDUAL_LIMITS = (0.5, 4.0)
PULL_LIMIT = 16.0
N_BINS = 4096


class ClusterEstimate(NamedTuple):
    """Means and logarithms of standard deviations of `ln(1 + z)` and ln richness.

    Args:
        mean: (B, 2, ny, nx).
        log_sigma: (B, 2, ny, nx).
    """

    mean: Tensor
    log_sigma: Tensor

    def in_units(self) -> dict[str, Tensor]:
        """Return redshift and richness with their errors, to first order, (B, ny, nx) float32.

        `sigma(z) = (1 + z) sigma(ln(1 + z))`, and likewise for the richness.
        """
        (stretch, richness), (by_stretch, by_richness) = (
            value.float().exp().unbind(dim=1) for value in self
        )
        return {
            "redshift": stretch - 1.0,
            "redshift_error": stretch * by_stretch,
            "richness": richness,
            "richness_error": richness * by_richness,
        }


def cluster_targets(redshift: Tensor, richness: Tensor) -> Tensor:
    """Return `ln(1 + z)` and ln richness (B, 2, ny, nx); what is unknown (0) gives 0.

    Args:
        redshift: (B, ny, nx).
        richness: (B, ny, nx).
    """
    known = torch.where(richness > 0, richness, 1.0)
    return torch.stack((redshift.log1p(), known.log()), dim=1)


class ClusterErrors(Metric):
    """Bias and scatter of redshift and richness over cells with members, and coverage of errors.

    Residuals and their ratios to the estimated errors are counted in histograms, so the memory is
    constant and the result does not depend on order or on the number of processes.

    - `redshift_bias`, `redshift_nmad`: mean, and 1.4826 times the median absolute deviation from
      the median, of `(z' - z) / (1 + z)`.
    - `richness_bias`, `richness_scatter`: mean and standard deviation of `ln(richness' /
      richness)`.
    - `*_within_error`: share of estimates within one standard deviation; 0.683 is right.
    - `*_error_scale`: factor that makes this share right, as far as fields agree on it.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    residuals: Tensor
    pulls: Tensor
    excess: Tensor
    excess_square: Tensor

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - torchmetrics
        super().__init__(**kwargs)
        empty = torch.zeros(len(PROPERTIES), N_BINS, dtype=torch.float64)
        self.add_state("residuals", default=empty, dist_reduce_fx="sum")
        self.add_state("pulls", default=empty.clone(), dist_reduce_fx="sum")
        for name in ("excess", "excess_square"):
            self.add_state(name, default=empty.new_zeros(len(PROPERTIES)), dist_reduce_fx="sum")

    def update(self, estimate: ClusterEstimate, targets: Tensor, weight: Tensor) -> None:
        """Count cells.

        Args:
            estimate: Of the network.
            targets: See `cluster_targets` (B, 2, ny, nx).
            weight: Cells with weight 0 are ignored (B, ny, nx).
        """
        # Properties first, then fields, then their cells.
        mean, log_sigma, true = (
            value.detach().double().flatten(2).movedim(1, 0)
            for value in (estimate.mean, estimate.log_sigma, targets)
        )
        counts = weight.double().flatten(1)
        difference = mean - true
        # Of ln(1 + z) to (z' - z) / (1 + z).
        residual = torch.stack((difference[0].expm1(), difference[1]))
        pull = (difference / log_sigma.exp()).abs()
        limits = residual.new_tensor(RESIDUAL_LIMITS)[:, None, None]
        _count(self.residuals, (residual / limits + 1.0) / 2.0, counts)
        _count(self.pulls, pull / PULL_LIMIT, counts)
        excess = (counts * ((pull < 1.0).double() - ONE_SIGMA)).sum(dim=2)
        self.excess += excess.sum(dim=1)
        # Cells of one field share the error of their cluster: they are all within it, or none is.
        self.excess_square += ONE_SIGMA * (1.0 - ONE_SIGMA) * (counts.sum(dim=1) ** 2).sum()

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name, as float32 scalars; 0 (factors: 1) without cells."""
        unit = (torch.arange(N_BINS, device=self.pulls.device) + 0.5) / N_BINS
        values = self.residuals.new_tensor(RESIDUAL_LIMITS)[:, None] * (2.0 * unit - 1.0)
        bias = _mean(self.residuals, values)
        scatter = _mean(self.residuals, (values - bias[:, None]) ** 2).sqrt()
        within = _mean(self.pulls, (PULL_LIMIT * unit < 1.0).double())
        found = {
            "redshift_bias": bias[0],
            "redshift_nmad": MAD_TO_SIGMA * _median_deviation(values[0], self.residuals[0]),
            "richness_bias": bias[1],
            "richness_scatter": scatter[1],
        }
        for row, name in enumerate(PROPERTIES):
            found |= {f"{name}_within_error": within[row], f"{name}_error_scale": self._scale(row)}
        return {name: value.float() for name, value in found.items()}

    def _scale(self, row: int) -> Tensor:
        share = share_to_keep(self.excess[row, None], self.excess_square[row, None, None])
        scale: Tensor = central_width(self.pulls[row], PULL_LIMIT / N_BINS) ** share
        return scale


def _count(histograms: Tensor, unit: Tensor, counts: Tensor) -> None:
    """Add values in [0, 1] (K, B, cells) to K histograms, except what is not a number."""
    bins = (unit.nan_to_num() * N_BINS).clamp(0, N_BINS - 1).long()
    weights = counts * ~unit.isnan()
    histograms.scatter_add_(1, bins.flatten(1), weights.flatten(1))


def _mean(histogram: Tensor, values: Tensor) -> Tensor:
    """Return the mean per row; 0 where nothing was counted."""
    total = histogram.sum(dim=1)
    return (histogram * values).sum(dim=1) / torch.where(total > 0, total, 1.0)


def _median_deviation(values: Tensor, histogram: Tensor) -> Tensor:
    """Return the median absolute deviation from the median of values in rising order."""
    middle = values[_median_place(histogram)]
    deviation, order = (values - middle).abs().sort()
    return deviation[_median_place(histogram[order])]


def _median_place(histogram: Tensor) -> Tensor:
    below = histogram.cumsum(0)
    return torch.searchsorted(below, 0.5 * below[-1:]).clamp_max(len(histogram) - 1)[0]
