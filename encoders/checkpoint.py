"""Loads checkpoints as data: nothing in them is executed, and what does not fit is refused."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from lightning.pytorch import LightningModule

from datagen.errors import CheckpointError, ConfigError, DataNotFoundError
from encoders.cards import TASKS, command_for, model_of, rules_of

log = logging.getLogger(__name__)

HPARAMS = "hyper_parameters"


def load_checkpoint(path: Path, task: str) -> LightningModule:
    """Load an encoder for evaluation, on the CPU.

    Args:
        path: A checkpoint that training wrote.
        task: What it must have been trained for, for example `membership`.

    Returns:
        The module in evaluation mode, without gradients.

    Raises:
        DataNotFoundError: The file is missing; the message gives the command that makes it.
        CheckpointError: It is corrupt, carries more than data, or is of another task or class.
    """
    return load_with_sha256(path, task)[0]


def load_with_sha256(path: Path, task: str, *others: str) -> tuple[LightningModule, str]:
    """Load an encoder as `load_checkpoint` does, and return the SHA-256 of the bytes it is from.

    A training may replace the file at any time: both come from one look at it. An encoder of one of
    the `others` will do as well.
    """
    path = Path(path)
    if not path.is_file():
        raise DataNotFoundError(
            f"checkpoint {path} does not exist; make it with: {command_for(task)}",
            str(path),
        )
    data = _bytes(path)
    content = _content(path, data)
    named = _mapping(_mapping(content.get(HPARAMS)).get("card")).get("task")
    task = named if named in others else task
    card = _card(path, content, task)
    try:
        module = rules_of(task).module_class()(**content[HPARAMS])
        _check_complete(path, module, content["state_dict"], card)
        module.load_state_dict(content["state_dict"])
    except CheckpointError:
        raise
    except Exception as error:  # whatever a value that someone else wrote provokes in a constructor
        planes = card.get("bands", card.get("channels"))
        raise CheckpointError(
            f"checkpoint {path} does not fit the {task} encoder for {planes}: "
            f"{_reason(error)}; train it again with: {command_for(task, card)}",
            str(path),
        ) from error
    _check_finite(path, module, card)
    return module.eval().requires_grad_(False), hashlib.sha256(data).hexdigest()


def load_initial_weights(
    path: Path, model: LightningModule, hash_of: Callable[[int, Mapping[str, float]], str]
) -> None:
    """Give a new encoder the weights of a checkpoint, to go on with other data of the same kind.

    Args:
        path: A checkpoint that training wrote.
        model: The encoder, with `card`; changed in place.
        hash_of: Gives the `data_hash` of the new data for a seed and fractions of splits.

    Raises:
        DataNotFoundError: The file is missing.
        CheckpointError: It is corrupt, carries more than data, is of another network, was trained
            on other bands, pixels, counts or cells, with another weight of positives, or on other
            splits of the same files.
    """
    if not path.is_file():
        raise DataNotFoundError(
            f"expected init_from to be a checkpoint, but {path} does not exist", str(path)
        )
    now: Any = model.card
    content = _content(path, _bytes(path))
    before = _card(path, content, now["task"])
    _check_same_kind(path, before, now)
    _check_shifts(path, content[HPARAMS], model)
    _check_same_splits(path, before, now, hash_of)
    if _is_other_network(content[HPARAMS], model.hparams):
        name = model_of(before)
        raise CheckpointError(
            f"init_from = {path} is of another network (model={name}); add model={name}, or begin "
            "with a checkpoint of this one",
            name,
        )
    _check_complete(path, model, content["state_dict"], now)
    try:
        model.load_state_dict(content["state_dict"])
    except Exception as error:  # whatever values that someone else wrote provoke
        raise CheckpointError(
            f"init_from = {path} does not fit the network of this training: {_reason(error)}; "
            "choose the model and its widths as they were",
            str(path),
        ) from error
    _check_finite(path, model, now)


def _check_same_kind(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise unless new data look like those of a card."""
    for key, is_same in rules_of(now["task"]).is_same.items():
        if not is_same(before[key], now[key]):
            raise CheckpointError(
                f"expected data with {key} = {before[key]}, with which init_from = {path} was "
                f"trained, but got {key} = {now[key]}; make other data, or leave init_from out",
                now[key],
                before[key],
            )


def _check_shifts(path: Path, hparams: Mapping[str, Any], model: LightningModule) -> None:
    """Raise if an option of the loss differs by which all logits are shifted."""
    card: Any = model.card
    for name in rules_of(card["task"]).shifts:
        before = _mapping(hparams.get("loss")).get(name)
        now: Any = model.hparams["loss"][name]
        if before != now:
            raise CheckpointError(
                f"expected model.loss.{name} = {before}, with which init_from = {path} was "
                f"trained, but got {name} = {now}; set it back, or leave init_from out",
                now,
                before,
            )


def _check_same_splits(
    path: Path,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    hash_of: Callable[[int, Mapping[str, float]], str],
) -> None:
    """Raise if the data are those of a card, but in other splits; warn if they may be.

    Training files of one training would test the other.
    """
    keys = ("split_seed", "splits")
    if any(key not in before for key in keys) or all(before[key] == now[key] for key in keys):
        return
    old, new = (f"data.seed = {card['split_seed']}, data.splits = {card['splits']}"
                for card in (before, now))  # fmt: skip
    try:
        is_same = hash_of(before["split_seed"], before["splits"]) == before["data_hash"]
    except Exception as error:  # whatever values that someone else wrote provoke
        raise CheckpointError(
            f"checkpoint {path} is corrupt: its card has {old}; copy or train it again", str(path)
        ) from error
    if is_same:
        raise CheckpointError(
            f"expected {old}, with which init_from = {path} was trained on the same files, but got "
            f"{new}: files that trained it would test this training; set it back",
            new,
            old,
        )
    log.warning(
        "init_from = %s was trained with %s, now %s: files that are in both data would be in other "
        "splits",
        path,
        old,
        new,
    )


def check_resumable(
    path: Path,
    limits: Mapping[str, int | None] | None = None,
    model: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the hyper-parameters of a checkpoint file that a training can go on from.

    Args:
        path: The checkpoint.
        limits: Where the training shall end: `max_steps` and `max_epochs`, -1 or None for no limit.
        model: The group `model` of the training; None: that is not compared.

    Raises:
        DataNotFoundError: The file is missing.
        CheckpointError: It is corrupt, carries more than data, has no state of a training, or is of
            another model.
        ConfigError: It has reached one of the limits.
    """
    if not path.is_file():
        raise DataNotFoundError(
            f"expected ckpt_path to be a checkpoint, but {path} does not exist; leave it out to "
            "train from the start, or give <run>/checkpoints/last.ckpt",
            str(path),
        )
    content = _content(path, _bytes(path))
    if "optimizer_states" not in content:
        raise CheckpointError(f"checkpoint {path} holds no state of a training", str(path))
    found = content.get(HPARAMS)
    hparams = dict(found) if isinstance(found, dict) else {}
    # Before the limits, which are those of another model, and before data are looked for.
    if model is not None:
        _check_same_model(path, hparams, model)
    done = {"max_steps": content.get("global_step", 0), "max_epochs": content.get("epoch", -1) + 1}
    for name, limit in (limits or {}).items():
        if limit is not None and 0 <= limit <= done[name]:
            raise ConfigError(
                f"expected trainer.{name} > {done[name]} (or -1 for no limit), because {path} has "
                f"come so far, but got {name} = {limit}",
                limit,
                f"> {done[name]}",
            )
    return hparams


def _check_same_model(path: Path, before: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Raise unless hyper-parameters name the module and the kind of network that are trained."""
    card = _mapping(before.get("card"))
    rules = TASKS.get(str(card.get("task")))
    if rules is None:
        return
    if rules.module != model["_target_"] or _is_other_network(before, model):
        name = model_of(card)
        raise CheckpointError(
            f"expected ckpt_path to be of the model that is trained, but {path} is of task = "
            f"{card['task']}, model = {name}; add model={name} to go on with it, or leave "
            "ckpt_path out to train from the start",
            name,
        )


def check_same_training(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise unless a checkpoint is from the data and the network that a training is set up with.

    Other splits would train on files that test the encoder.

    Args:
        path: The checkpoint, for messages.
        before: Its hyper-parameters, see `check_resumable`.
        now: The hyper-parameters of the new training.

    Raises:
        CheckpointError: They differ; the message names the first key that does, and both values.
    """
    card, rules = _mapping(before.get("card")), rules_of(now["card"]["task"])
    for key, name in rules.resume.items():
        _check_equal(path, name, card.get(key), now["card"].get(key))
    for part in rules.parts:
        old, new = _mapping(before.get(part)), _mapping(now.get(part))
        for key in sorted({*old, *new}, key=str):
            _check_equal(path, f"model.{part}.{key}", old.get(key), new.get(key))


def _is_other_network(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Tell whether two models name networks of different classes."""
    kinds = [_mapping(of.get("network")).get("_target_") for of in (before, now)]
    return None not in kinds and kinds[0] != kinds[1]


def _check_equal(path: Path, name: str, before: object, now: object) -> None:
    if before != now:
        raise CheckpointError(
            f"expected {name} = {before}, with which {path} was trained, but got {name} = {now}; "
            "set it back, or leave ckpt_path out to train from the start",
            now,
            before,
        )


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be read: {error.strerror}", str(path)
        ) from error


def _content(path: Path, data: bytes) -> dict[str, Any]:
    """Read tensors and plain values only; anything else in the file is refused unread."""
    if not is_zipfile(io.BytesIO(data)):
        raise CheckpointError(
            f"checkpoint {path} is corrupt or no checkpoint: it is not a torch archive; "
            "copy or train it again",
            str(path),
        )
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {path} is refused: it holds objects other than tensors and plain values, "
            "which could run code; use a checkpoint that train.py wrote",
            str(path),
        ) from error
    except Exception as error:  # damaged bytes make the unpickler fail in any of its operations
        raise CheckpointError(
            f"checkpoint {path} is corrupt: {_reason(error)}; copy or train it again", str(path)
        ) from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise CheckpointError(
            f"checkpoint {path} holds no encoder: expected a state_dict in it", str(path)
        )
    return content


def _reason(error: Exception) -> str:
    """Return the first line of an error, or the next where it only announces; else its class."""
    lines = str(error).splitlines() or [type(error).__name__]
    # `load_state_dict` lists what does not fit below its first line.
    return lines[1].strip() if lines[0].endswith(":") and len(lines) > 1 else lines[0]


def _card(path: Path, content: Mapping[str, Any], task: str) -> dict[str, Any]:
    hparams = content.get(HPARAMS)
    card = hparams.get("card") if isinstance(hparams, dict) else None
    keys = rules_of(task).is_fine
    missing = [key for key in keys if not isinstance(card, dict) or key not in card]
    if isinstance(card, dict) and "task" in card and card["task"] != task:
        raise CheckpointError(
            f"expected a checkpoint for task = {task}, but {path} is for task = {card['task']}"
            f"{_uses(card)}",
            card["task"],
            task,
        )
    if not isinstance(card, dict) or missing:
        raise CheckpointError(
            f"checkpoint {path} is of another class: expected a card with {', '.join(keys)}, "
            f"but {', '.join(missing)} is missing",
            missing,
            list(keys),
        )
    _check_card_values(path, card)
    return card


def _uses(card: Mapping[str, Any]) -> str:
    """Say with which choices a checkpoint of another task goes, if the task is known."""
    rules = TASKS.get(str(card["task"]))
    if rules is None:
        return ""
    prediction = f" and predict={rules.predict}" if rules.predict else ""
    return f", which goes with model={model_of(card)}{prediction}"


def _check_card_values(path: Path, card: Mapping[str, Any]) -> None:
    """Raise unless the values of a card can be compared with those of other data."""
    for key, is_fine in rules_of(card["task"]).is_fine.items():
        if is_fine is not None and not is_fine(card[key]):
            raise CheckpointError(
                f"checkpoint {path} is corrupt: its card has {key} = {card[key]!r}; copy or train "
                "it again",
                card[key],
            )


def _check_complete(
    path: Path, module: LightningModule, state: Mapping[str, Any], card: Mapping[str, Any]
) -> None:
    """Raise if there are no weights for a part of the module: an older version had no such part."""
    missing = sorted(module.state_dict().keys() - state.keys())
    if missing:
        raise CheckpointError(
            f"checkpoint {path} is of another version of the {card['task']} encoder: it lacks "
            f"{', '.join(missing[:3])}; train it again with: {command_for(card['task'], card)}",
            missing,
        )


def _check_finite(path: Path, module: LightningModule, card: Mapping[str, Any]) -> None:
    """Raise if a weight is NaN or infinite: every score would be."""
    for name, value in module.state_dict().items():
        if not torch.isfinite(value).all():
            raise CheckpointError(
                f"checkpoint {path} is of a training that diverged: {name} is not finite; train it "
                f"again with a lower model.optimizer.lr: {command_for(card['task'], card)}",
                name,
                "finite weights",
            )
