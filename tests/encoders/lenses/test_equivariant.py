"""Steerable convolutions: e2cnn's own as oracle, and every trap of its state."""

from __future__ import annotations

import copy
import functools
import io
import itertools
import pickle

import pytest
import torch
from torch import Tensor, nn

from encoders.e2cnn_compat import enn
from encoders.equivariant import SteerableConv, orthonormal
from encoders.lenses.e2cnn_network import EquivariantNetwork
from encoders.symmetry import fields_of

SIDE = 17


def network(seed: int = 0, group: str = "D4") -> EquivariantNetwork:
    torch.manual_seed(seed)
    return EquivariantNetwork(1, 3, SIDE, group, channels=[8, 16], n_blocks=[0])


@functools.cache
def built(seed: int) -> EquivariantNetwork:
    """A network that nobody uses but as a template: copies are made faster than networks."""
    return network(seed)


def images(n: int = 4) -> Tensor:
    return torch.randn(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def train(made: nn.Module, n_steps: int = 2) -> None:
    optimizer = torch.optim.SGD(made.parameters(), lr=0.01)
    for _ in range(n_steps):
        optimizer.zero_grad()
        made(images()).square().sum().backward()
        optimizer.step()


@torch.no_grad()
def answer(made: nn.Module) -> Tensor:
    """What a network says at evaluation, computed by a fresh one with the same state."""
    fresh = copy.deepcopy(built(99))
    fresh.load_state_dict(made.state_dict())
    return fresh.eval()(images())


@pytest.mark.parametrize("group", ["C4", "C8", "D1", "D4", "SO2", "O2"])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 2), (5, 1)])
def test_makes_every_filter_of_e2cnn(group: str, kernel: int, stride: int) -> None:
    kind = fields_of(group).kind(2)
    made = SteerableConv(kind, kind, kernel, stride)
    more = {"padding": kernel // 2, "stride": stride, "bias": False, "initialize": False}
    theirs = enn.R2Conv(kind, kind, kernel, **more)
    theirs.weights.data.normal_()
    wanted, bias = theirs.expand_parameters()
    assert bias is None
    made.set_filters(wanted)
    fields = torch.randn(2, kind.size, 9, 9)
    expected = theirs(enn.GeometricTensor(fields, kind)).tensor
    torch.testing.assert_close(made(fields), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.plain()(fields), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("group", "n"), [("C1", 9), ("C2", 18), ("C4", 36), ("D1", 18), ("D4", 72)]
)
def test_filters_of_lattice_groups_are_free_in_every_pixel(group: str, n: int) -> None:
    """A group convolution (Cohen & Welling 2016) has one free filter per element of the group."""
    kind = fields_of(group).kind(1)
    assert len(SteerableConv(kind, kind, 3).weights) == n
    # By all rotations of 45 degrees, e2cnn leaves 6 of 9 dimensions.
    kind = fields_of("C8").kind(1)
    assert len(SteerableConv(kind, kind, 3).weights) == 48


@pytest.mark.parametrize("group", ["C4", "D4", "C8", "SO2"])
def test_filters_begin_with_the_variance_of_he(group: str) -> None:
    torch.manual_seed(0)
    kind = fields_of(group).kind(12)
    filters = SteerableConv(kind, kind, 3).filters()
    assert float(filters.detach().var()) == pytest.approx(2.0 / (kind.size * 9), rel=0.1)


def test_gram_and_schmidt_keep_the_span_and_the_order() -> None:
    generator = torch.Generator().manual_seed(0)
    free = torch.randn(3, 2, 4, generator=generator)
    basis = orthonormal(torch.stack([free[0], 2.0 * free[0], free[1], free[0] - free[1], free[2]]))
    flat = basis.flatten(1)
    assert len(basis) == 3
    torch.testing.assert_close(flat @ flat.T, torch.eye(3))
    torch.testing.assert_close(basis[0], free[0] / free[0].norm())
    torch.testing.assert_close(free.flatten(1) @ flat.T @ flat, free.flatten(1))


def test_first_layer_takes_several_scalars() -> None:
    fields = fields_of("C4")
    made = fields.lift(3, 2, 5)
    turned = made(images().repeat(1, 3, 1, 1).rot90(1, (2, 3)))
    # The group permutes the four channels of a field.
    expected = made(images().repeat(1, 3, 1, 1)).rot90(1, (2, 3)).unflatten(1, (2, 4)).roll(1, 2)
    torch.testing.assert_close(turned, expected.flatten(1, 2), rtol=1e-5, atol=1e-5)


def test_only_coefficients_are_state() -> None:
    state = network().state_dict()
    assert not any("filter" in name or "basis_0" in name for name in state)
    assert sum(name.endswith("weights") for name in state) == 5


@pytest.mark.parametrize("modes", itertools.product([True, False], repeat=3))
def test_any_order_of_modes_and_loads(modes: tuple[bool, bool, bool]) -> None:
    # Modes of the source when it is saved, of the target before and after the load.
    source, target = copy.deepcopy(built(1)), copy.deepcopy(built(2))
    train(source)
    source.train(modes[0])
    state = source.state_dict()
    target.train(modes[1])
    target(images())
    target.load_state_dict(state)
    target.train(modes[2])
    with torch.no_grad():
        torch.testing.assert_close(target.eval()(images()), answer(source), rtol=0, atol=0)


def test_training_after_evaluation_is_training() -> None:
    straight, interrupted = network(), network()
    train(straight, 4)
    train(interrupted, 2)
    interrupted.eval()(images())
    interrupted.train()
    train(interrupted, 2)
    for a, b in zip(straight.parameters(), interrupted.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_weights_that_change_in_evaluation_mode_count_at_once() -> None:
    made = network().eval()
    before = made(images())
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(1.5)
    torch.testing.assert_close(made(images()), answer(made), rtol=0, atol=0)
    assert not torch.equal(made(images()), before)


def test_evaluation_mode_has_gradients_as_often_as_wanted() -> None:
    made = network().eval()
    for _ in range(2):
        made.zero_grad()
        made(images()).sum().backward()
        gradients = [p.grad for p in made.parameters()]
        assert all(g is not None and g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("is_training", [True, False])
def test_copies_after_evaluation_are_independent(is_training: bool) -> None:
    made = network()
    train(made)
    made.eval()(images())
    made.train(is_training)
    copies = [copy.deepcopy(made), pickle.loads(pickle.dumps(made))]
    expected = answer(made)
    train(made.train())
    for each in copies:
        torch.testing.assert_close(answer(each), expected, rtol=0, atol=0)


def test_state_goes_through_a_file_that_is_read_safely() -> None:
    made = network(3)
    train(made)
    file = io.BytesIO()
    torch.save(made.eval().state_dict(), file)
    file.seek(0)
    fresh = network(4)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        torch.testing.assert_close(fresh.eval()(images()), answer(made), rtol=0, atol=0)


def test_networks_of_a_process_share_nothing() -> None:
    first, second = network(), network()
    first.double()
    assert first(images().double()).dtype == torch.float64
    assert second(images()).dtype == torch.float32
    assert network()(images()).dtype == torch.float32


@pytest.mark.parametrize(
    ("group", "message"),
    [
        # As many coefficients, but other ones.
        ("C8", r"layers\.0\.conv\.weights belong to another basis: another group\?"),
        ("D8", r"size mismatch for layers\.2\.second\.conv\.weights"),
        ("SO2", r"Missing key"),
    ],
)
def test_weights_of_another_group_are_refused(group: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        network().load_state_dict(network(group=group).state_dict())


def test_autocast_keeps_filters_in_full_precision() -> None:
    made = network().eval()
    with torch.no_grad():
        exact = made(images())
        with torch.autocast("cpu", torch.bfloat16):
            rough = made(images())
    assert rough.isfinite().all()
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.05)
    made.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = made(images()).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())
