"""Local weights to begin with: a state dict of the same network, read as data; no downloads.

The files that torchvision publishes for ResNet-18 and DenseNet-201 fit as they are.
"""

from __future__ import annotations

import importlib
import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from datagen.errors import CheckpointError, ConfigError, DataNotFoundError

log = logging.getLogger(__name__)

SUFFIXES = (".pt", ".pth", ".safetensors")
# Names in files that are older than module names without dots: `norm.1` is now `norm1`.
OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
# Counts of batches that older files lack; normalisation uses none.
COUNTS = "num_batches_tracked"

State = dict[str, Tensor]


class PretrainedWeights(Callback):
    """Begins a training with the weights of a file; those of a resumed training win over them.

    Args:
        path: See `load_pretrained`; None: begin with random weights.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the weights into the network of the module."""
        if self.path is None or stage != "fit":
            return
        network = pl_module.network
        assert isinstance(network, nn.Module)
        load_pretrained(network, Path(self.path))
        log.info("the network begins with the weights of %s", self.path)


def load_pretrained(network: nn.Module, path: Path) -> None:
    """Give a new network the weights of a file.

    If the file is for another number of bands, the first convolution becomes the mean over its
    bands, scaled such that an image with equal bands gives the same answer as before. If it is for
    other classes or with another head, the head keeps its new weights. Both need the network to
    name them: `stem_name` and `head_name`.

    Args:
        network: Changed in place, only if everything fits.
        path: State dict, `.pt`, `.pth` or `.safetensors`.

    Raises:
        ConfigError: The file is of another kind, or safetensors is not installed.
        DataNotFoundError: The file is missing.
        CheckpointError: It is damaged, holds more than tensors, is of another network (the message
            gives the first name that differs), or has values that are not finite.
    """
    path = Path(path)
    state = read_state(path)
    own = network.state_dict()
    _fit_stem(state, own, getattr(network, "stem_name", None))
    _keep_own_head(state, own, getattr(network, "head_name", None))
    state |= {k: v for k, v in own.items() if k.endswith(COUNTS) and k not in state}
    _check_same(path, state, own)
    before = {name: value.clone() for name, value in own.items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # a part of the network refuses what has the right shape
        network.load_state_dict(before)
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(
            f"pretrained weights {path} are of another network: {reason}", str(path)
        ) from error


def read_state(path: Path) -> State:
    """Return the tensors of a file by today's names; errors as in `load_pretrained`."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"expected pretrained to be a file {', '.join(SUFFIXES)}, but got {path}",
            str(path),
            SUFFIXES,
        )
    if not path.is_file():
        raise DataNotFoundError(
            f"pretrained weights {path} do not exist; give a local file, or null to start without",
            str(path),
        )
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not _is_state(content):
        raise CheckpointError(
            f"pretrained weights {path} are no state dict: expected tensors by name, as "
            "torch.save(network.state_dict(), path) writes",
            str(path),
        )
    return {OLD_NAME.sub(r"\1\2", name): value for name, value in content.items()}


def _is_state(content: object) -> TypeGuard[Mapping[str, Tensor]]:
    if not isinstance(content, Mapping) or not content:
        return False
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())


def _read_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"pretrained weights {path} are refused: the file holds objects other than tensors, "
            "which could run code, or is damaged",
            str(path),
        ) from error
    except Exception as error:  # damaged bytes make the reader fail in any of its operations
        raise _damaged(path, error) from error


def _read_safetensors(path: Path) -> object:
    try:
        library = importlib.import_module("safetensors.torch")
    except ImportError as error:
        raise ConfigError(
            f"pretrained = {path} needs safetensors: pip install safetensors, or give a .pt file",
            str(path),
        ) from error
    try:
        return library.load_file(str(path))
    except Exception as error:  # the library has its own errors for damaged bytes
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"pretrained weights {path} cannot be read: {error}", str(path))


def _fit_stem(state: State, own: State, stem_name: str | None) -> None:
    """Bring the first convolution to the bands of the network."""
    name = f"{stem_name}.weight"
    if name not in state or name not in own or state[name].ndim != own[name].ndim:
        return
    before, now = state[name].shape[1], own[name].shape[1]
    if before != now:
        mean = state[name].mean(dim=1, keepdim=True) * (before / now)
        state[name] = mean.repeat_interleave(now, dim=1)


def _keep_own_head(state: State, own: State, head_name: str | None) -> None:
    """Put the network's own head in place of one with other names or shapes."""

    def shapes(of: State) -> dict[str, torch.Size]:
        return {k: v.shape for k, v in of.items() if k.startswith(f"{head_name}.")}

    if head_name is None or shapes(state) == shapes(own):
        return
    for name in shapes(state):
        del state[name]
    state |= {name: own[name] for name in shapes(own)}


def _check_same(path: Path, state: State, own: State) -> None:
    """Raise unless a file has the names and shapes of a network, and finite values."""
    for name in [*own, *state]:
        given, expected = (tuple(of[name].shape) if name in of else None for of in (state, own))
        if given != expected:
            raise CheckpointError(
                f"pretrained weights {path} are of another network: expected {name} to be "
                f"{_words(expected)}, but it is {_words(given)} in the file",
                given,
                expected,
            )
        if not torch.isfinite(state[name]).all():
            raise CheckpointError(f"pretrained weights {path} are not finite: {name}", name)


def _words(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(shape)
