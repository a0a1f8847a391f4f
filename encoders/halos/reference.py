"""Validation maps as an encoder sees them, which travel with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders.halos.metrics import Answers

# What a map can be judged by, in this order.
VIEWS = ("latent", "features", "rings")
SETS, INDEX, CLASSES, CLUSTERS = range(4)


class Reference(nn.Module):
    """Latents and other views of some validation maps, with what is known of these maps.

    Whatever is calibrated follows from them alone, when an encoder is loaded. Buffers take the
    shapes of what is kept or loaded.

    Args:
        n_maps: Maps to keep at most, whole halos.
    """

    numbers: Tensor
    values: Tensor
    widths: Tensor

    def __init__(self, n_maps: int) -> None:
        super().__init__()
        self.n_maps = n_maps
        # Set, index, class and cluster of each map; views beside each other; axes of each view.
        self.register_buffer("numbers", torch.zeros(0, 4, dtype=torch.long))
        self.register_buffer("values", torch.zeros(0, 1))
        self.register_buffer("widths", torch.zeros(len(VIEWS), dtype=torch.long))

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def views(self) -> dict[str, Tensor]:
        """Return the views that there are by name, each (n, D), float64, on the CPU."""
        return split_views(self.values.cpu().double(), self.widths.tolist())

    def column(self, which: int) -> Tensor:
        """Return SETS, INDEX, CLASSES or CLUSTERS (n,), int64, on the CPU."""
        return self.numbers[:, which].cpu()

    def keep(self, answers: Answers) -> None:
        """Keep the maps of as many halos as there is room for.

        Args:
            answers: To the validation maps, with views.
        """
        assert answers.views is not None
        chosen = first_clusters(answers.clusters, self.n_maps)
        numbers = (answers.sets, answers.index, answers.classes, answers.clusters)
        kept = {
            "numbers": torch.stack(numbers, dim=1)[chosen],
            "values": torch.cat((answers.z, answers.views), dim=1)[chosen].float(),
            "widths": torch.tensor([answers.z.shape[1], *answers.widths]),
        }
        # A tensor that inference mode made could not be changed outside of it.
        with torch.inference_mode(False):
            for name, value in kept.items():
                setattr(self, name, value.to(self.numbers.device, copy=True))

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        *args: Any,  # noqa: ANN401 - torch's own
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Make room for what is loaded."""
        for name, buffer in list(self.named_buffers(recurse=False)):
            stored = state_dict.get(prefix + name)
            if isinstance(stored, Tensor):
                setattr(self, name, buffer.new_zeros(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def split_views(values: Tensor, widths: list[int]) -> dict[str, Tensor]:
    """Return views by name from values (n, sum of widths) beside each other; empty ones are out."""
    parts = torch.split(values, widths, dim=1)
    return {name: part for name, part in zip(VIEWS, parts, strict=True) if part.shape[1]}


def first_clusters(clusters: Tensor, n_maps: int) -> Tensor:
    """Return the numbers of the maps of some clusters, n_maps at most but one cluster at least."""
    names, inverse = torch.unique(clusters, return_inverse=True)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(names)))
    total = torch.bincount(inverse, minlength=len(names))[order].cumsum(dim=0)
    n_kept = max(int((total <= n_maps).sum()), 1)
    return torch.isin(inverse, order[:n_kept]).nonzero()[:, 0]
