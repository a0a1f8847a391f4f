"""The order of copies and of use, with a GPU that only keeps a diary."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from inference.survey.transfer import copied_ahead


class Diary(list[str]):
    """What was asked of the GPU."""


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch) -> Diary:
    """Replace what needs a GPU."""
    written = Diary()

    class Event:
        def record(self, stream: object) -> None:
            written.append("copy started")

        def synchronize(self) -> None:
            written.append("copy waited for")

    @contextlib.contextmanager
    def stream(side: object) -> Iterator[None]:
        assert side == "side"
        yield

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: "side")
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "main")
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda self, to: written.append(f"kept for {to}")
    )
    # The "GPU" has other memory, as a real one has.
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *a, **k: to(self, copy=True))
    return written


def batches(n: int, host: list[torch.Tensor]) -> Iterator[dict[str, Any]]:
    for number in range(n):
        host.append(torch.full((2,), float(number)))
        yield {"images": host[-1], "tile": f"T{number}", "footer": None}


@pytest.mark.parametrize("n", [0, 1, 4])
def test_one_batch_is_on_its_way_while_another_is_used(diary: Diary, n: int) -> None:
    host: list[torch.Tensor] = []
    used = []
    for number, batch in enumerate(copied_ahead(batches(n, host), torch.device("cpu"))):
        # The next copy has begun before this batch is handed out, and no other one.
        assert diary.count("copy started") == min(number + 2, n)
        assert diary.count("copy waited for") == number + 1
        # The images' memory on this side is free, that of the next batch is not.
        assert host[number].numel() == 0
        assert number + 1 == n or host[number + 1].numel() == 2
        used.append((batch["tile"], batch["images"].tolist(), batch["footer"]))
    assert used == [(f"T{k}", [float(k)] * 2, None) for k in range(n)]
    assert diary.count("kept for main") == n
