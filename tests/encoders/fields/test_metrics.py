"""Metrics against direct counts, and two processes against one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_accuracy,
    binary_average_precision,
    binary_calibration_error,
    binary_f1_score,
    binary_precision,
    binary_recall,
)

from encoders.fields.metrics import (
    N_BINS,
    ClusterMembershipAccuracy,
    MeanLoss,
    edge_of,
    probability_of,
)
from tests.two_processes import in_two_processes


def cells(n: int = 4000, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = (torch.rand(n, generator=generator) < 0.2).float()
    logits = 1.5 * torch.randn(n, generator=generator) + 3.0 * target - 2.0
    return logits, target, torch.ones(n)


def test_against_torchmetrics() -> None:
    logits, target, weight = cells()
    # On bin centres, so that binning changes nothing but the calibration bins' borders.
    logits = (logits * 64).floor().add(0.5) / 64
    metric = ClusterMembershipAccuracy(threshold=0.3)
    metric.update(logits, target, weight)
    found = metric.compute()
    threshold, p, t = float(found["threshold"]), logits.sigmoid(), target.long()
    assert threshold == pytest.approx(0.3, abs=0.002)
    assert found["accuracy"] == pytest.approx(float(binary_accuracy(p, t, threshold)))
    assert found["precision"] == pytest.approx(float(binary_precision(p, t, threshold)))
    assert found["recall"] == pytest.approx(float(binary_recall(p, t, threshold)))
    assert found["f1"] == pytest.approx(float(binary_f1_score(p, t, threshold)))
    assert found["average_precision"] == pytest.approx(float(binary_average_precision(p, t)))
    assert found["calibration_error"] == pytest.approx(
        float(binary_calibration_error(p, t, n_bins=15)), abs=1e-5
    )


def test_tuned_threshold_has_the_highest_f1() -> None:
    logits, target, weight = cells()
    metric = ClusterMembershipAccuracy()
    metric.update(logits, target, weight)
    found = metric.compute()
    for threshold in torch.linspace(0.01, 0.99, 99).tolist():
        f1 = binary_f1_score(logits.sigmoid(), target.long(), threshold)
        assert float(found["f1"]) >= float(f1) - 2e-3


def test_ignored_cells_and_order_do_not_matter() -> None:
    logits, target, weight = cells()
    metric, other = ClusterMembershipAccuracy(0.5), ClusterMembershipAccuracy(0.5)
    metric.update(logits, target, weight)
    order = torch.randperm(len(logits))
    for part in order.split(700):
        other.update(logits[part], target[part], weight[part])
    other.update(torch.full((50,), 9.0), torch.zeros(50), torch.zeros(50))
    assert metric.compute() == other.compute()


def test_reset_forgets() -> None:
    logits, target, weight = cells()
    metric = ClusterMembershipAccuracy(0.5)
    metric.update(logits, 1 - target, weight)
    metric.reset()
    metric.update(logits, target, weight)
    fresh = ClusterMembershipAccuracy(0.5)
    fresh.update(logits, target, weight)
    assert metric.compute() == fresh.compute()


def test_extreme_logits_and_no_members() -> None:
    metric = ClusterMembershipAccuracy(0.5)
    metric.update(torch.tensor([1e4, -1e4]), torch.zeros(2), torch.ones(2))
    found = metric.compute()
    assert all(bool(value.isfinite()) for value in found.values())
    assert found["accuracy"] == 0.5
    assert found["average_precision"] == 0.0


def test_edges_and_probabilities() -> None:
    assert probability_of(edge_of(0.5)) == 0.5
    assert edge_of(0.0) == 0
    assert edge_of(1.0) == N_BINS
    assert probability_of(edge_of(0.2)) == pytest.approx(0.2, abs=0.002)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"to have one shape, but got \(3,\), \(2,\) and \(3,\)"):
        ClusterMembershipAccuracy().update(torch.zeros(3), torch.zeros(2), torch.zeros(3))


def count(rank: int) -> dict[str, Tensor]:
    logits, target, weight = cells()
    metric = ClusterMembershipAccuracy()
    metric.update(logits[rank::2], target[rank::2], weight[rank::2])
    loss = MeanLoss()
    # The second process has only what fills up the turn.
    loss.update(torch.tensor(0.5 * (1 - rank)), torch.full((3,), 2.0 * (1 - rank)))
    return {**metric.compute(), "loss": loss.compute()}


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    logits, target, weight = cells()
    one = ClusterMembershipAccuracy()
    one.update(logits, target, weight)
    for found in in_two_processes(count, tmp_path):
        assert found == {**one.compute(), "loss": torch.tensor(0.5)}


def test_the_mean_loss_keeps_what_is_not_finite() -> None:
    loss = MeanLoss()
    loss.update(torch.tensor(0.0), torch.zeros(2))
    assert loss.compute() == 0
    loss.reset()
    loss.update(torch.tensor(float("nan")), torch.ones(2))
    loss.update(torch.tensor(1.0), torch.ones(2))
    assert loss.compute().isnan()
