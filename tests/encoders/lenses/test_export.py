"""Networks as ordinary modules, in one process and in two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from encoders.equivariant import SteerableConv
from encoders.lenses.densenet import DenseLayer
from encoders.lenses.e2cnn_network import EquivariantNetwork
from encoders.lenses.export import plain
from encoders.lenses.plain_network import PlainNetwork
from encoders.lenses.reference_network import ReferenceNetwork
from encoders.lenses.resnet import Bottleneck, ResNet18
from tests.two_processes import in_two_processes

SIDE = 33


def images(n: int = 4, side: int = SIDE) -> Tensor:
    return torch.randn(n, 1, side, side, generator=torch.Generator().manual_seed(2))


def network(name: str) -> nn.Module:
    """Return a network as after some training: means and weights of norms are not 0 and 1."""
    torch.manual_seed(0)
    if name == "plain":
        made: nn.Module = PlainNetwork(1, 3, SIDE, [8, 16], [1])
    elif name == "reference":
        made = ReferenceNetwork(1, 3, 33, "C1")
    else:
        made = EquivariantNetwork(1, 3, SIDE, name, [8, 16], [1])
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    for _ in range(3):
        made(images(6) * 2 + 1)
    return made


@pytest.mark.parametrize("name", ["C4", "D4", "O2", "plain", "reference"])
def test_exported_network_is_the_same_function(name: str) -> None:
    made = network(name).eval()
    exported = plain(made)
    with torch.no_grad():
        logits = made(images())
        torch.testing.assert_close(exported(images()), logits, rtol=1e-5, atol=1e-5)
    kinds = {type(m).__name__ for m in exported.modules()}
    assert "Conv2d" in kinds
    assert not kinds & {"SteerableConv", "FieldNorm", "IrrepNorm", "BatchNorm2d", "ConvNorm"}
    convolutions = [m for m in exported.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions)


@pytest.mark.parametrize(
    ("made", "n_left"),
    [
        (ResNet18(1, 3, SIDE), 0),
        # What comes before a convolution and its ReLU stays.
        (Bottleneck(4, 2, 2), 1),
        (nn.Sequential(DenseLayer(4, save_memory=True)), 1),
        (nn.Sequential(nn.Conv1d(4, 5, 3, bias=False), nn.BatchNorm1d(5), nn.ReLU()), 0),
    ],
    ids=["resnet18", "bottleneck", "dense", "sequence"],
)
def test_normalisations_after_convolutions_are_folded(made: nn.Module, n_left: int) -> None:
    torch.manual_seed(3)
    norms = [m for m in made.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        for values in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            values.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    maps = torch.randn(2, 4, 9, 9)
    inputs: dict[type, Any] = {ResNet18: images(), Bottleneck: maps}
    given = inputs.get(type(made), [maps] if n_left else maps[..., 0])
    folded = plain(made)
    assert sum(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in folded.modules()) == n_left
    with torch.no_grad():
        torch.testing.assert_close(folded(given), made.eval()(given), rtol=1e-4, atol=1e-4)
    assert len(norms) > n_left


def test_export_leaves_the_network_alone_and_knows_nothing_of_it() -> None:
    made = network("D4").train()
    state = {name: value.clone() for name, value in made.state_dict().items()}
    exported = plain(made)
    assert made.training
    assert any(isinstance(m, SteerableConv) for m in made.modules())
    torch.testing.assert_close(dict(made.state_dict()), state, rtol=0, atol=0)
    assert not exported.training
    assert not any(p.requires_grad for p in exported.parameters())
    before = exported(images())
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
    torch.testing.assert_close(exported(images()), before, rtol=0, atol=0)


def test_a_network_may_know_its_own_ordinary_form() -> None:
    class Own(nn.Module):
        def plain(self) -> nn.Module:
            return nn.Flatten()

    assert isinstance(plain(Own()), nn.Flatten)


def gradients(made: nn.Module, which: slice) -> list[Tensor]:
    """Gradients of a mean loss over some of six images; batch statistics are frozen."""
    made.zero_grad()
    made(images(6).double()[which]).square().mean().backward()
    return [p.grad.clone() for p in made.parameters() if p.grad is not None]


def share(rank: int) -> list[Tensor]:
    made = DistributedDataParallel(network("D4").double().eval())
    return gradients(made, slice(rank, None, 2))


def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    expected = gradients(network("D4").double().eval(), slice(None))
    for found in in_two_processes(share, tmp_path):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
