"""Copies batches to a GPU while it computes on the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from inference.survey.dataset import Batch


class _Copy:
    """A batch on its way to a GPU.

    Args:
        batch: In pinned memory, or else the copy holds up this thread.
        device: The GPU.
        stream: Carries the copies.
    """

    def __init__(self, batch: Batch, device: torch.device, stream: torch.cuda.Stream) -> None:
        self._host = batch
        self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            self._moved: Batch = {
                key: value.to(device, non_blocking=True) if torch.is_tensor(value) else value
                for key, value in batch.items()
            }
            self._arrived.record(stream)

    def finish(self) -> Batch:
        """Return the batch on the GPU for use on the current stream."""
        # The host's memory may be written again only when all of it has been read.
        self._arrived.synchronize()
        self._host["images"].set_()
        current = torch.cuda.current_stream()
        for value in self._moved.values():
            if torch.is_tensor(value):
                # It was allocated for the other stream: this one must be done before it is freed.
                value.record_stream(current)
        return self._moved


def copied_ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield batches on a GPU; one more is on its way there while each is used.

    Args:
        batches: Keys as in `WindowDataset`; the memory of their images is given back.
        device: The GPU.
    """
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    waiting: _Copy | None = None
    for batch in batches:
        copy = _Copy(batch, device, stream)
        del batch
        if waiting is not None:
            yield waiting.finish()
        waiting = copy
    if waiting is not None:
        yield waiting.finish()
