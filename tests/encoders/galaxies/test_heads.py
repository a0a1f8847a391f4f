from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from datagen.errors import ConfigError
from encoders.galaxies.heads import Head, MovingAverage, SigmoidScale, momentum_at


def test_a_head_ends_with_a_plain_layer() -> None:
    head = Head(8, [16, 4])
    assert [type(layer).__name__ for layer in head] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert head(torch.randn(5, 8)).shape == (5, 4)
    assert head.n_out == 4
    assert [type(layer).__name__ for layer in Head(8, [4])] == ["Linear"]


@pytest.mark.parametrize("widths", [[], [16, 0]])
def test_a_head_has_layers(widths: list[int]) -> None:
    with pytest.raises(ConfigError, match="widths = "):
        Head(8, widths)


def test_the_copy_follows_slowly() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = MovingAverage(network)
    assert not any(p.requires_grad for p in average.parameters())
    assert all(p.requires_grad for p in network.parameters())
    expected = network[0].weight.detach().clone()
    for step in range(5):
        with torch.no_grad():
            network[0].weight += 1.0
        network(torch.randn(6, 3))
        average.update(network, 0.8 + 0.02 * step)
        expected = (0.8 + 0.02 * step) * expected + (0.2 - 0.02 * step) * network[0].weight.detach()
    copied = average.network
    assert isinstance(copied, nn.Sequential)
    torch.testing.assert_close(copied[0].weight, expected)
    assert int(copied[1].num_batches_tracked) == 5  # type: ignore[arg-type]
    assert not torch.equal(copied[1].running_mean, network[1].running_mean)  # type: ignore[arg-type]
    average.update(network, 0.0)
    assert all(torch.equal(x, network.state_dict()[k]) for k, x in copied.state_dict().items())
    assert not average(torch.randn(6, 3)).requires_grad


def test_momentum_rises_to_one() -> None:
    assert momentum_at(0, 100, 0.97) == pytest.approx(0.97)
    assert momentum_at(50, 100, 0.97) == pytest.approx(0.985)
    assert momentum_at(25, 100, 0.97) == pytest.approx(1 - 0.03 * (1 + math.sqrt(0.5)) / 2)
    assert momentum_at(100, 100, 0.97) == momentum_at(120, 100, 0.97) == 1.0
    assert momentum_at(0, 0, 0.97) == pytest.approx(0.97)


def test_scale_and_bias_are_learned() -> None:
    made = SigmoidScale(10.0, -10.0)
    scale, bias = made()
    assert scale.item() == pytest.approx(10.0)
    assert bias.item() == -10.0
    (scale * bias).backward()
    assert made.log_scale.grad is not None
    assert made.log_scale.grad.item() == pytest.approx(-100.0, rel=1e-6)
    with pytest.raises(ConfigError, match="scale = 0"):
        SigmoidScale(0.0, -10.0)
