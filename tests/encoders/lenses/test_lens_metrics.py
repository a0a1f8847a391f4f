"""Figures against torchmetrics and slow transcriptions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_auroc,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_roc,
)

from encoders.lenses.metrics import (
    Answers,
    Predictions,
    Running,
    accuracy_by_delta_chi2,
    auroc_ovo,
    auroc_ovr,
    is_guessing,
)
from encoders.metrics import accuracy, area, calibration_error, confusion, roc_curve


@pytest.fixture
def answers() -> Answers:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    logits = torch.randn(300, 3, generator=generator).double()
    logits += 1.5 * torch.nn.functional.one_hot(labels, 3)
    # Ties, as from a network in low precision.
    return Answers((4 * logits).round() / 4, labels, torch.arange(300), torch.full((300,), 2.0))


def test_figures_are_those_of_torchmetrics(answers: Answers) -> None:
    p, labels = answers.probabilities(), answers.labels
    expected = multiclass_auroc(p, labels, 3, average="macro", thresholds=None)
    assert auroc_ovr(p, labels) == pytest.approx(float(expected))
    expected = multiclass_accuracy(answers.logits, labels, 3, average="micro")
    assert accuracy(p, labels) == pytest.approx(float(expected))
    matrix = multiclass_confusion_matrix(answers.logits, labels, 3)
    assert np.array_equal(confusion(p, labels), matrix.numpy())
    expected = multiclass_calibration_error(p, labels, 3, n_bins=15, norm="l1")
    assert calibration_error(p, labels) == pytest.approx(float(expected), abs=1e-6)
    curves = multiclass_roc(p, labels, 3, thresholds=None)
    for k in range(3):
        fpr, tpr = roc_curve(p[:, k].numpy(), (labels == k).numpy())
        np.testing.assert_allclose(fpr, curves[0][k].numpy(), atol=1e-6)
        np.testing.assert_allclose(tpr, curves[1][k].numpy(), atol=1e-6)


def test_one_against_one_counts_pairs(answers: Answers) -> None:
    """Hand & Till's A(j|k): how often an image of class j has more p_j than one of class k."""
    p, labels = answers.probabilities().numpy(), answers.labels.numpy()
    shares = []
    for j, k in itertools.permutations(range(3), 2):
        above = p[labels == j, j][:, None] - p[labels == k, j][None]
        shares.append((above > 0).mean() + 0.5 * (above == 0).mean())
    assert auroc_ovo(answers.probabilities(), answers.labels) == pytest.approx(np.mean(shares))


def test_what_is_undefined_is_left_out() -> None:
    assert np.isnan(area(np.zeros(3), np.ones(3, dtype=bool)))
    assert np.isnan(area(np.array([np.nan, 1.0]), np.array([True, False])))
    p = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]]).double()
    assert auroc_ovr(p, torch.tensor([0, 1])) == 1.0
    assert np.isnan(auroc_ovr(p[:1], torch.tensor([0])))


def test_accuracy_in_bins() -> None:
    right = np.array([True, False, True, True, False])
    chi2 = np.array([1.0, 2.0, 10.0, 50.0, np.nan])
    found = accuracy_by_delta_chi2(right, chi2, np.array([0.0, 10.0, 100.0, 1000.0]))
    assert found.n_images.tolist() == [2, 2, 0]
    assert found.accuracy[:2].tolist() == [0.5, 1.0]
    assert np.isnan(found.accuracy[2])


def batch(index: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "labels": index % 3,
        "index": index,
        "delta_chi2": 10.0 * index,
        "weight": weight,
    }


def test_predictions_count_each_image_once() -> None:
    metric = Predictions()
    logits = torch.randn(6, 3)
    for rows in ([4, 2], [0, 5], [3, 1]):
        metric.update(logits[rows], batch(torch.tensor(rows), torch.ones(2)))
    # Fillers, and an image that another process has seen as well.
    metric.update(logits[[0, 0]], batch(torch.tensor([0, 0]), torch.tensor([0.0, 1.0])))
    metric.update(logits[[0]], batch(torch.tensor([0]), torch.zeros(1)))
    # Some devices have no double precision.
    assert {part.dtype for part in (*metric.numbers, *metric.values)} == {
        torch.int64,
        torch.float32,
    }
    answers = Answers.from_rows(metric.compute())
    assert answers.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(answers.logits, logits.double())
    assert answers.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert answers.delta_chi2[4] == 40.0


def test_running_means() -> None:
    metric = Running()
    metric.update(torch.tensor(2.0), torch.tensor(1), 1)
    metric.update(torch.tensor(1.0), torch.tensor(0), 3)
    assert {metric.loss.dtype, metric.counts.dtype} == {torch.float32, torch.int64}
    found = metric.compute()
    assert float(found["epoch_loss"]) == 1.25
    assert float(found["accuracy"]) == 0.25


@pytest.mark.parametrize(("n_right", "expected"), [(34, True), (42, True), (45, False)])
def test_guessing_is_what_the_wilson_interval_does_not_exclude(
    n_right: int, expected: bool
) -> None:
    """With z = 1.96 and n = 100 the lower end is 1/3 between 43 and 44 right answers."""
    z, p = 1.959964, n_right / 100
    low = (p + z**2 / 200 - z * np.sqrt(p * (1 - p) / 100 + (z / 200) ** 2)) / (1 + z**2 / 100)
    assert (low <= 1 / 3) == expected
    assert is_guessing(n_right, 100, 3) == expected
    assert not is_guessing(0, 0, 3)
