"""Lens networks as ordinary torch modules, for prediction and for other programs."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from encoders.residual import HasPlain


def plain(network: nn.Module) -> nn.Module:
    """Return the same function in evaluation mode, as ordinary modules, for prediction.

    Steerable filters are expanded once, batch normalisations become part of the convolutions
    before them, and the memory is laid out with channels last. The network itself is left alone,
    and the result knows nothing of what happens to it later.

    Args:
        network: Any network; a method `plain()` of its own or of a part comes first. A part that
            is no sequence names convolutions and the normalisations after them in `foldable`.

    Returns:
        Module of the same signature, without gradients.
    """
    made = _replaced(copy.deepcopy(network).eval()).eval().requires_grad_(False)
    # torch's own types lack this argument.
    made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made


def _replaced(module: nn.Module) -> nn.Module:
    """Replace in a module all that knows an ordinary form of itself."""
    if isinstance(module, HasPlain):
        return module.plain()
    for conv, norm in _pairs(module):
        # torch's own types ask for classes of convolutions.
        parts: Any = (module.get_submodule(conv), module.get_submodule(norm))
        setattr(module, conv, fuse_conv_bn_eval(*parts))
        setattr(module, norm, nn.Identity())
    for name, child in module.named_children():
        setattr(module, name, _replaced(child))
    return module


def _pairs(module: nn.Module) -> Iterable[tuple[str, str]]:
    """Return names of convolutions and of the normalisations of what they alone make."""
    if not isinstance(module, nn.Sequential):
        pairs: Iterable[tuple[str, str]] = getattr(module, "foldable", ())
        return pairs
    parts = list(module.named_children())
    return [
        (first, second)
        for (first, conv), (second, norm) in itertools.pairwise(parts)
        if isinstance(conv, nn.Conv1d | nn.Conv2d)
        and isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    ]
