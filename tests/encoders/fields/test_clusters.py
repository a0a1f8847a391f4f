"""Redshift and richness of cells: units, and metrics against the values themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from encoders.fields.clusters import ClusterErrors, ClusterEstimate, cluster_targets
from tests.two_processes import in_two_processes

SHAPE = (300, 3, 3)


def test_units_are_first_order_errors() -> None:
    mean = torch.tensor([0.3, 4.0]).log1p().reshape(1, 2, 1, 1)
    mean[:, 1] = torch.tensor(40.0).log()
    log_sigma = torch.tensor([0.02, 0.25]).log().reshape(1, 2, 1, 1)
    found = ClusterEstimate(mean, log_sigma).in_units()
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {"redshift": 0.3, "redshift_error": 0.026, "richness": 40.0, "richness_error": 10.0},
        rel=1e-5,
    )
    assert all(v.shape == (1, 1, 1) and v.dtype == torch.float32 for v in found.values())


def test_targets_are_finite_where_nothing_is_known() -> None:
    redshift, richness = torch.tensor([[[0.0, 0.5]]]), torch.tensor([[[0.0, 20.0]]])
    found = cluster_targets(redshift, richness)
    assert found.flatten().tolist() == pytest.approx([0.0, np.log(1.5), 0.0, np.log(20.0)])


def cells(spread: float = 1.0, seed: int = 0) -> tuple[ClusterEstimate, Tensor, Tensor]:
    """Estimates whose errors are `spread` times as large as they say, some without weight."""
    rng = np.random.default_rng(seed)
    sigma = np.stack([rng.uniform(0.01, 0.03, SHAPE), rng.uniform(0.1, 0.3, SHAPE)], 1)
    z, richness = rng.uniform(0.1, 0.8, SHAPE), rng.uniform(5, 90, SHAPE)
    true = np.stack([np.log1p(z), np.log(richness)], 1)
    mean = (
        true
        + np.array([0.001, -0.01])[:, None, None]
        + spread * sigma * rng.normal(size=true.shape)
    )
    weight = rng.integers(0, 2, SHAPE)
    values = [torch.tensor(value, dtype=torch.float32) for value in (mean, np.log(sigma))]
    targets = cluster_targets(*(torch.tensor(v, dtype=torch.float32) for v in (z, richness)))
    return ClusterEstimate(*values), targets, torch.tensor(weight, dtype=torch.float32)


def test_metrics_are_those_of_the_values() -> None:
    estimate, targets, weight = cells()
    metric = ClusterErrors()
    for part in torch.arange(SHAPE[0]).split(70):
        chosen = ClusterEstimate(*(value[part] for value in estimate))
        metric.update(chosen, targets[part], weight[part])
    found = {name: float(value) for name, value in metric.compute().items()}
    counted = weight.numpy() > 0
    redshift, richness = (np.exp(estimate.mean[:, k].double().numpy())[counted] for k in (0, 1))
    true = [np.exp(targets[:, k].double().numpy())[counted] for k in (0, 1)]
    dz, ratio = redshift / true[0] - 1.0, np.log(richness / true[1])
    assert found["redshift_bias"] == pytest.approx(dz.mean(), abs=1e-5)
    assert found["redshift_nmad"] == pytest.approx(
        stats.median_abs_deviation(dz, scale="normal"), abs=5e-4
    )
    assert found["richness_bias"] == pytest.approx(ratio.mean(), abs=1e-4)
    assert found["richness_scatter"] == pytest.approx(ratio.std(), abs=1e-4)
    sigma = np.exp(estimate.log_sigma.double().numpy())
    for k, name in enumerate(("redshift", "richness")):
        pull = np.abs((estimate.mean - targets)[:, k].numpy() / sigma[:, k])[counted]
        assert found[f"{name}_within_error"] == pytest.approx((pull < 1).mean(), abs=2e-3)


@pytest.mark.parametrize("spread", [0.4, 1.0, 2.0])
def test_scaled_errors_hold(spread: float) -> None:
    estimate, targets, weight = cells(spread)
    metric = ClusterErrors()
    metric.update(estimate, targets, weight)
    scale = torch.stack([metric.compute()[f"{k}_error_scale"] for k in ("redshift", "richness")])
    assert scale.numpy() == pytest.approx(spread, rel=0.1)
    # On other cells.
    estimate, targets, weight = cells(spread, seed=1)
    scaled = ClusterEstimate(estimate.mean, estimate.log_sigma + scale.log()[:, None, None])
    metric.reset()
    metric.update(scaled, targets, weight)
    for name in ("redshift", "richness"):
        assert metric.compute()[f"{name}_within_error"] == pytest.approx(0.683, abs=0.05)


def test_few_fields_change_no_error() -> None:
    """Four clusters may well all be within their errors by chance."""
    estimate, targets, weight = cells(0.1)
    metric = ClusterErrors()
    metric.update(estimate, targets, weight * (torch.arange(SHAPE[0]) < 4)[:, None, None])
    found = metric.compute()
    assert found["redshift_within_error"] > 0.9
    assert found["redshift_error_scale"] == found["richness_error_scale"] == 1.0


def test_values_far_out_and_no_cells() -> None:
    metric = ClusterErrors()
    mean = torch.tensor([3.0, -9.0]).reshape(1, 2, 1, 1)
    sigma = torch.full((1, 2, 1, 1), -20.0)
    metric.update(ClusterEstimate(mean, sigma), torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1))
    assert metric.compute()["redshift_error_scale"] == 1.0
    assert metric.compute()["redshift_nmad"] == 0.0
    metric.update(ClusterEstimate(mean, sigma), torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1))
    found = metric.compute()
    assert all(bool(value.isfinite()) for value in found.values())
    assert found["redshift_bias"] == pytest.approx(0.5, abs=1e-3)
    assert found["richness_bias"] == pytest.approx(-4.0, abs=1e-2)


def count(rank: int) -> dict[str, Tensor]:
    estimate, targets, weight = cells(1.5)
    metric = ClusterErrors()
    mine = ClusterEstimate(*(value[rank::2] for value in estimate))
    metric.update(mine, targets[rank::2], weight[rank::2])
    return metric.compute()


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    one = ClusterErrors()
    one.update(*cells(1.5))
    for found in in_two_processes(count, tmp_path):
        assert found == pytest.approx({name: float(v) for name, v in one.compute().items()})
