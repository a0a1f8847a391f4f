"""Learning-rate schedules that count optimiser steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from datagen.errors import ConfigError
from encoders.factory import build_part

# What a schedule that waits for a plateau looks at, after each validation.
MONITOR = "val/loss"


class WarmupCosine(LambdaLR):
    """Linear warm-up, then half a cosine down to a fraction of the learning rate.

    `f(s) = (s + 1) / (w + 1)` for s < w, then `r + (1 - r) (1 + cos(pi (s - w) / (n - w))) / 2`.

    Args:
        optimizer: Whose learning rates are scaled.
        total_steps: n, steps until the lowest rate; it stays there afterwards.
        warmup: Fraction of the steps spent on the warm-up, w / n.
        final: r, lowest fraction of the learning rate.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float, final: float) -> None:
        if not (0.0 <= warmup < 1.0 and 0.0 <= final <= 1.0):
            raise ConfigError(
                "expected 0 <= model.scheduler.warmup < 1 and 0 <= model.scheduler.final <= 1, "
                f"but got warmup = {warmup}, final = {final}",
                (warmup, final),
            )
        n_warmup = round(warmup * total_steps)

        def factor(step: int) -> float:
            if step < n_warmup:
                return (step + 1) / (n_warmup + 1)
            done = min(1.0, (step - n_warmup) / max(1, total_steps - n_warmup))
            return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * done))

        super().__init__(optimizer, factor)


def build_scheduler(
    spec: dict[str, object], optimizer: Optimizer, estimate: Callable[[], float]
) -> LRScheduler:
    """Build a scheduler that is advanced after every optimiser step.

    Args:
        spec: `_target_` and arguments. `total_steps`, where given as null or below 1, becomes the
            estimate.
        optimizer: Whose learning rates it sets.
        estimate: Returns the steps that the training will run, infinity if nothing limits them; it
            may be slow and is asked only if needed.

    Raises:
        ConfigError: The estimate is needed, but infinite.
    """
    options = dict(spec)
    if "total_steps" in options:
        steps = planned_steps(spec, estimate)
        options["total_steps"] = _checked_horizon(steps, options["total_steps"])
    return build_part(options, LRScheduler, optimizer)


def planned_steps(spec: Mapping[str, object] | None, estimate: Callable[[], float]) -> float:
    """Return the `total_steps` of a schedule, or the estimate where it gives none.

    Args:
        spec: See `build_scheduler`; None where there is no schedule.
        estimate: See `build_scheduler`.
    """
    wanted = (spec or {}).get("total_steps")
    return wanted if isinstance(wanted, int) and wanted > 0 else estimate()


def step_plateau(scheduler: object, loss: float) -> None:
    """Tell a schedule that waits for a plateau the loss of a validation; others are left alone.

    Lightning does so after a checkpoint is saved, so that a resumed training would have other
    rates: a module calls this while it validates, and lets Lightning step other schedules only.
    """
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(loss)


def _checked_horizon(estimate: float, wanted: object) -> int:
    if not math.isfinite(estimate):
        raise ConfigError(
            "expected model.scheduler.total_steps to be a number of steps >= 1 where neither "
            "trainer.max_steps nor trainer.max_epochs limits the training, but got total_steps = "
            f"{wanted}; set it (model.scheduler.total_steps=500), or leave the rate constant "
            "(model.scheduler=null)",
            wanted,
        )
    return max(1, int(estimate))


def build_optimizers(
    hparams: Mapping[str, Any],
    parameters: Iterable[Parameter] | Iterable[dict[str, Any]],
    estimate: Callable[[], float],
) -> OptimizerLRScheduler:
    """Build the optimiser of a module, and its schedule by steps, or by epochs for plateaus.

    Args:
        hparams: `optimizer` and `scheduler`, each `_target_` and options; a scheduler of None keeps
            the learning rate.
        parameters: What is trained, or groups of it, see `encoders.optimizers.decay_groups`.
        estimate: See `build_scheduler`.

    Returns:
        What `configure_optimizers` of a module returns.
    """
    optimizer = build_part(hparams["optimizer"], Optimizer, parameters)
    if hparams["scheduler"] is None:
        return optimizer
    scheduler = build_scheduler(dict(hparams["scheduler"]), optimizer, estimate)
    if isinstance(scheduler, ReduceLROnPlateau):
        plateau = {"scheduler": scheduler, "interval": "epoch", "monitor": MONITOR}
        return {"optimizer": optimizer, "lr_scheduler": plateau}  # type: ignore[return-value]
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
