"""Agrees at the start which rank does what; later the ranks go their own ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from lightning import Callback, LightningDataModule, LightningModule

from datagen.errors import CheckpointError
from inference.settings import RunSettings


class Job(Protocol):
    """A prediction that is ready to start: what engine and ranks ask of a task.

    Args:
        noun: What it is made of, in the plural.
        run: `run.json`, see `describe_run`.
    """

    noun: str
    run: dict[str, Any]

    @property
    def module(self) -> LightningModule:
        """What Lightning predicts with."""

    @property
    def settings(self) -> RunSettings:
        """What the user said."""

    @property
    def units(self) -> Sequence[Any]:
        """All units of work, such as survey tiles, sorted by name."""

    def pending(self) -> list[Any]:
        """Return the units without results of this run."""

    def prepare_output(self) -> None:
        """Note which run the folder belongs to; remove what a killed run left behind."""

    def data(self) -> LightningDataModule:
        """Return what gives each rank the batches of its units."""

    def writer(self) -> Callback:
        """Return the callback that saves the results."""

    def finish(self) -> int:
        """Put the results together; return how many units or parts of them failed."""


class RankData(LightningDataModule):
    """Gives each rank its share of the units of work; tasks add `predict_dataloader`.

    Args:
        job: The prediction.

    Attributes:
        units: Those of this rank.
    """

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job
        self.units: list[Any] = []

    def setup(self, stage: str) -> None:
        """Agree on what is to be done."""
        trainer = self.trainer
        assert trainer is not None
        _check_same_checkpoint(trainer.strategy, self._job.run["checkpoint"])
        pending: list[Any] = []
        if trainer.is_global_zero:
            pending = self._job.pending()
            self._job.prepare_output()
        # The ranks start at different times; only one look at the folder counts.
        pending = trainer.strategy.broadcast(pending)
        self.units = pending[trainer.global_rank :: trainer.world_size]


def _check_same_checkpoint(strategy: Any, mine: str) -> None:  # noqa: ANN401 - of any kind
    """Make sure that all ranks read the same checkpoint; raises on all of them or on none."""
    first = strategy.broadcast(mine)
    if strategy.reduce_boolean_decision(mine == first, all=True):
        return
    raise CheckpointError(
        "expected all ranks to read the same checkpoint, but predict.weight_save_path changed "
        f"while they started (first rank {first[:12]}, this one {mine[:12]}); start again",
        value=mine,
        allowed=first,
    )
