"""Says how far an encoder of halos can be trusted, map by map, from its validation maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datagen.errors import ConfigError
from encoders.halos.conformal import quantile_shift
from encoders.halos.likelihood import Likelihood, quantiles, refits
from encoders.halos.novelty import Novelty, novelty_threshold
from encoders.halos.reference import CLASSES, CLUSTERS, Reference

# Above any score, and a number that FITS can hold.
NEVER = 1e30
N_FOLDS = 2


@dataclass(frozen=True)
class JudgeSettings:
    """How an encoder is judged.

    Args:
        n_reference: Validation maps that travel with the weights.
        n_neighbours: Which neighbour's distance tells novelty.
        false_alarms: Share of maps like those of the training that are flagged at most.
        level: Share of maps whose interval shall hold the cross-section.

    Raises:
        ConfigError: A number is out of range.
    """

    n_reference: int
    n_neighbours: int
    false_alarms: float
    level: float

    def __post_init__(self) -> None:
        for name in ("n_reference", "n_neighbours"):
            if getattr(self, name) < 1:
                raise _out_of_range(name, getattr(self, name), ">= 1")
        for name in ("false_alarms", "level"):
            if not 0 < getattr(self, name) < 1:
                raise _out_of_range(name, getattr(self, name), "between 0 and 1")


@dataclass(frozen=True)
class Judge:
    """What follows from the validation maps of an encoder.

    Args:
        likelihood: Of the cross-section; None where the first latent is not its axis.
        refits: The likelihood as other validation halos could have given it.
        shift: By how much quantiles of t are widened, see `conformal.quantile_shift`.
        novelties: Each learned from one half of the halos.
        threshold: Score above which a map is unlike those of the training.
    """

    likelihood: Likelihood | None
    refits: tuple[Likelihood, ...]
    shift: float
    novelties: tuple[Novelty, ...]
    threshold: float

    @classmethod
    def fit(
        cls, reference: Reference, class_targets: NDArray[np.float64] | None, how: JudgeSettings
    ) -> Judge:
        """Judge an encoder.

        Args:
            reference: Its validation maps.
            class_targets: t of each class, NaN where unknown (K,); None without an axis of t.
            how: The settings.

        Raises:
            ConfigError: There are maps of fewer than two known t.
        """
        clusters = reference.column(CLUSTERS)
        likelihood, shift = None, np.inf
        others: tuple[Likelihood, ...] = ()
        if class_targets is not None:
            targets = np.append(class_targets, np.nan)[reference.column(CLASSES).numpy()]
            first = reference.views["latent"][:, 0].numpy()
            likelihood = Likelihood.fit(first, targets)
            others = refits(first, targets, clusters.numpy())
            shift = _shift(likelihood, first, targets, clusters.numpy(), how.level)
        novelties, threshold = _novelties(reference, clusters, how)
        return cls(likelihood, others, shift, novelties, threshold)

    def score(self, views: Mapping[str, Tensor]) -> Tensor:
        """Return how striking maps are: the mean over the novelties (n,).

        Args:
            views: By name, each (n, D), float64; those that the encoder was judged by.
        """
        if not self.novelties:
            return torch.zeros(len(next(iter(views.values()))), dtype=torch.float64)
        return torch.stack([novelty.score(views) for novelty in self.novelties]).mean(dim=0)


def _shift(
    likelihood: Likelihood,
    first: NDArray[np.float64],
    targets: NDArray[np.float64],
    clusters: NDArray[np.int64],
    level: float,
) -> float:
    """Return how much wider intervals must be; the few numbers of a likelihood cost little."""
    known = np.isfinite(targets)
    low, _, high = quantiles(likelihood.log_posterior(first[known])).T
    return quantile_shift(targets[known], low, high, clusters[known], level)


def _novelties(
    reference: Reference, clusters: Tensor, how: JudgeSettings
) -> tuple[tuple[Novelty, ...], float]:
    """Learn novelty from each half of the halos; the other half sets the threshold.

    New maps get the mean of the scores of both halves. It scatters less than a score of one half,
    from which the threshold comes, so that fewer maps are flagged than asked for.
    """
    views, classes = reference.views, reference.column(CLASSES)
    fold = torch.unique(clusters, return_inverse=True)[1] % N_FOLDS
    if min(int((fold == k).sum()) for k in range(N_FOLDS)) < 2:
        return (), NEVER
    novelties, scores = [], torch.zeros(len(fold), dtype=torch.float64)
    for k in range(N_FOLDS):
        mine, others = fold == k, fold != k
        kept = {name: view[mine] for name, view in views.items()}
        novelties.append(Novelty.fit(kept, classes[mine], clusters[mine], how.n_neighbours))
        scores[others] = novelties[k].score({name: view[others] for name, view in views.items()})
    threshold = novelty_threshold(scores, clusters, how.false_alarms)
    return tuple(novelties), min(threshold, NEVER)


def _out_of_range(name: str, value: float, allowed: str) -> ConfigError:
    return ConfigError(
        f"expected model.judge.{name} to be {allowed}, but got {name} = {value}", value, allowed
    )
