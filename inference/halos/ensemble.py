"""Encoders that answer together, with what is known of how far they can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from numpy.typing import NDArray
from torch import Tensor, nn

from datagen.errors import CheckpointError
from encoders.halos.judge import NEVER
from encoders.halos.likelihood import Likelihood, interval
from encoders.halos.module import HaloModule
from encoders.halos.reference import VIEWS
from encoders.halos.sets import HELD_OUT, N_DIGITS
from encoders.halos.targets import LogScale
from inference.part_data import Batch

Numbers = NDArray[np.float64]
Strings = NDArray[np.str_]
# Entries of the card in which all members agree.
SHARED = ("classes", "cross_sections", "target", "channels", "units", "side", "pixel_scale")


class Ensemble(LightningModule):
    """What Lightning predicts with: one encoder, or repeats of its training.

    Probabilities, scores and their thresholds are means over the members, as is the logarithm of
    the likelihood of a cross-section: members share nearly all that they know, so that a sum would
    count it several times. Latents are those of the first member; axes of others differ.

    Args:
        members: The encoders.
        names: Of their checkpoints, for messages.

    Raises:
        CheckpointError: They do not answer the same question, or one has not been validated.
    """

    def __init__(self, members: Sequence[HaloModule], names: Sequence[str]) -> None:
        super().__init__()
        self.members = list(members)
        self._on_device = nn.ModuleList(members)
        self.judges = [member.judge() for member in members]
        first = members[0]
        for member, name in zip(members, names, strict=True):
            _check_like(first, member, name)
        self.card: Mapping[str, Any] = first.card
        # Some networks tell no classes apart, whatever their data know of them.
        empty = torch.zeros(1, len(first.card["channels"]), *(2 * [int(first.card["side"])]))
        has_classes = _look(first, empty)[1].shape[1] > 0
        self.classes = tuple(first.card["classes"]) if has_classes else ()
        self.reference = first.reference
        self.scale: LogScale | None = first.scale if first.has_axis else None
        self.n_latent = int(first.reference.widths[0])
        self.threshold = float(np.mean([judge.threshold for judge in self.judges]))
        self.can_flag = all(judge.threshold < NEVER for judge in self.judges)
        self._shift = float(np.mean([judge.shift for judge in self.judges]))

    def split_of(self) -> dict[str, str]:
        """Return the split of each halo of the trainings; what trained any member, trained."""
        found: dict[str, str] = {}
        for split in ("test", "val", "train"):
            for member in self.members:
                ids = member.card.get("ids") or {}
                found |= dict.fromkeys(ids.get(split, ()), split)
        return found

    def trained_sets(self, folders: Strings, cross_section: Numbers) -> Strings:
        """Return the set of the training that each map is of, empty where it is of none (n,).

        The card knows sets by their folder and by the cross-sections that were taken of it.

        Args:
            folders: Names of the folders of the maps (n,).
            cross_section: True ones [cm^2/g], NaN where unknown (n,).
        """
        sets: Mapping[str, Mapping[str, Any]] = self.card.get("sets") or {}
        found = np.full(len(folders), "", dtype=f"U{max(map(len, sets), default=1)}")
        for name, one in sets.items():
            if one.get("labels") == HELD_OUT:
                continue
            is_in, taken = folders == (one.get("folder") or name), one.get("cross_sections")
            if taken is not None:
                is_in &= np.isin(cross_section, np.round(np.asarray(taken, np.float64), N_DIGITS))
            found[is_in] = name
        return found

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Tensor:
        """Return latents, first latents of further members, probabilities and score (B, D)."""
        maps: Tensor = batch["pixels"]
        n_columns = self.n_latent + len(self.members) - 1 + len(self.classes) + 1
        if len(maps) == 0:
            # A part that is no use has a batch without maps.
            return torch.zeros(0, n_columns, dtype=torch.float64)
        latents, probabilities, scores = [], [], []
        for member, judge in zip(self.members, self.judges, strict=True):
            z, p, views = _look(member, maps)
            latents.append(z)
            probabilities.append(p)
            scores.append(judge.score(views))
        others = [z[:, :1] for z in latents[1:]]
        p, score = torch.stack(probabilities).mean(dim=0), torch.stack(scores).mean(dim=0)
        return torch.cat((latents[0], *others, p, score[:, None]), dim=1)

    def log_likelihood(self, first: Numbers) -> Numbers:
        """Return the logarithm of the likelihood of t on the grid (n, G).

        Args:
            first: First latents of the members (n, M).
        """
        return _mean_log([judge.likelihood for judge in self.judges], first)

    def refitted(self, first: Numbers) -> Iterator[Numbers]:
        """Yield the same as other validation halos could have given it, each (n, G).

        Args:
            first: First latents of the members (n, M).
        """
        for likelihoods in zip(*(judge.refits for judge in self.judges), strict=True):
            yield _mean_log(likelihoods, first)

    def cross_sections(self, first: Numbers) -> Numbers:
        """Return lower end, median and upper end [cm^2/g] (n, 3); NaN without an axis of them.

        Args:
            first: First latents of the members (n, M).
        """
        if self.scale is None or not len(first):
            return np.full((len(first), 3), np.nan)
        # Members know the same cross-sections, so that one prior is that of all.
        prior = _known(self.judges[0].likelihood).log_prior()
        return self.scale.inverse(interval(self.log_likelihood(first) + prior, self._shift))


def _known(likelihood: Likelihood | None) -> Likelihood:
    assert likelihood is not None
    return likelihood


def _mean_log(likelihoods: Sequence[Likelihood | None], first: Numbers) -> Numbers:
    """Return the mean logarithm over members (n, G), from their first latents (n, M)."""
    columns = zip(likelihoods, first.T, strict=True)
    parts = [_known(likelihood).log(column) for likelihood, column in columns]
    return np.asarray(np.mean(parts, axis=0))


def _look(member: HaloModule, maps: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return latents (B, L), probabilities (B, K) and views, float64, on the CPU."""
    seen = member.inputs(maps)
    outputs = member.network(seen)
    z = outputs.z.cpu().double()
    p = z[:, :0] if outputs.logits is None else member.probabilities(outputs).cpu().double()
    others = [view.cpu().double() for view in member.views(outputs, seen)]
    views = dict(zip(VIEWS, (z, *others), strict=True))
    return z, p, {name: view for name, view in views.items() if view.shape[1]}


def _check_like(first: HaloModule, member: HaloModule, name: str) -> None:
    """Raise `CheckpointError` unless a member answers the same question as the first one."""
    pairs = [(key, first.card.get(key), member.card.get(key)) for key in SHARED]
    pairs.append(("data.transform", first.card["inputs"]["kind"], member.card["inputs"]["kind"]))
    pairs.append(("whether z_0 is the cross-section", first.has_axis, member.has_axis))
    for key, expected, got in pairs:
        if expected != got:
            raise CheckpointError(
                f"expected {key} = {expected} in all checkpoints of predict.ensemble, as in "
                f"predict.weight_save_path, but {name} has {key} = {got}",
                got,
                expected,
            )
