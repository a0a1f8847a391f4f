from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from datagen.errors import ConfigError
from encoders.galaxies import losses
from encoders.galaxies.objectives import BYOL, NNCLR, Objective, SigLIP, SimCLR, VICReg, View
from encoders.galaxies.queue import Neighbours
from tests.two_processes import in_two_processes

B, D, TAU = 8, 4, 0.2
OBJECTS = torch.arange(B) // 2


def views(step: int = 0) -> list[View]:
    generator = torch.Generator().manual_seed(step)
    return [
        View(*(torch.randn(B, D, generator=generator).double() for _ in range(3))) for _ in range(2)
    ]


def test_objectives_are_their_losses() -> None:
    a, b = views()
    scalars = torch.tensor(10.0), torch.tensor(-10.0)
    pairs: list[tuple[Objective, Tensor]] = [
        (SimCLR(TAU, False, "negatives"), losses.nt_xent(a.projected, b.projected, TAU)),
        (SimCLR(TAU, True, "masked"), losses.dcl(a.projected, b.projected, TAU, OBJECTS)),
        (
            SimCLR(TAU, True, "positives"),
            losses.dcl(a.projected, b.projected, TAU, OBJECTS, as_positives=True),
        ),
        (
            SigLIP(10.0, -10.0, "masked"),
            losses.siglip(a.projected, b.projected, *scalars, OBJECTS),
        ),
        (
            VICReg(25.0, 24.0, 1.0),
            losses.vicreg(a.projected, b.projected, 25.0, 24.0, 1.0),
        ),
        (BYOL(), losses.byol(a.predicted, b.predicted, a.target, b.target)),  # type: ignore[arg-type]
    ]
    for objective, expected in pairs:
        torch.testing.assert_close(objective(a, b, OBJECTS), expected, rtol=1e-6, atol=0.0)


def trained(which: slice) -> list[Tensor]:
    """Loss and gradient of three steps of a training with a queue, and what it keeps."""
    objective, found = NNCLR(TAU, "masked", 12, D), []
    for step in range(3):
        a, b = (View(*(x.requires_grad_() for x in view)) for view in views(step))
        cut = [View(*(x[which] for x in view)) for view in (a, b)]
        loss = objective(*cut, OBJECTS[which])
        found += [loss.detach(), *torch.autograd.grad(loss, [a.predicted, b.predicted])]
    return [*found, objective.queue.rows()]


def test_the_first_view_enters_the_queue_after_it_is_sought() -> None:
    found, (a, b), (c, d) = trained(slice(None)), views(0), views(1)
    known = normalize(a.projected, dim=1).float().double()
    steps = [
        # The queue is empty: each stamp is its own neighbour.
        (a, b, [Neighbours(x.projected, torch.full((B,), -1)) for x in (a, b)]),
        (c, d, []),
    ]
    for x in (c, d):
        cosines = normalize(x.projected, dim=1) @ known.T
        # Earlier rows of a stamp's own object do not count.
        best = cosines.masked_fill(OBJECTS[:, None] == OBJECTS, -2.0).argmax(dim=1)
        steps[1][2].append(Neighbours(known[best], OBJECTS[best]))
    for loss, (one, other, near) in zip((found[0], found[3]), steps, strict=True):
        assert one.predicted is not None
        assert other.predicted is not None
        expected = losses.nnclr(*near, one.predicted, other.predicted, TAU, OBJECTS)
        torch.testing.assert_close(loss, expected)
    both = torch.cat([normalize(views(step)[0].projected, dim=1) for step in range(3)])
    torch.testing.assert_close(found[-1], both[-12:].float())


def share(rank: int) -> list[Tensor]:
    half = B // 2
    found = trained(slice(rank * half, (rank + 1) * half))
    for values in found:
        torch.distributed.all_reduce(values)
    return [values / 2 for values in found]


def test_two_processes_train_as_one_with_a_queue(tmp_path: Path) -> None:
    expected = trained(slice(None))
    for found in in_two_processes(share, tmp_path):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_validation_leaves_the_queue_alone() -> None:
    objective = NNCLR(TAU, "masked", 12, D).eval()
    objective(*views(), OBJECTS)
    assert len(objective.queue.rows()) == 0


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"one of negatives, masked, positives, .*= 'mask'"):
        SimCLR(TAU, False, "mask")
    with pytest.raises(ConfigError, match=r"temperature = 0\.0"):
        NNCLR(0.0, "masked", 12, D)
    with pytest.raises(ConfigError, match="covariance = -1"):
        VICReg(25.0, 25.0, -1.0)
