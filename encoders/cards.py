"""What a card must say, task by task: how it is checked, and which cards are of the same kind."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningModule

from datagen.errors import ConfigError
from datagen.tiles.bands import SCALE_TOLERANCE, check_zero_point


@dataclass(frozen=True)
class TaskRules:
    """What training, resuming and prediction ask of the checkpoints of a task.

    Args:
        module: Full name of the module's class, imported only when it is needed, since each task
            brings its own libraries.
        model: A model of this task, for messages.
        predict: Choice of `predict=` for this task; None if there is none.
        is_fine: Entries that a card must have, with what their values must be; None allows any.
        resume: Entries that a resumed training must share, as the user knows them.
        is_same: Entries that must agree, before and now, where a training begins with given
            weights.
        shifts: Options of the loss that shift the logits, so that such weights must share them.
        parts: Parts of a model that a resumed training must share.
    """

    module: str
    model: str
    predict: str | None
    is_fine: Mapping[str, Callable[[Any], bool] | None]
    resume: Mapping[str, str]
    is_same: Mapping[str, Callable[[Any, Any], bool]]
    shifts: tuple[str, ...]
    parts: tuple[str, ...] = ("network",)

    def module_class(self) -> type[LightningModule]:
        """Import the class of the module."""
        name, _, kind = self.module.rpartition(".")
        found: type[LightningModule] = getattr(importlib.import_module(name), kind)
        return found


def rules_of(task: object) -> TaskRules:
    """Return the rules of a task.

    Raises:
        ConfigError: There is no such task.
    """
    rules = TASKS.get(task) if isinstance(task, str) else None
    if rules is None:
        known = ", ".join(TASKS)
        raise ConfigError(f"expected task to be one of {known}, but got task = {task}", task, known)
    return rules


def command_for(task: str, card: Mapping[str, Any] | None = None) -> str:
    """Return the command that trains such an encoder (again)."""
    return f"python train.py model={model_of({'task': task, **(card or {})})}"


def model_of(card: Mapping[str, Any]) -> str:
    """Return the model of a card, or another one of its task where it does not say."""
    model = card.get("model")
    is_name = isinstance(model, str) and model.isidentifier()
    return str(model) if is_name else rules_of(card["task"]).model


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _is_positive(value: object) -> bool:
    return is_number(value) and value > 0  # type: ignore[operator]


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _are_names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(name) is str for name in value)


def _equal(before: object, now: object) -> bool:
    return before == now


def _same_scale(before: float | None, now: float | None) -> bool:
    """Tell whether pixels have the same size; an unknown size (None) fits all."""
    return before is None or now is None or abs(before / now - 1) <= SCALE_TOLERANCE


def _is_stretch(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    rows = [value.get(name) for name in ("softening", "mean", "std", "scales")]
    are_numbers = all(isinstance(row, list) and all(map(is_number, row)) for row in rows)
    return are_numbers and all(rows[:3])


def _are_inputs(value: object) -> bool:
    if not isinstance(value, dict) or not _are_names(value.get("kind")):
        return False
    rows = [value.get(name) for name in ("scale", "mean", "std")]
    return all(isinstance(row, list) and bool(row) and all(map(is_number, row)) for row in rows)


_SPLITS = {
    "splits": "data.splits",
    "split_seed": "data.seed",
    "data_hash": "data_hash (training files in data.data_dir)",
}


def _of_stamps(module: str, model: str, *parts: str) -> TaskRules:
    """Return the rules of a task that learns from stamps."""
    return TaskRules(
        module=module,
        model=model,
        predict="galaxies",
        is_fine={
            "task": None,
            "bands": _are_names,
            "side": _is_count,
            "train_px": _is_count,
            "pixel_scale": lambda value: value is None or _is_positive(value),
            "unit": None,
            "softening": _is_positive,
            "labels": lambda value: isinstance(value, dict),
            "data_hash": None,
        },
        resume={
            "suites": "data.suites",
            "bands": "data.bands",
            "train_px": "data.train_px",
            "n_train": "data.n_train",
            "softening": "data_gen.stretch.softening",
            "data_hash": "data_hash (training stamps in data.data_dir)",
        },
        is_same={
            "bands": _equal,
            "unit": _equal,
            "side": _equal,
            "train_px": _equal,
            "pixel_scale": _same_scale,
        },
        shifts=(),
        parts=("network", "views", *parts),
    )


TASKS: Mapping[str, TaskRules] = {
    "membership": TaskRules(
        module="encoders.fields.module.MembershipModule",
        model="membership",
        predict="survey",
        is_fine={
            "task": None,
            "bands": _are_names,
            "pixel_scale": _is_positive,
            "zero_point": is_number,
            "cell_px": _is_count,
            "data_hash": None,
            "prevalence": lambda value: is_number(value) and 0 <= value <= 1,
        },
        resume={
            "bands": "data.bands",
            "cell_px": "cell_px",
            "pixel_scale": "pixel_scale",
            "zero_point": "zero_point",
            **_SPLITS,
        },
        is_same={
            "bands": _equal,
            "cell_px": _equal,
            "pixel_scale": _same_scale,
            "zero_point": check_zero_point,
        },
        shifts=("pos_weight",),
    ),
    "lenses": TaskRules(
        module="encoders.lenses.module.LensModule",
        model="e2cnn",
        predict="lenses",
        is_fine={
            "task": None,
            "classes": _are_names,
            "bands": _are_names,
            "pixel_scale": lambda value: value is None or _is_positive(value),
            "side": _is_count,
            "image_side": _is_count,
            "stretch": _is_stretch,
            "data_hash": None,
        },
        resume={
            "classes": "classes",
            "bands": "bands",
            "side": "data.side",
            "pixel_scale": "pixel_scale",
            "n_train": "data.n_train",
            **_SPLITS,
            "stretch": "data.stretch",
        },
        is_same={"classes": _equal, "bands": _equal, "side": _equal, "pixel_scale": _same_scale},
        shifts=(),
    ),
    "halos": TaskRules(
        module="encoders.halos.module.HaloModule",
        model="compact_reduced",
        predict="halos",
        is_fine={
            "task": None,
            "classes": lambda value: isinstance(value, list),
            "cross_sections": lambda value: isinstance(value, list),
            "target": lambda value: value is None or isinstance(value, dict),
            "channels": _are_names,
            "side": _is_count,
            "pixel_scale": _is_positive,
            "inputs": _are_inputs,
            "data_hash": None,
        },
        resume={
            "sets": "data.sets",
            "classes": "classes",
            "channels": "data.channels",
            "side": "side",
            "pixel_scale": "pixel_scale",
            "target": "data.zero_cross_section",
            **_SPLITS,
            "inputs": "data.transform",
        },
        is_same={
            "classes": _equal,
            "target": _equal,
            "channels": _equal,
            "side": _equal,
            "pixel_scale": _same_scale,
        },
        shifts=(),
    ),
    "galaxies": _of_stamps("encoders.galaxies.module.GalaxyModule", "simclr", "heads", "objective"),
    "galaxy_fields": _of_stamps("encoders.galaxies.probe.ProbeModule", "probe", "classes"),
}
