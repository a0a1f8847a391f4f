"""The loss against its formula."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from datagen.errors import ConfigError
from encoders.fields.losses import (
    N_REDSHIFT_CLASSES,
    NO_CLASS,
    REDSHIFT_EDGES,
    STAR,
    check_loss,
    cluster_loss,
    membership_loss,
    redshift_classes,
    redshift_loss,
)

LOGITS = torch.tensor([[[2.0, -1.0], [0.5, -3.0]]])
TARGET = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
ONES = torch.ones(1, 2, 2)


def test_plain_cross_entropy() -> None:
    assert membership_loss(LOGITS, TARGET, ONES) == pytest.approx(
        float(cross_entropy(LOGITS, TARGET))
    )


def test_weight_of_positives() -> None:
    expected = cross_entropy(LOGITS, TARGET, pos_weight=torch.tensor(3.0))
    assert membership_loss(LOGITS, TARGET, ONES, 3.0) == pytest.approx(float(expected))


def test_focal_factor() -> None:
    p = torch.sigmoid(LOGITS)
    p_true = torch.where(TARGET > 0, p, 1 - p)
    expected = ((1 - p_true) ** 2 * -torch.log(p_true)).mean()
    assert membership_loss(LOGITS, TARGET, ONES, 1.0, 2.0) == pytest.approx(float(expected))


def test_cells_of_weight_zero_do_not_count() -> None:
    weight = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    logits = LOGITS.clone().requires_grad_()
    loss = membership_loss(logits, TARGET, weight)
    loss.backward()
    assert loss.item() == pytest.approx(float(cross_entropy(LOGITS[:, 0], TARGET[:, 0])))
    assert logits.grad is not None
    assert not logits.grad[:, 1].any()
    assert membership_loss(LOGITS, TARGET, 0 * ONES) == 0.0


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.loss\.pos_weight > 0, but got pos_weight = 0"):
        check_loss(0, 0, 0, 0)
    with pytest.raises(ConfigError, match="focal_gamma = -1"):
        check_loss(1, -1, 0, 0)
    with pytest.raises(ConfigError, match=r"model\.loss\.redshift_weight >= 0, .*_weight = -1"):
        check_loss(1, 0, -1, 0)
    with pytest.raises(ConfigError, match=r"model\.loss\.cluster_weight >= 0, .*_weight = -2"):
        check_loss(1, 0, 0, -2)


def test_redshift_classes_are_intervals_stars_and_nothing() -> None:
    redshifts = torch.tensor([-1.0, 0.0, 0.05, 0.1, 0.31, 0.9, 2.0])
    expected = [NO_CLASS, STAR, 0, 1, 4, 12, len(REDSHIFT_EDGES)]
    assert redshift_classes(redshifts).tolist() == expected


def test_redshift_loss_is_the_cross_entropy_of_the_classes_that_are_there() -> None:
    logits = torch.randn(2, N_REDSHIFT_CLASSES, 3, 3, generator=torch.Generator().manual_seed(0))
    redshifts = torch.full((2, 3, 3), -1.0)
    assert redshift_loss(logits, redshifts) == 0
    redshifts[0, 1, 2], redshifts[1, 0, 0] = 0.42, 0.0
    chosen = [logits[0, :, 1, 2].log_softmax(0)[6], logits[1, :, 0, 0].log_softmax(0)[STAR]]
    assert redshift_loss(logits, redshifts) == pytest.approx(-float(sum(chosen)) / 2)


def test_cluster_loss_is_the_likelihood_of_the_cells_that_count() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_sigma, target = torch.randn(3, 2, 2, 3, 3, generator=generator)
    weight = torch.zeros(2, 3, 3)
    assert cluster_loss(mean, log_sigma, target, weight) == 0
    weight[0, 1, 2] = weight[1, 0, 0] = weight[1, 2, 2] = 1.0
    chosen = [value.movedim(1, -1)[weight > 0] for value in (mean, target, log_sigma)]
    found = cluster_loss(mean, log_sigma, target, weight)
    gaussian = torch.nn.GaussianNLLLoss(reduction="sum")
    expected = gaussian(chosen[0], chosen[1], (2.0 * chosen[2]).exp()) / 3
    assert found == pytest.approx(float(expected), rel=1e-5)
    # A cell of half the weight counts half.
    weight[0, 1, 2] = 0.5
    gaussian = torch.nn.GaussianNLLLoss(reduction="none")
    each = gaussian(chosen[0], chosen[1], (2.0 * chosen[2]).exp()).sum(dim=1)
    expected = (each * torch.tensor([0.5, 1.0, 1.0])).sum() / 2.5
    assert cluster_loss(mean, log_sigma, target, weight) == pytest.approx(float(expected))


def test_cluster_loss_is_least_where_errors_are_right() -> None:
    difference = torch.randn(1, 1, 100, 100, generator=torch.Generator().manual_seed(0))
    log_sigma = torch.zeros(1, 1, 1, 1, requires_grad=True)
    errors = log_sigma + difference.std().log().expand_as(difference)
    weight = torch.ones(1, 100, 100)
    cluster_loss(torch.zeros_like(difference), errors, difference, weight).backward()
    assert log_sigma.grad is not None
    assert float(log_sigma.grad) == pytest.approx(0.0, abs=1e-2)
