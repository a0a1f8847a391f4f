"""The network of e2cnn's own modules that the benchmark compares with is the same function."""

from __future__ import annotations

import pytest
import torch

from benchmarks.lens_networks import E2cnnNetwork, measure
from encoders.lenses.e2cnn_network import EquivariantNetwork
from encoders.symmetry import RegularFields, fields_of


@pytest.mark.parametrize("group", ["C4", "D4"])
def test_network_of_e2cnn_modules_says_the_same(group: str) -> None:
    torch.manual_seed(0)
    fields = fields_of(group)
    assert isinstance(fields, RegularFields)
    ours = EquivariantNetwork(1, 3, 17, group, [8, 16], [1])
    theirs = E2cnnNetwork(ours, fields)
    images = torch.randn(4, 1, 17, 17)
    for is_training in (True, False):
        logits = [made.train(is_training)(images) for made in (ours, theirs)]
        torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)


def test_table_has_a_row_for_each_network() -> None:
    names = [row[0] for row in measure(side=17, group="C4", n_images=2, n_repeats=1)]
    exported = ["equivariant, exported", "plain CNN, exported"]
    assert names == ["equivariant", "e2cnn", "plain CNN", *exported]
