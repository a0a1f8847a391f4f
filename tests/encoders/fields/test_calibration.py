"""Fits to histograms against scipy on the values themselves; how much of a fit is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize, special
from torch import Tensor

from encoders.calibration import share_to_keep
from encoders.fields.calibration import (
    ONE_SIGMA,
    FieldAgreement,
    central_width,
    fit_logits,
    logit_gradients,
)
from encoders.fields.metrics import ClusterMembershipAccuracy, bin_centres

SHAPE = (40, 7, 7)
# Of the chi-squared distribution with two degrees of freedom, `1 - exp(-q / 2)`, at 95 %.
QUANTILE = -2.0 * np.log(0.05)


def cells(slope: float, offset: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits that are calibrated after `slope * logit + offset`, labels and weights of 0 to 2."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1.0, 2.0, SHAPE)
    labels = rng.random(SHAPE) < special.expit(slope * logits + offset)
    weight = rng.integers(0, 3, SHAPE)
    values = (logits, labels, weight)
    return tuple(torch.tensor(value, dtype=torch.float32) for value in values)  # type: ignore[return-value]


def histogram_fit(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    metric = ClusterMembershipAccuracy()
    metric.update(logits, labels, weight)
    return fit_logits(bin_centres(metric.positive), metric.positive, metric.negative)


def raw_fit(logits: Tensor, labels: Tensor, weight: Tensor, smooth: float) -> np.ndarray:
    """Minimise the cross-entropy of all cells with a general optimiser."""
    x, y, w = (value.double().numpy().ravel() for value in (logits, labels, weight))
    n_yes, n_no = (w * y).sum(), (w * (1 - y)).sum()
    high, low = (n_yes + smooth) / (n_yes + 2 * smooth), smooth / (n_no + 2 * smooth)
    t = np.where(y > 0, high, low)

    def entropy(parameters: np.ndarray) -> float:
        value = parameters[0] * x + parameters[1]
        return -float(
            (w * (t * special.log_expit(value) + (1 - t) * special.log_expit(-value))).sum()
        )

    return np.asarray(optimize.minimize(entropy, [1.0, 0.0], method="BFGS", tol=1e-8).x)


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.5, 0.7), (2.5, -1.0)])
def test_the_fit_is_that_of_the_cells(slope: float, offset: float) -> None:
    counted = cells(slope, offset)
    found = histogram_fit(*counted).numpy()
    # Bins of 1/64 move logits by up to 1/128.
    np.testing.assert_allclose(found, raw_fit(*counted, smooth=1.0), atol=2e-3)
    np.testing.assert_allclose(found, raw_fit(*counted, smooth=0.0), atol=0.08)
    np.testing.assert_allclose(found, [slope, offset], atol=0.35)


def test_separated_cells_give_a_finite_slope() -> None:
    logits = torch.linspace(-3.0, 3.0, 60)
    labels = (logits > 0).float()
    slope, offset = histogram_fit(logits, labels, torch.ones(60)).tolist()
    assert 1.0 < slope < 50.0
    assert offset == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("kind", ["no member", "members only", "no cell", "wrong order"])
def test_nothing_changes_where_nothing_can_be_fitted(kind: str) -> None:
    logits = torch.linspace(-3.0, 3.0, 60)
    labels = {"no member": 0 * logits, "members only": 0 * logits + 1}.get(kind, (logits < 0) + 0.0)
    weight = torch.zeros(60) if kind == "no cell" else torch.ones(60)
    assert histogram_fit(logits, labels, weight).tolist() == [1.0, 0.0]


def test_equal_logits_get_the_share_of_members() -> None:
    labels = (torch.arange(60) < 15).float()
    slope, offset = histogram_fit(torch.full((60,), -2.0), labels, torch.ones(60)).tolist()
    expected = (15 * 16 / 17 + 45 / 47) / 60
    logit = -2.0 + 1 / 128
    assert special.expit(slope * logit + offset) == pytest.approx(expected, abs=1e-6)


def test_gradients_are_those_of_the_likelihood() -> None:
    logits, labels, weight = cells(1.5, 0.5)
    parameters = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    p = torch.sigmoid(parameters[0] * logits.double() + parameters[1])
    likelihood = weight * torch.where(labels > 0, p, 1 - p).log()
    found = logit_gradients(logits, labels, weight)
    assert found.shape == (SHAPE[0], 2)
    for number in (0, 7):
        (expected,) = torch.autograd.grad(likelihood[number].sum(), parameters, retain_graph=True)
        torch.testing.assert_close(found[number], expected)


def test_fields_are_summed_in_any_parts() -> None:
    gradients = torch.tensor(np.random.default_rng(0).normal(0.8, 1.0, (30, 2)))
    metric = FieldAgreement(2)
    for part in gradients.split(8):
        metric.update(part)
    metric.update(torch.tensor([[torch.nan, 0.0], [1.0, torch.inf]]))
    total, square = gradients.sum(0), gradients.T @ gradients
    strength = float(total @ torch.linalg.inv(square) @ total)
    assert float(metric.compute()) == pytest.approx(1.0 - QUANTILE / strength)


def test_chance_is_not_kept_and_agreement_is() -> None:
    """The test statistic of chance has the chi-squared distribution that its theory says."""
    gradients = torch.tensor(np.random.default_rng(0).normal(size=(2000, 200, 2)) * [5.0, 0.1])
    shares = np.array([float(share_to_keep(g.sum(0), g.T @ g)) for g in gradients])
    assert np.mean(shares == 0) == pytest.approx(0.95, abs=0.015)
    assert shares.max() < 0.8
    clear = gradients[0] + torch.tensor([5.0, 0.1])
    assert share_to_keep(clear.sum(0), clear.T @ clear) > 0.95


def test_too_few_fields_change_nothing() -> None:
    one = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    for gradients in (one, torch.cat((one, torch.zeros_like(one))), one[:0]):
        assert share_to_keep(gradients.sum(0), gradients.T @ gradients) == 0


def test_central_width_is_the_quantile_of_one_sigma() -> None:
    values = np.abs(np.random.default_rng(0).normal(0.0, 1.7, 20000))
    counts = np.histogram(values, bins=1000, range=(0, 10))[0]
    found = float(central_width(torch.tensor(counts, dtype=torch.float64), 0.01))
    assert found == pytest.approx(np.quantile(values, ONE_SIGMA), abs=1e-3)
    assert found == pytest.approx(1.7, rel=0.03)
    assert central_width(torch.zeros(5), 0.1) == 1
    assert central_width(torch.tensor([0.0, 0.0, 2.0]), 0.1) == pytest.approx(0.2 + 0.1 * ONE_SIGMA)
