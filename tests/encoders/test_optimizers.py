"""LARS against a slow transcription, and which weights decay."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.galaxies.heads import Head, MovingAverage, SigmoidScale
from encoders.lenses.e2cnn_network import EquivariantNetwork
from encoders.optimizers import LARS, decay_groups
from encoders.schedules import build_optimizers

SETTINGS = {"lr": 0.4, "momentum": 0.9, "weight_decay": 0.01, "trust": 0.02}
SPEC = {"_target_": "encoders.optimizers.LARS", **SETTINGS}


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)
    ).double()


def gradients(made: nn.Module, seed: int) -> None:
    made.zero_grad()
    x = torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    made(x).square().mean().backward()


def norm(values: list[float]) -> float:
    return math.sqrt(sum(x * x for x in values))


def transcribed(
    w: list[float], g: list[float], v: list[float], rate: float, is_adapted: bool
) -> tuple[list[float], list[float]]:
    """Return weights and velocities after one step of algorithm 1 of You et al. (2017)."""
    eta, m = SETTINGS["trust"], SETTINGS["momentum"]
    beta = SETTINGS["weight_decay"] if is_adapted else 0.0
    local = 1.0
    if is_adapted and norm(w) > 0 and norm(g) > 0:
        local = eta * norm(w) / (norm(g) + beta * norm(w))
    v = [m * vi + rate * local * (gi + beta * wi) for vi, gi, wi in zip(v, g, w, strict=True)]
    return [wi - vi for wi, vi in zip(w, v, strict=True)], v


def test_lars_is_its_algorithm_under_a_changing_rate() -> None:
    made = network()
    with torch.no_grad():
        made[0].weight.zero_()  # a layer of no size has no share
    optimizer = LARS(decay_groups(made), **SETTINGS)
    weights = {k: p.flatten().tolist() for k, p in made.named_parameters()}
    velocities = {k: [0.0] * len(w) for k, w in weights.items()}
    for step in range(4):
        rate = 0.4 / (step + 1)
        for group in optimizer.param_groups:
            group["lr"] = rate
        gradients(made, step)
        for key, p in made.named_parameters():
            assert p.grad is not None
            is_adapted = key in ("0.weight", "4.weight")
            weights[key], velocities[key] = transcribed(
                weights[key], p.grad.flatten().tolist(), velocities[key], rate, is_adapted
            )
        optimizer.step()
        for key, p in made.named_parameters():
            wanted = torch.tensor(weights[key], dtype=torch.float64).view(p.shape)
            torch.testing.assert_close(p.detach(), wanted, rtol=1e-12, atol=1e-14)


def test_lars_without_adaptation_is_the_sgd_of_torch() -> None:
    ours, theirs = network(), network()
    groups = [{"params": list(ours.parameters()), "is_adapted": False}]
    settings = {key: SETTINGS[key] for key in ("lr", "momentum", "weight_decay")}
    optimizers = [
        LARS(groups, trust=1.0, **settings),
        torch.optim.SGD(theirs.parameters(), **settings),
    ]
    for step in range(3):
        for made, optimizer in zip((ours, theirs), optimizers, strict=True):
            gradients(made, step)
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_a_first_step_is_a_share_of_each_layer() -> None:
    made = network()
    before = {k: p.detach().clone() for k, p in made.named_parameters()}
    optimizer = LARS(decay_groups(made), **SETTINGS | {"weight_decay": 0.0})
    gradients(made, 0)
    optimizer.step()
    for key in ("0.weight", "4.weight"):
        step = (made.get_parameter(key) - before[key]).norm() / before[key].norm()
        assert step.item() == pytest.approx(SETTINGS["lr"] * SETTINGS["trust"], rel=1e-9)


def test_a_resumed_lars_goes_on_as_if_it_had_not_stopped() -> None:
    straight, resumed = network(), network()
    first = LARS(decay_groups(straight), **SETTINGS)
    for step in range(2):
        gradients(straight, step)
        first.step()
    resumed.load_state_dict(straight.state_dict())
    second = LARS(decay_groups(resumed), **SETTINGS)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for made, optimizer in ((straight, first), (resumed, second)):
        gradients(made, 2)
        optimizer.step()
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_weights_without_gradient_stay_and_closures_are_called() -> None:
    made = network()
    before = made[4].weight.detach().clone()
    optimizer = LARS(made.parameters(), **SETTINGS)
    assert optimizer.step(lambda: 1.5) == 1.5
    assert torch.equal(made[4].weight, before)


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", -0.1), ("momentum", 1.0), ("momentum", -0.1), ("weight_decay", -1.0), ("trust", 0.0)],
)
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"expected {name} .* but got {name} = {value}"):
        LARS([torch.zeros(1, requires_grad=True)], **SETTINGS | {name: value})


def names(made: nn.Module, weights: list[Tensor]) -> set[str]:
    found = {name for name, p in made.named_parameters() if any(p is w for w in weights)}
    assert len(found) == len(weights)
    return found


@pytest.mark.parametrize("group", ["D4", "O2"])
def test_filters_and_linear_layers_decay_alone(group: str) -> None:
    backbone = EquivariantNetwork(1, 3, 9, group, channels=[8, 8], n_blocks=[0])
    parts = {"backbone": backbone, "head": Head(3, [4, 2]), "scale": SigmoidScale(10.0, -10.0)}
    made = nn.ModuleDict(parts | {"slow": MovingAverage(nn.Linear(3, 3))})
    decaying, others = decay_groups(made)
    wanted = {name for name, _ in made.named_parameters() if name.endswith("conv.weights")}
    wanted |= {"backbone.head.weight", "head.0.weight", "head.3.weight"}
    assert names(made, decaying["params"]) == wanted
    left = {name for name, p in made.named_parameters() if p.requires_grad} - wanted
    assert names(made, others["params"]) == left
    assert left >= {"scale.bias", "scale.log_scale", "head.1.weight", "head.3.bias"}
    assert (others["weight_decay"], others["is_adapted"]) == (0.0, False)


@pytest.mark.parametrize(
    "spec", [SPEC, {"_target_": "torch.optim.AdamW", "lr": 0.1, "weight_decay": 0.01}]
)
def test_any_optimiser_is_built_of_the_groups(spec: dict[str, Any]) -> None:
    made = network()
    hparams = {"optimizer": spec, "scheduler": None}
    optimizer = build_optimizers(hparams, decay_groups(made), lambda: 1.0)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
