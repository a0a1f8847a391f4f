"""Which weights decay, and the optimiser of large batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer

from datagen.errors import ConfigError
from encoders.residual import HasPlain

Groups = list[dict[str, Any]]


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling: SGD whose step is a share of each layer's weights.

    `v <- m v + r l (g + d w)`, `w <- w - v` with `l = trust |w| / (|g| + d |w|)` (You, Gitman &
    Ginsburg 2017, arXiv:1708.03888, algorithm 1). Layers whose weights or gradients are all 0, and
    groups of weights with `is_adapted` false, have l = 1; see `decay_groups`.

    Args:
        params: What is trained, or groups of it.
        lr: r, rate of the training.
        momentum: m, share of the last step that is repeated, from 0 to below 1.
        weight_decay: d, >= 0.
        trust: Share of the size of a layer's weights that is the size of its step; .001 is usual.

    Raises:
        ConfigError: A setting is out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Groups,
        lr: float,
        momentum: float,
        weight_decay: float,
        trust: float,
    ) -> None:
        ranges = {
            "lr": (lr, lr >= 0, ">= 0"),
            "momentum": (momentum, 0 <= momentum < 1, "from 0 to below 1"),
            "weight_decay": (weight_decay, weight_decay >= 0, ">= 0"),
            "trust": (trust, trust > 0, "> 0"),
        }
        for name, (value, is_good, allowed) in ranges.items():
            if not is_good:
                raise ConfigError(
                    f"expected {name} {allowed} of the optimiser, but got {name} = {value}",
                    value,
                    allowed,
                )
        settings = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, settings | {"is_adapted": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change all weights that have a gradient; return what the closure does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._change(weight, group)
        return loss

    def _change(self, weight: Tensor, group: dict[str, Any]) -> None:
        state, decay = self.state[weight], group["weight_decay"]
        if not state:
            state["velocity"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        wanted = weight.grad.add(weight, alpha=decay)  # type: ignore[union-attr]
        if group["is_adapted"]:
            wanted *= _share(weight, decay, group["trust"])
        state["velocity"].mul_(group["momentum"]).add_(wanted, alpha=group["lr"])
        weight.sub_(state["velocity"])


def decay_groups(network: nn.Module) -> Groups:
    """Return two groups of what is trained, for an optimiser: what decays, and the rest.

    Weights of convolutions and linear layers decay. Biases, normalisations, gates and scales do
    not, nor does `LARS` adapt their steps (Grill et al. 2020, arXiv:2006.07733, section 3.3). The
    shape of a tensor does not tell: coefficients of steerable filters have one axis, as biases do.

    Args:
        network: With all its heads and objectives.
    """
    decays: dict[Tensor, None] = {}
    for module in network.modules():
        if isinstance(module, _ConvNd | nn.Linear | HasPlain):
            for name, weight in module.named_parameters(recurse=False):
                if name != "bias" and weight.requires_grad:
                    decays[weight] = None
    others = [w for w in network.parameters() if w.requires_grad and w not in decays]
    return [{"params": list(decays)}, {"params": others, "weight_decay": 0.0, "is_adapted": False}]


def _share(weight: Tensor, decay: float, trust: float) -> Tensor:
    """Return the factor of a layer's step; there is no wait for the device."""
    size, slope = weight.norm(), weight.grad.norm()  # type: ignore[union-attr]
    is_known = (size > 0) & (slope > 0)
    return torch.where(is_known, trust * size / (slope + decay * size), 1.0)
