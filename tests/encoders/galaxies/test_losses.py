"""Losses against slow transcriptions of the papers, by hand and over two processes."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from encoders.galaxies import losses
from encoders.galaxies.queue import Neighbours
from tests.two_processes import in_two_processes

TAU = 0.2
# Stamps 0, 3 and 6 show one object, 1 and 5 another one.
OBJECTS = torch.tensor([7, 2, 5, 7, 11, 2, 7, 3])
B = len(OBJECTS)
Loss = Callable[..., Tensor]


def views(n: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(B, 6, generator=generator, dtype=torch.float64) for _ in range(n)]


def neighbours() -> list[Neighbours]:
    """The neighbour of stamp 2 shows the object of 1 and 5; those of some are unknown."""
    objects = torch.tensor([7, -1, 2, 30, 31, -1, 7, 3])
    rows = [normalize(x, dim=1) for x in views(4)[2:]]
    return [Neighbours(rows[0], objects), Neighbours(rows[1], objects.flip(0))]


def cosine(x: Tensor, y: Tensor) -> float:
    dot = sum(float(p) * float(q) for p, q in zip(x, y, strict=True))
    norms = math.prod(math.sqrt(sum(float(p) ** 2 for p in v)) for v in (x, y))
    return dot / norms


def relation(i: int, k: int, objects: Tensor | None, as_positives: bool) -> str:
    """How stamp i sees another view of stamp k, in words of the specification."""
    if i == k:
        return "positive"
    if objects is not None and objects[i] == objects[k]:
        return "positive" if as_positives else "none"
    return "negative"


def slow_contrast(
    a: Tensor, b: Tensor, objects: Tensor | None, as_positives: bool, in_sum: tuple[str, ...]
) -> float:
    stamps = [(view, i) for view in range(2) for i in range(B)]
    total = 0.0
    for view, i in stamps:
        positive, terms = [], []
        for other, k in stamps:
            if (other, k) == (view, i):
                continue
            s = cosine((a, b)[view][i], (a, b)[other][k]) / TAU
            how = relation(i, k, objects, as_positives)
            positive += [s] if how == "positive" else []
            terms += [math.exp(s)] if how in in_sum else []
        total += math.log(sum(terms)) - sum(positive) / len(positive)
    return total / (2 * B)


def slow_nnclr(
    near: list[Neighbours], predicted: list[Tensor], objects: Tensor | None, as_positives: bool
) -> float:
    total = 0.0
    for direction in range(2):
        n, p = near[direction], predicted[1 - direction]
        for i in range(B):
            positive, terms = [], []
            for k in range(B):
                s = cosine(n.rows[i], p[k]) / TAU
                how = relation(i, k, objects, as_positives)
                if objects is not None and n.objects[i] == objects[k] and i != k:
                    how = "positive" if as_positives else "none"
                positive += [s] if how == "positive" else []
                terms += [math.exp(s)] if how != "none" else []
            total += math.log(sum(terms)) - sum(positive) / len(positive)
    return total / (2 * B)


def slow_siglip(
    a: Tensor, b: Tensor, t: float, bias: float, objects: Tensor | None, as_positives: bool
) -> float:
    total = 0.0
    for i in range(B):
        for k in range(B):
            how = relation(i, k, objects, as_positives)
            if how != "none":
                z = 1.0 if how == "positive" else -1.0
                logit = t * cosine(a[i], b[k]) + bias
                total -= math.log(1.0 / (1.0 + math.exp(-z * logit)))
    return total / B


def slow_vicreg(a: Tensor, b: Tensor) -> float:
    n_dimensions = a.shape[1]
    squares = [
        (float(a[i, d]) - float(b[i, d])) ** 2 for i in range(B) for d in range(n_dimensions)
    ]
    loss = 25.0 * sum(squares) / len(squares)
    for z in (a, b):
        mean = [sum(float(z[i, d]) for i in range(B)) / B for d in range(n_dimensions)]
        for d in range(n_dimensions):
            for e in range(n_dimensions):
                both = [(float(z[i, d]) - mean[d]) * (float(z[i, e]) - mean[e]) for i in range(B)]
                covariance = sum(both) / (B - 1)
                if d == e:
                    loss += 12.5 * max(0.0, 1.0 - math.sqrt(covariance + 1e-4)) / n_dimensions
                else:
                    loss += covariance**2 / n_dimensions
    return loss


MODES = [(None, False), (OBJECTS, False), (OBJECTS, True)]


@pytest.mark.parametrize(("objects", "as_positives"), MODES)
def test_losses_are_those_of_the_papers(objects: Tensor | None, as_positives: bool) -> None:
    a, b = views()
    options = {"objects": objects, "as_positives": as_positives}
    found = [
        losses.nt_xent(a, b, TAU, **options),
        losses.dcl(a, b, TAU, **options),
        losses.nnclr(*neighbours(), a, b, TAU, **options),
        losses.siglip(a, b, torch.tensor(7.0), torch.tensor(-3.0), **options),
    ]
    expected = [
        slow_contrast(a, b, objects, as_positives, ("positive", "negative")),
        slow_contrast(a, b, objects, as_positives, ("negative",)),
        slow_nnclr(neighbours(), [a, b], objects, as_positives),
        slow_siglip(a, b, 7.0, -3.0, objects, as_positives),
    ]
    assert [float(x) for x in found] == pytest.approx(expected, rel=1e-12)


def test_losses_without_negatives_are_those_of_the_papers() -> None:
    a, b = views()
    # Some dimensions vary by more than 1, some by less.
    wide, narrow = a * torch.linspace(0.1, 1.5, 6), b * torch.linspace(1.5, 0.1, 6)
    found = losses.vicreg(wide, narrow, 25.0, 25.0, 1.0)
    assert float(found) == pytest.approx(slow_vicreg(wide, narrow), rel=1e-12)
    p_a, p_b, t_a, t_b = views(4)
    pairs = [2 - 2 * cosine(p_a[i], t_b[i]) + 2 - 2 * cosine(p_b[i], t_a[i]) for i in range(B)]
    assert float(losses.byol(p_a, p_b, t_a, t_b)) == pytest.approx(sum(pairs) / B, rel=1e-12)


def test_a_stamp_without_negatives_is_only_attracted() -> None:
    a, b = (x.requires_grad_() for x in views())
    loss = losses.dcl(a, b, TAU, torch.zeros(B, dtype=torch.int64))
    expected = -sum(cosine(x, y) for x, y in zip(*views(), strict=True)) / TAU / B
    assert loss.item() == pytest.approx(expected)
    assert torch.autograd.grad(loss, a)[0].isfinite().all()


@pytest.mark.parametrize("loss", [losses.nt_xent, losses.dcl])
def test_projections_of_an_object_do_not_repel_each_other(loss: Loss) -> None:
    """The gradient of a pair of stamps of one object, as a function of their cosine alone."""
    a = torch.eye(B, dtype=torch.float64).requires_grad_()
    b = torch.eye(B, dtype=torch.float64)

    def pull(objects: Tensor | None, as_positives: bool) -> float:
        gradient = torch.autograd.grad(loss(a, b, TAU, objects, as_positives), a)[0]
        return float(gradient[0, 3])  # 0 and 3 show one object

    assert pull(None, False) > 1e-3
    assert pull(OBJECTS, False) == 0.0
    assert pull(OBJECTS, True) < -1e-3


def test_views_of_a_stamp_belong_together_row_by_row() -> None:
    a, _ = views()
    noise = 0.01 * views(3)[2]
    for loss in (losses.nt_xent, losses.dcl):
        assert loss(a, a + noise, TAU) < loss(a, (a + noise).roll(1, 0), TAU)
        assert loss(a, a + noise, TAU) < loss(a, (a + noise).flip(0), TAU)
        torch.testing.assert_close(loss(a, noise, TAU), loss(noise, a, TAU))


NAMES = ["nt_xent", "without objects", "dcl", "nnclr", "siglip", "vicreg", "byol"]
CASES = list(itertools.product(NAMES, (False, True)))


def given() -> list[Tensor]:
    """What all losses are functions of: four tensors of stamps, scale and bias of logits."""
    scalars = [torch.tensor(x, dtype=torch.float64) for x in (7.0, -3.0)]
    return [x.requires_grad_() for x in (*views(4), *scalars)]


def loss_of(name: str, as_positives: bool, which: slice, *values: Tensor) -> Tensor:
    """A loss of some of the stamps."""
    a, b, c, d = (x[which] for x in values[:4])
    near = [Neighbours(n.rows[which].to(a), n.objects[which]) for n in neighbours()]
    options: dict[str, Any] = {"objects": OBJECTS[which], "as_positives": as_positives}
    made = {
        "nt_xent": lambda: losses.nt_xent(a, b, TAU, **options),
        "without objects": lambda: losses.nt_xent(a, b, TAU),
        "dcl": lambda: losses.dcl(a, b, TAU, **options),
        "nnclr": lambda: losses.nnclr(near[0], near[1], a, b, TAU, **options),
        "siglip": lambda: losses.siglip(a, b, values[4], values[5], **options),
        "vicreg": lambda: losses.vicreg(a, b, 25.0, 25.0, 1.0),
        "byol": lambda: losses.byol(a, b, c, d),
    }
    return made[name]()


def values_and_slopes(which: slice) -> list[Tensor]:
    """Each loss and its gradients to the embeddings of all stamps, scale and bias."""
    found = []
    for case in CASES:
        values = given()
        loss = loss_of(*case, which, *values)
        slopes = torch.autograd.grad(loss, values, allow_unused=True, materialize_grads=True)
        found += [loss.detach(), *slopes]
    return found


def share(rank: int) -> list[Tensor]:
    """What distributed training does with losses and gradients: take their mean."""
    half = B // 2
    found = values_and_slopes(slice(rank * half, (rank + 1) * half))
    for values in found:
        torch.distributed.all_reduce(values)
    return [values / 2 for values in found]


def test_two_processes_have_losses_and_gradients_of_one(tmp_path: Path) -> None:
    expected = values_and_slopes(slice(None))
    for found in in_two_processes(share, tmp_path):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "as_positives"), CASES[:-2])
def test_gradients_are_right(name: str, as_positives: bool) -> None:
    loss = functools.partial(loss_of, name, as_positives, slice(4))
    assert torch.autograd.gradcheck(loss, given(), fast_mode=True)


def test_targets_get_no_gradient() -> None:
    p_a, p_b, t_a, t_b = given()[:4]
    losses.byol(p_a, p_b, t_a, t_b).backward()
    assert p_a.grad is not None
    assert t_a.grad is t_b.grad is None


@pytest.mark.parametrize(("name", "as_positives"), CASES)
def test_mixed_training_keeps_single_precision(name: str, as_positives: bool) -> None:
    loss = functools.partial(loss_of, name, as_positives, slice(None))
    single = [x.detach().float() for x in given()]
    expected = float(loss(*[x.double() for x in single]))
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(*single)
        low = loss(*[x.bfloat16() for x in single])
    assert found.dtype == low.dtype == torch.float32
    assert float(found) == pytest.approx(expected, rel=2e-6)
