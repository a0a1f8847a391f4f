"""The loss against its formula."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from datagen.errors import ConfigError
from encoders.fields.losses import check_loss, membership_loss

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
        check_loss(0, 0)
    with pytest.raises(ConfigError, match="focal_gamma = -1"):
        check_loss(1, -1)
