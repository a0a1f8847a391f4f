"""Losses against slow transcriptions, other code, and two processes."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.semi_supervised import LabelPropagation
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from encoders.halos import losses
from encoders.halos.convolutional import ReducedEncoder
from encoders.halos.network import CompactNetwork, Outputs
from encoders.halos.objective import Labels, Objective, loss_terms, weighted
from tests.two_processes import in_two_processes

ALL = Objective(1.0, 0.018, 3, True, 1.0, 0.5, 0.0, 1e-3, 0.0)
PUBLISHED = Objective(1.0, 2.2, 3, False, 1.0, 0.0, 0.0, 0.0, 0.0)
CLASS_TARGETS = torch.tensor([0.0, 1.0, torch.nan], dtype=torch.float64)


def embeddings(n: int = 12, n_open: int = 4) -> tuple[Tensor, Tensor]:
    """Latents and classes of a batch; every third map or so has no label."""
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(n, 7, generator=generator, dtype=torch.float64)
    classes = torch.arange(n) % 3
    classes[torch.randperm(n, generator=generator)[:n_open]] = losses.UNLABELLED
    return z, classes


def slow_cclp(z: Any, classes: Any, n_classes: int, n_steps: int) -> float:  # noqa: ANN401
    """The published method, written out: labelled maps first, loops over all pairs."""
    order = [i for i in range(len(z)) if classes[i] >= 0] + [
        i for i in range(len(z)) if classes[i] < 0
    ]
    z, y = z[order], [int(classes[i]) for i in order]
    n, n_labelled = len(z), sum(label >= 0 for label in y)
    h = [[0.0] * n for _ in range(n)]
    for i in range(n):
        exponents = [math.exp(sum(a * b for a, b in zip(z[i], z[j], strict=True)))
                     for j in range(n)]  # fmt: skip
        for j in range(n):
            h[i][j] = 1e-5 / n + (1 - 1e-5) * exponents[j] / sum(exponents)
    matrix = np.array(h)
    one_hot = np.array([[float(label == c) for c in range(n_classes)] for label in y[:n_labelled]])
    inverse = np.linalg.inv(np.eye(n - n_labelled) - matrix[n_labelled:, n_labelled:])
    phi = np.vstack((one_hot, inverse @ matrix[n_labelled:, :n_labelled] @ one_hot))
    mass = phi.sum(axis=0)
    walk, total = matrix, 0.0
    for step in range(n_steps):
        if step:
            walk = (matrix * (phi @ phi.T)) @ walk
        for i in range(n):
            for j in range(n):
                t = sum(phi[i, c] * phi[j, c] / (mass[c] + 1e-5) for c in range(n_classes))
                total -= t * math.log(walk[i, j]) / n**2
    return total / n_steps


@pytest.mark.parametrize("n_open", [0, 4])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_cclp_is_the_published_one(n_open: int, n_steps: int) -> None:
    z, classes = embeddings(n_open=n_open)
    expected = slow_cclp(z.numpy(), classes.numpy(), 3, n_steps)
    found = losses.cclp(z, classes, 3, n_steps, per_row=False)
    assert found.item() == pytest.approx(expected, rel=1e-9)
    # The weight 2.2 at 120 maps is 2.2 / 120 per row.
    per_row = losses.cclp(z, classes, 3, n_steps, per_row=True)
    assert per_row.item() == pytest.approx(expected * len(z), rel=1e-9)
    single = losses.cclp(z.float(), classes, 3, n_steps, per_row=False)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_low_precision_is_raised(kind: torch.dtype) -> None:
    z, classes = embeddings()
    assert losses.cclp(z.to(kind), classes, 3, 3, per_row=True).dtype == torch.float32


@pytest.mark.parametrize("n_open", [0, 100])
def test_mixed_training_and_far_maps_keep_value_and_gradient(n_open: int) -> None:
    """Of 120 maps, 100 may be without label in a blob of their own, as those of a foreign set."""
    z, classes = embeddings(120, 0)
    z, classes = z.clone(), classes.clone()
    z[:n_open, 0] += 6.0
    classes[:n_open] = losses.UNLABELLED

    def value_and_slope(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values = values.clone().requires_grad_()
        loss = losses.cclp(values, classes, 3, 3, per_row=True)
        return loss.detach().double(), torch.autograd.grad(loss, values)[0].double()

    exact = value_and_slope(z.float().double())
    with torch.autocast("cpu", torch.bfloat16):
        found = value_and_slope(z.float())
    for one, other in zip(found, exact, strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-5


def test_cclp_has_correct_gradients() -> None:
    z, classes = embeddings(8, 3)
    loss = functools.partial(losses.cclp, classes=classes, n_classes=3, n_steps=3, per_row=True)
    assert torch.autograd.gradcheck(loss, (z.requires_grad_(),))


def test_cclp_falls_as_classes_become_compact() -> None:
    _, classes = embeddings(30, 0)
    corners = 4.0 * torch.eye(7)[classes]
    found = [losses.cclp(s * corners, classes, 3, 3, per_row=True) for s in (0.1, 0.5, 1.0)]
    assert found[0] > found[1] > found[2]
    # Walks end anywhere in a class of ten with the same probability.
    assert found[2].item() == pytest.approx(math.log(10.0), rel=1e-3)


def test_label_propagation_is_that_of_scikit_learn() -> None:
    z, classes = embeddings(40, 25)
    z = 0.5 * z
    # Theirs takes affinities, divides by the sums of rows, and iterates.
    model = LabelPropagation(kernel=lambda x, y: np.exp(x @ y.T), max_iter=5000, tol=1e-13)
    model.fit(z.numpy(), classes.numpy())
    found = losses.propagate(torch.softmax(z @ z.T, dim=1), classes, 3)
    np.testing.assert_allclose(found.numpy(), model.label_distributions_, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(40, dtype=torch.float64))


def test_a_batch_without_labels_has_no_loss() -> None:
    z, classes = embeddings(9, 9)
    z.requires_grad_()
    logits = z[:, :3]
    terms = [
        losses.cclp(z, classes, 3, 3, per_row=True),
        losses.classification(logits, classes),
        losses.distance(z[:, 0], classes, CLASS_TARGETS),
        losses.regression(z[:, 0], torch.full((9,), torch.nan)),
    ]
    assert [term.item() for term in terms] == [0.0] * 4
    torch.stack(terms).sum().backward()
    assert z.grad is not None
    assert not z.grad.any()


def test_distance_is_that_of_the_medians() -> None:
    z, classes = embeddings(13, 3)
    first = z[:, 0]
    squares = [
        (np.median(first[classes == c].numpy()) - float(CLASS_TARGETS[c])) ** 2 for c in (0, 1)
    ]
    found = losses.distance(first, classes, CLASS_TARGETS)
    assert found.item() == pytest.approx(np.mean(squares))
    only_unknown = torch.where(classes == 2, classes, losses.UNLABELLED)
    assert losses.distance(first, only_unknown, CLASS_TARGETS).item() == 0.0
    loss = functools.partial(losses.distance, classes=classes, class_targets=CLASS_TARGETS)
    assert torch.autograd.gradcheck(loss, (first.clone().requires_grad_(),))


def test_regression_and_classification_count_what_is_known() -> None:
    z, classes = embeddings()
    targets = torch.where(classes == 1, 0.7, torch.nan)
    expected = (z[classes == 1, 0] - 0.7).square().mean()
    assert losses.regression(z[:, 0], targets).item() == pytest.approx(expected.item(), rel=1e-6)
    is_known = classes >= 0
    expected = cross_entropy(z[is_known, :3], classes[is_known])
    torch.testing.assert_close(losses.classification(z[:, :3], classes), expected)


def test_bound_and_divergence() -> None:
    z = torch.tensor([[-0.5, 0.3, 1.0, 3.0]])
    assert losses.bound(z).item() == pytest.approx((0.25 + 4.0) / 4)
    log_variance = torch.tensor([[0.2, -1.0, 0.0, 0.5]])
    normal = torch.distributions.Normal(z, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    assert losses.divergence(z, log_variance).item() == pytest.approx(expected.mean().item())


def labels_of(classes: Tensor) -> Labels:
    known = torch.where(classes >= 0, CLASS_TARGETS[classes.clamp_min(0)], torch.nan)
    return Labels(classes, known, CLASS_TARGETS, torch.zeros(0))


def loss_and_gradient(objective: Objective, which: slice) -> list[Tensor]:
    """Loss and gradient to all embeddings from those of one process."""
    z, classes = embeddings()
    z.requires_grad_()
    outputs = Outputs(z[which], z[which, 2:5])
    terms = loss_terms(objective, outputs, labels_of(classes[which]))
    loss = weighted(objective, terms)
    loss.backward()
    assert z.grad is not None
    return [loss.detach(), z.grad]


def both(rank: int) -> list[Tensor]:
    found = []
    for objective in (ALL, PUBLISHED):
        loss, gradient = loss_and_gradient(objective, slice(rank, None, 2))
        for values in (loss, gradient):
            # What distributed training does with losses and gradients.
            torch.distributed.all_reduce(values)
            found.append(values / 2)
    return found


def test_two_processes_have_loss_and_gradients_of_one(tmp_path: Path) -> None:
    expected = [x for o in (ALL, PUBLISHED) for x in loss_and_gradient(o, slice(None))]
    for found in in_two_processes(both, tmp_path):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def network() -> nn.Module:
    torch.manual_seed(0)
    encoder = {"_target_": f"{ReducedEncoder.__module__}.ReducedEncoder", "channels": [4, 8],
               "padding": 1}  # fmt: skip
    made = CompactNetwork(1, 3, 8, encoder, n_hidden=16, n_latent=7, n_head=8, dropout=0.1)
    # Dropout is off.
    return made.double().eval()


def step(made: nn.Module, which: slice) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(12, 1, 8, 8, generator=generator, dtype=torch.float64)[which]
    n_kept = (1 + torch.arange(12) % 7)[which]
    classes = embeddings()[1][which]
    terms = loss_terms(ALL, made(maps, n_kept), labels_of(classes)._replace(maps=maps))
    weighted(ALL, terms).backward()
    return [p.grad.clone() for p in made.parameters() if p.grad is not None]


def share(rank: int) -> list[Tensor]:
    return step(DistributedDataParallel(network()), slice(rank, None, 2))


def test_two_processes_have_the_gradients_of_the_network_in_one(tmp_path: Path) -> None:
    expected = step(network(), slice(None))
    assert len(expected) == len(list(network().parameters()))
    for found in in_two_processes(share, tmp_path):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
