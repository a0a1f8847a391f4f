"""Figures of an encoder from its answers: exact, and the same for any number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from encoders.halos.network import Outputs

N_NUMBERS = 4


@dataclass(frozen=True)
class Answers:
    """What an encoder answered, by rising set and index; each map once.

    Args:
        z: Latents (n, L), float64.
        logits: Not calibrated (n, K), float64; K = 0 without a head.
        classes: -1 for maps without a label (n,), int64.
        targets: NaN where unknown (n,), float64.
        sets: Numbers of the sets (n,), int64.
        index: Numbers of the maps in their suites (n,), int64.
        clusters: Numbers of the halos, the same for a halo in all sets of a run (n,), int64.
        views: Beside each other what else there is of each map (n, V), float64; None if nothing.
        widths: Axes of each view.
    """

    z: Tensor
    logits: Tensor
    classes: Tensor
    targets: Tensor
    sets: Tensor
    index: Tensor
    clusters: Tensor
    views: Tensor | None = None
    widths: tuple[int, ...] = ()

    @classmethod
    def from_rows(cls, rows: Tensor, n_logits: int, widths: tuple[int, ...] = ()) -> Answers:
        """Split the rows that `Collected` returns, which end with views of some widths."""
        names = rows[:, :2].numpy()
        rows = rows[torch.from_numpy(np.unique(names, axis=0, return_index=True)[1])]
        sets, index, classes, clusters = rows[:, :N_NUMBERS].long().unbind(dim=1)
        targets, logits = rows[:, N_NUMBERS], rows[:, N_NUMBERS + 1 : N_NUMBERS + 1 + n_logits]
        first = N_NUMBERS + 1 + n_logits
        last = rows.shape[1] - sum(widths)
        z, views = rows[:, first:last], rows[:, last:] if widths else None
        return cls(z, logits, classes, targets, sets, index, clusters, views, widths)

    @property
    def is_labelled(self) -> Tensor:
        """Return which maps have a label (n,)."""
        return self.classes >= 0


class Collected(Metric):
    """Collects answers of all processes; maps with weight 0 do not count.

    Double precision begins on the CPU: not all devices have it.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    higher_is_better = None
    is_differentiable = False
    full_state_update = False
    numbers: list[Tensor]
    values: list[Tensor]
    n_logits = 0
    widths: tuple[int, ...] = ()

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - torchmetrics
        super().__init__(**kwargs)
        self.add_state("numbers", default=[], dist_reduce_fx="cat")
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def update(
        self, outputs: Outputs, batch: dict[str, Tensor], views: Sequence[Tensor] = ()
    ) -> None:
        """Collect a batch.

        Args:
            outputs: Of the network.
            batch: `set`, `index`, `class`, `cluster`, `target` and `weight` (B,).
            views: What else to collect of each map, each (B, V).
        """
        counts = batch["weight"] > 0
        columns = [batch[name] for name in ("set", "index", "class", "cluster")]
        logits = outputs.z[:, :0] if outputs.logits is None else outputs.logits
        self.n_logits = logits.shape[1]
        self.widths = tuple(view.shape[1] for view in views)
        parts = (batch["target"][:, None], logits, outputs.z, *views)
        values = torch.cat([part.float() for part in parts], dim=1)
        self.numbers.append(torch.stack(columns, dim=1)[counts])
        self.values.append(values.detach()[counts])

    def compute(self) -> Tensor:
        """Return rows of the columns, target, logits and latents, float64, on the CPU."""
        if not len(self.numbers):
            return torch.zeros(0, N_NUMBERS + 1).double()
        parts = (dim_zero_cat(self.numbers), dim_zero_cat(self.values))
        return torch.cat([part.cpu().double() for part in parts], dim=1)

    def answers(self) -> Answers:
        """Return the answers of all processes."""
        return Answers.from_rows(self.compute(), self.n_logits, self.widths)


class Means(Metric):
    """Means of several figures over the maps since it was reset, in all processes.

    Args:
        names: Of the figures.
        **kwargs: Options of `torchmetrics.Metric`.
    """

    higher_is_better = None
    is_differentiable = False
    full_state_update = False
    totals: Tensor
    count: Tensor

    def __init__(self, names: Sequence[str], **kwargs: Any) -> None:  # noqa: ANN401 - torchmetrics
        super().__init__(**kwargs)
        self.names = list(names)
        self.add_state("totals", default=torch.zeros(len(names)), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros(()), dist_reduce_fx="sum")

    def update(self, figures: dict[str, Tensor], n_maps: Tensor | float) -> None:
        """Count a batch.

        Args:
            figures: Means over the batch, scalars.
            n_maps: Maps in the batch.
        """
        row = torch.stack([figures[name].detach().float() for name in self.names])
        self.totals += row * n_maps
        self.count += n_maps

    def compute(self) -> dict[str, Tensor]:
        """Return the mean of each figure, float32; 0 where nothing was counted."""
        means = self.totals / self.count.clamp_min(1.0)
        return dict(zip(self.names, means.unbind(), strict=True))


def rmse(found: Tensor, targets: Tensor) -> float:
    """Return the root of the mean squared error where the target is known; NaN without any."""
    is_known = targets.isfinite()
    return float((found - targets)[is_known].square().mean().sqrt())
