"""Callbacks that every task shares."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from datagen.files import save_torch, write_bytes
from datagen.progress import Clock, Minutes

log = logging.getLogger(__name__)


class ReportCallback(Callback):
    """A callback that also takes part in the test of the best checkpoint."""


class ProgressLines(Callback):
    """Says once a minute in the log how far a training is.

    Args:
        clock: Gives the time [s].
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._minutes = Minutes(clock)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
    ) -> None:
        """Log step, epoch and loss, seldom: reading the loss makes a GPU wait."""
        if not trainer.is_global_zero or not self._minutes.is_over():
            return
        n_steps = trainer.estimated_stepping_batches
        total = f" of {n_steps:.0f}" if n_steps < float("inf") else ""
        # Lightning has divided it by the batches of a step.
        loss = float(outputs["loss"]) * trainer.accumulate_grad_batches
        epoch = trainer.current_epoch + 1
        log.info("step %d%s, epoch %d, loss %.4g", trainer.global_step, total, epoch, loss)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its final name and renames it.

    Lightning's own goes through `$TMPDIR`: on another file system it copies over the old file, and
    a process that is killed meanwhile leaves neither the old checkpoint nor the new one.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,  # noqa: ANN401 - Lightning's signature
    ) -> None:
        """Save a checkpoint.

        Raises:
            OutputError: It cannot be written.
        """
        save_torch(Path(path), checkpoint)


class RunCheckpoint(ModelCheckpoint):
    """Keeps checkpoints in the folder of the run, and publishes the best one.

    They go to `checkpoints/` there. After each improvement the best one is copied to `publish`, the
    place where prediction looks. Both are written atomically, so that who reads meanwhile gets the
    old file or the new one. Weights whose monitored value is not finite are never published.

    Args:
        publish: File to keep up to date; None publishes nothing.
        **kwargs: Options of `lightning.pytorch.callbacks.ModelCheckpoint`.
    """

    def __init__(self, publish: str | None, **kwargs: Any) -> None:  # noqa: ANN401 - Lightning's
        super().__init__(**kwargs)
        self.publish = publish
        self._published: tuple[str, float] | None = None
        self._score_before: torch.Tensor | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the folder of the run, which is known only now, and write atomically."""
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        if self.dirpath is None:
            self.dirpath = str(Path(trainer.default_root_dir).absolute() / "checkpoints")
        super().setup(trainer, pl_module, stage)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where prediction finds the weights."""
        if self._published is None:
            return
        is_old = self._score_before is not None and self._score_before == self.best_model_score
        which = "the best of before, as no epoch since was better" if is_old else "the best"
        log.info("published %s as %s: %s", self._published[0], self.publish, which)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let a resumed training compete with the best it had reached, also in a new folder."""
        if Path(state_dict["best_model_path"]).is_file():
            state_dict = state_dict | {"dirpath": self.dirpath}
            self._score_before = state_dict["best_model_score"]
        super().load_state_dict(state_dict)

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Stop at the last step rather than after it, so that it is validated within an epoch."""
        super().on_train_batch_end(trainer, *args, **kwargs)
        if 0 < trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, then publish if there is a new best."""
        super().on_validation_end(trainer, pl_module)
        self._publish_best(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish also what was saved without a validation."""
        super().on_train_end(trainer, pl_module)
        self._publish_best(trainer)

    def _publish_best(self, trainer: Trainer) -> None:
        if self.publish is None or not self.best_model_path or not trainer.is_global_zero:
            return
        best = Path(self.best_model_path)
        state = (self.best_model_path, best.stat().st_mtime_ns) if best.is_file() else None
        if state is None or state == self._published:
            return
        if self.best_model_score is not None and not torch.isfinite(self.best_model_score):
            log.warning(
                "not published as %s: %s is not finite, so the training has diverged; try a lower "
                "model.optimizer.lr or trainer.gradient_clip_val",
                self.publish,
                self.monitor,
            )
            return
        write_bytes(Path(self.publish), best.read_bytes())
        self._published = state
        log.debug("published %s as %s", best.name, self.publish)
