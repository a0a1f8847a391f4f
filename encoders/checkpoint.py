"""Loads checkpoints as data: nothing in them is executed, and what does not fit is refused."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from lightning.pytorch import LightningModule

from datagen.errors import CheckpointError, ConfigError, DataNotFoundError

HPARAMS = "hyper_parameters"
CARD_KEYS = ("task", "bands", "pixel_scale", "zero_point", "cell_px", "data_hash", "prevalence")


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


def load_with_sha256(path: Path, task: str) -> tuple[LightningModule, str]:
    """Load an encoder as `load_checkpoint` does, and return the SHA-256 of the bytes it is from.

    A training may replace the file at any time: both come from one look at it.
    """
    path = Path(path)
    if not path.is_file():
        raise DataNotFoundError(
            f"checkpoint {path} does not exist; make it with: python train.py model={task}",
            str(path),
        )
    data = _bytes(path)
    content = _content(path, data)
    card = _card(path, content, task)
    try:
        module = _module_class(task)(**content[HPARAMS])
        module.load_state_dict(content["state_dict"])
    except (ConfigError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"checkpoint {path} does not fit the {task} encoder for {card['bands']}: {reason}; "
            f"train it again with: python train.py model={task}",
            str(path),
        ) from error
    return module.eval().requires_grad_(False), hashlib.sha256(data).hexdigest()


def check_resumable(path: Path) -> None:
    """Raise unless a training can go on from this checkpoint file.

    Raises:
        DataNotFoundError: The file is missing.
        CheckpointError: It is corrupt, carries more than data, or has no state of a training.
    """
    if not path.is_file():
        raise DataNotFoundError(
            f"expected ckpt_path to be a checkpoint, but {path} does not exist; leave it out to "
            "train from the start, or give <run>/checkpoints/last.ckpt",
            str(path),
        )
    if "optimizer_states" not in _content(path, _bytes(path)):
        raise CheckpointError(f"checkpoint {path} holds no state of a training", str(path))


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
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"checkpoint {path} is corrupt: {reason}", str(path)) from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise CheckpointError(
            f"checkpoint {path} holds no encoder: expected a state_dict in it", str(path)
        )
    return content


def _card(path: Path, content: Mapping[str, Any], task: str) -> dict[str, Any]:
    hparams = content.get(HPARAMS)
    card = hparams.get("card") if isinstance(hparams, dict) else None
    missing = [key for key in CARD_KEYS if not isinstance(card, dict) or key not in card]
    if not isinstance(card, dict) or missing:
        raise CheckpointError(
            f"checkpoint {path} is of another class: expected a card with {', '.join(CARD_KEYS)}, "
            f"but {', '.join(missing)} is missing",
            missing,
            CARD_KEYS,
        )
    if card["task"] != task:
        raise CheckpointError(
            f"expected a checkpoint for task = {task}, but {path} is for task = {card['task']}",
            card["task"],
            task,
        )
    return card


def _module_class(task: str) -> type[LightningModule]:
    """Return the class for a task; imported late, since each task brings its own libraries."""
    if task == "membership":
        from encoders.fields.module import MembershipModule

        return MembershipModule
    raise ConfigError(f"expected task to be membership, but got task = {task}", task, "membership")
