"""Tells maps that are unlike all training maps, with a known rate of false alarms.

Two distances, each on several views of a map (features before the latent space, the latent itself):
that to the nearest class in units of its scatter, which sees shifts along any axis, and that to the
k-th nearest training map, which sees gaps between them. Each is compared with the distances that
maps of other clusters have; the most striking one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.halos.conformal import pooled_quantile
from encoders.statistics import MAD_TO_SIGMA

# Maps whose distances are computed at once.
BLOCK = 1024
TINY = 1e-12
# Parts of the training maps whose usual distances the other parts tell.
N_FOLDS = 5


@dataclass(frozen=True)
class ClassDistance:
    """Mahalanobis distance to the nearest class, with the covariance that all classes share.

    Lee et al. (2018, arXiv:1807.03888, eq. 2).

    Args:
        means: Of the classes (K, D).
        whitening: W with W W^T the inverse covariance (D, D).
    """

    means: Tensor
    whitening: Tensor

    @classmethod
    def fit(cls, features: Tensor, classes: Tensor) -> ClassDistance:
        """Fit means and covariance to training maps (n, D) of classes (n,), -1 being one more."""
        labels, inverse = torch.unique(classes, return_inverse=True)
        member = torch.nn.functional.one_hot(inverse, len(labels)).to(features.dtype)
        means = member.T @ features / member.sum(dim=0)[:, None]
        covariance = shrunk_covariance(features - means[inverse])
        values, vectors = torch.linalg.eigh(covariance)
        return cls(means, vectors / values.clamp_min(TINY).sqrt())

    def distance(self, features: Tensor) -> Tensor:
        """Return the distances of maps (n, D), (n,)."""
        white, centres = features @ self.whitening, self.means @ self.whitening
        return torch.cdist(white, centres).amin(dim=1)


@dataclass(frozen=True)
class NeighbourDistance:
    """Distance to the k-th nearest training map, each axis in units of its scatter.

    Sun et al. (2022, arXiv:2204.06507), who scale to length 1 instead.

    Args:
        bank: Training maps, scaled (n, D).
        scale: Standard deviations of the axes (D,).
        k: Which neighbour.
    """

    bank: Tensor
    scale: Tensor
    k: int

    @classmethod
    def fit(cls, features: Tensor, k: int) -> NeighbourDistance:
        """Keep training maps (n, D)."""
        scale = features.std(dim=0, correction=0).clamp_min(TINY)
        return cls(features / scale, scale, min(k, len(features)))

    def distance(self, features: Tensor) -> Tensor:
        """Return the distances of maps (n, D), (n,)."""
        blocks = torch.split(features / self.scale, BLOCK)
        found = [torch.cdist(block, self.bank).kthvalue(self.k, dim=1).values for block in blocks]
        return torch.cat(found)


Measure = ClassDistance | NeighbourDistance
# Learns a distance from the maps (n, D) that a mask (n,) chooses.
Make = Callable[[Tensor, Tensor], Measure]


@dataclass(frozen=True)
class Gauge:
    """One distance on one view, and what is usual for it.

    Args:
        view: Name of the view.
        measure: The distance.
        middle: Median of its logarithm over maps of clusters that it does not know.
        spread: Scatter of the logarithm around it.
    """

    view: str
    measure: Measure
    middle: float
    spread: float

    @classmethod
    def fit(cls, view: str, features: Tensor, make: Make, folds: Tensor) -> Gauge:
        """Learn a distance, and from all parts but one each what is usual for the maps of that one.

        The maps that a distance has learned from are nearer than those of new clusters: with as
        many axes as maps, much nearer.

        Args:
            view: Name of the view.
            features: Training maps (n, D).
            make: Learns the distance from some maps, given as a mask (n,).
            folds: Number of the part of each map, whole clusters (n,).
        """
        logs = torch.zeros(len(features), dtype=features.dtype)
        for number in torch.unique(folds):
            is_new = folds == number
            away = make(features, ~is_new).distance(features[is_new])
            logs[is_new] = away.clamp_min(TINY).log()
        middle = logs.median()
        spread = MAD_TO_SIGMA * (logs - middle).abs().median()
        measure = make(features, torch.ones_like(folds, dtype=torch.bool))
        return cls(view, measure, float(middle), max(float(spread), TINY))

    def score(self, features: Tensor) -> Tensor:
        """Return by how many spreads maps (n, D) are farther away than is usual (n,)."""
        logs = self.measure.distance(features).clamp_min(TINY).log()
        return (logs - self.middle) / self.spread


@dataclass(frozen=True)
class Novelty:
    """The most striking of several distances.

    Args:
        gauges: The distances.
    """

    gauges: tuple[Gauge, ...]

    @classmethod
    def fit(cls, views: Mapping[str, Tensor], classes: Tensor, clusters: Tensor, k: int) -> Novelty:
        """Learn from training maps.

        Args:
            views: Features by name, each (n, D), float64 for small differences.
            classes: Their classes (n,), int64.
            clusters: Their clusters (n,), int64, others for other initial conditions.
            k: Which neighbour counts.
        """

        def by_class(features: Tensor, chosen: Tensor) -> Measure:
            return ClassDistance.fit(features[chosen], classes[chosen])

        def by_neighbour(features: Tensor, chosen: Tensor) -> Measure:
            return NeighbourDistance.fit(features[chosen], k)

        folds = cluster_folds(clusters)
        makes = (by_class, by_neighbour)
        gauges = [Gauge.fit(view, features, make, folds)
                  for view, features in views.items() for make in makes]  # fmt: skip
        return cls(tuple(gauges))

    def score(self, views: Mapping[str, Tensor]) -> Tensor:
        """Return how striking maps are, about 0 for usual ones (n,)."""
        return torch.stack([g.score(views[g.view]) for g in self.gauges]).amax(dim=0)


def cluster_folds(clusters: Tensor) -> Tensor:
    """Deal clusters (n,) to parts, (n,); the maps of a single one are dealt themselves."""
    names, number = torch.unique(clusters, return_inverse=True)
    return (number if len(names) > 1 else torch.arange(len(clusters))) % N_FOLDS


def novelty_threshold(scores: Tensor, clusters: Tensor, false_alarms: float) -> float:
    """Return the score above which a map is unlike the training maps.

    Args:
        scores: Of maps like those of the training, which did not train (n,).
        clusters: Their clusters (n,).
        false_alarms: Probability at most that a map of a new cluster of this kind is above it.

    Returns:
        The threshold; inf, so that nothing is flagged, where there are too few clusters.
    """
    return pooled_quantile(scores.cpu().numpy(), clusters.cpu().numpy(), 1.0 - false_alarms)


def shrunk_covariance(deviations: Tensor) -> Tensor:
    """Return `(1 - s) S + s tr(S) / D`, with the s of Ledoit & Wolf (2004).

    doi:10.1016/S0047-259X(03)00096-4, section 3.2. It can be inverted also with fewer maps than
    axes.

    Args:
        deviations: Features minus their means (n, D).
    """
    n, n_axes = deviations.shape
    sample = deviations.T @ deviations / n
    mean = sample.trace() / n_axes
    distance = ((sample - mean * torch.eye(n_axes).to(sample)) ** 2).sum()
    noise = ((deviations**2).sum(dim=1) ** 2).sum() / n**2 - (sample**2).sum() / n
    share = float((noise / distance.clamp_min(TINY)).clamp(0.0, 1.0)) if distance > 0 else 1.0
    return (1.0 - share) * sample + share * mean * torch.eye(n_axes).to(sample)
