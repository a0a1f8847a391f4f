"""Fields as outputs: losses and figures against literal ones."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import accuracy_score, r2_score

from datagen.errors import ConfigError
from encoders.galaxies.fields import Fields

LABELS = {"z": {"mean": 0.2, "std": 0.1}, "kind": {"mean": 1.0, "std": 0.8},
          "mass": {"mean": 10.0, "std": 0.5}}  # fmt: skip


def drawn(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    outputs = torch.randn(n, 5, generator=rng, dtype=torch.float64)
    truth = torch.stack((torch.rand(n, generator=rng), torch.randint(3, (n,), generator=rng),
                         10 + torch.randn(n, generator=rng)), dim=1).double()  # fmt: skip
    truth[::3, 0] = math.nan
    truth[1::5, 1] = math.nan
    return outputs, truth


def test_loss_and_figures_are_those_of_known_labels() -> None:
    fields, (outputs, truth) = Fields(LABELS, {"kind": 3, "absent": 2}), drawn()
    assert fields.n_outputs == 5
    terms = []
    for row, known in zip(outputs.tolist(), truth.tolist(), strict=True):
        wanted = [(known[0] - 0.2) / 0.1, known[1], (known[2] - 10.0) / 0.5]
        norm = math.log(sum(math.exp(x) for x in row[1:4]))
        cross = math.nan if math.isnan(known[1]) else norm - row[1 + int(known[1])]
        terms.append([(row[0] - wanted[0]) ** 2, cross, (row[4] - wanted[2]) ** 2])
    literal = torch.tensor(terms).nanmean(dim=0).mean()
    torch.testing.assert_close(fields.loss(outputs, truth).float(), literal)
    found, values = fields.figures(outputs, truth), fields.values(outputs)
    has_z, has_kind = (~truth[:, k].isnan() for k in (0, 1))
    assert found["r2_z"] == pytest.approx(r2_score(truth[has_z, 0], values[has_z, 0]))
    assert found["r2_mass"] == pytest.approx(r2_score(truth[:, 2], values[:, 2]))
    classes = outputs[has_kind, 1:4].argmax(dim=1)
    assert found["accuracy_kind"] == pytest.approx(accuracy_score(truth[has_kind, 1], classes))


def test_a_field_that_no_stamp_knows_has_no_gradient() -> None:
    fields, (outputs, truth) = Fields(LABELS, {"kind": 3}), drawn()
    truth[:, 1] = math.nan
    outputs.requires_grad_()
    fields.loss(outputs, truth).backward()
    assert outputs.grad is not None
    assert (outputs.grad[:, 1:4] == 0).all()
    assert outputs.grad.isfinite().all()


def test_wrong_fields() -> None:
    with pytest.raises(ConfigError, match=r"stamps with labels .* data\.labels"):
        Fields({}, {})
    with pytest.raises(ConfigError, match=r"expected 2 or more in model\.classes, but got kind: 1"):
        Fields(LABELS, {"kind": 1})
    fields, (outputs, truth) = Fields(LABELS, {"kind": 2}), drawn()
    with pytest.raises(ConfigError, match="labels kind to be numbers from 0 to 1"):
        fields.loss(outputs[:, :4], truth)
