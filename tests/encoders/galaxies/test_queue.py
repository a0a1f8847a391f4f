"""The queue against a list."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from datagen.errors import ConfigError
from encoders.galaxies.queue import Queue
from tests.two_processes import in_two_processes

N_ROWS, B, D = 10, 4, 3


def batches(n: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [
        (5.0 * torch.randn(B, D, generator=generator), torch.arange(B) + 100 * step)
        for step in range(n)
    ]


@pytest.mark.parametrize("n_batches", [1, 2, 3, 8])
def test_the_last_rows_are_kept_in_order(n_batches: int) -> None:
    queue, rows, objects = Queue(N_ROWS, D), [], []
    for batch, shown in batches(n_batches):
        queue.push(batch, shown)
        rows += [row / row.norm() for row in batch]
        objects += shown.tolist()
    torch.testing.assert_close(queue.rows(), torch.stack(rows[-N_ROWS:]))
    torch.testing.assert_close(queue.rows().norm(dim=1), torch.ones(min(len(rows), N_ROWS)))
    near = queue.nearest(torch.stack(rows[-N_ROWS:]))
    assert near.objects.tolist() == objects[-N_ROWS:]


def test_a_batch_may_be_longer_than_the_queue() -> None:
    queue, rows = Queue(5, D), torch.randn(12, D)
    queue.push(rows[:3])
    queue.push(rows)
    torch.testing.assert_close(queue.rows(), normalize(rows[-5:], dim=1))
    assert set(queue.nearest(rows).objects.tolist()) == {-1}


def test_rows_of_the_same_object_are_no_neighbours() -> None:
    queue = Queue(N_ROWS, D)
    (first, shown), (second, _) = batches(2)
    queue.push(first, shown)
    # Each row would find itself.
    assert queue.nearest(first).objects.tolist() == shown.tolist()
    near = queue.nearest(first, shown)
    cosines = normalize(first, dim=1) @ normalize(first, dim=1).T
    best = cosines.fill_diagonal_(-2.0).argmax(dim=1)
    assert near.objects.tolist() == shown[best].tolist()
    # Nothing but an earlier row of the same object is there.
    alone = Queue(N_ROWS, D)
    alone.push(second[:1], shown[:1])
    near = alone.nearest(first[:1], shown[:1])
    torch.testing.assert_close(near.rows, normalize(first[:1], dim=1))
    assert near.objects.tolist() == [-1]


def test_neighbours_are_those_by_cosine() -> None:
    queue, queries = Queue(N_ROWS, D), 3.0 * torch.randn(6, D)
    near = queue.nearest(queries)
    torch.testing.assert_close(near.rows, normalize(queries, dim=1))
    for batch, shown in batches(2):
        queue.push(batch, shown)
    # Two rows of the queue are empty still.
    rows = [row for batch, _ in batches(2) for row in batch]
    for query, found in zip(queries, queue.nearest(queries).rows, strict=True):
        best = max(rows, key=lambda row: float(torch.cosine_similarity(query, row, dim=0)))
        torch.testing.assert_close(found, best / best.norm())


def test_the_queue_travels_with_the_weights_and_gets_no_gradient() -> None:
    queue, other = Queue(N_ROWS, D), Queue(N_ROWS, D)
    for batch, shown in batches(3):
        queue.push(batch.requires_grad_(), shown)
    other.load_state_dict(queue.state_dict())
    more = batches(4)[3]
    for one in (queue, other):
        one.push(*more)
        assert not one.rows().requires_grad
    assert torch.equal(queue.rows(), other.rows())
    assert list(queue.parameters()) == []


def test_mixed_training_keeps_single_precision() -> None:
    queue, rows = Queue(N_ROWS, D), torch.randn(6, D)
    with torch.autocast("cpu", torch.bfloat16):
        queue.push(rows)
        near = queue.nearest(rows)
    assert near.rows.dtype == torch.float32
    torch.testing.assert_close(near.rows, normalize(rows, dim=1))


def test_a_queue_has_rows() -> None:
    with pytest.raises(ConfigError, match="n_rows = 0"):
        Queue(0, D)


def of_half(rank: int) -> list[Tensor]:
    queue, half = Queue(N_ROWS, D), slice(2 * rank, 2 * rank + 2)
    for batch, shown in batches(4):
        queue.push(batch[half], shown[half])
    near = queue.nearest(batches(4)[3][0])
    return [queue.rows(), near.objects]


def test_two_processes_keep_the_rows_of_both(tmp_path: Path) -> None:
    queue = Queue(N_ROWS, D)
    for batch, shown in batches(4):
        queue.push(batch, shown)
    near = queue.nearest(batches(4)[3][0])
    for rows, objects in in_two_processes(of_half, tmp_path):
        assert torch.equal(rows, queue.rows())
        assert torch.equal(objects, near.objects)
