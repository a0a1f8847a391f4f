"""Intervals of accuracies over several trainings, which may share some of their test images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats


@dataclass(frozen=True)
class Scores:
    """What one test gave for each of its images.

    Args:
        identity: Of the set of images.
        index: Numbers of the images in the set, each once (n,).
        values: For example 1 for a class that was found, 0 for others (n,).
    """

    identity: str
    index: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Over the images."""
        return float(self.values.mean())

    def covariance(self, other: Scores) -> float:
        """Return the covariance of the means of two tests, from the images that both have."""
        if self.identity != other.identity:
            return 0.0
        shared, mine, theirs = np.intersect1d(
            self.index, other.index, assume_unique=True, return_indices=True
        )
        if len(shared) < 2:
            return 0.0
        covariance = np.cov(self.values[mine], other.values[theirs])[0, 1]
        return float(covariance) * len(shared) / (len(self.index) * len(other.index))


def seeds_interval(seeds: Sequence[Scores], confidence: float) -> tuple[float, float]:
    """Return the interval of the mean over two or more seeds.

    The variance of the mean is s^2 / n, with s^2 that of the means of the seeds, plus the mean
    covariance of two seeds. Seeds whose test images differ have none, and the interval is
    Student's t. An image that is hard for all seeds moves all means alike, so that s does not show
    it: the covariance does, measured over shared images. Its error is small beside that of s, so
    that the degrees of freedom are those of Satterthwaite (1946, doi:10.2307/3002019) with that of
    s alone.
    """
    means = [scores.mean for scores in seeds]
    scatter = float(np.var(means, ddof=1)) / len(means)
    pairs = [a.covariance(b) for a, b in itertools.combinations(seeds, 2)]
    variance = scatter + max(float(np.mean(pairs)), 0.0)
    freedom = (len(means) - 1) * (variance / scatter) ** 2 if scatter > 0 else np.inf
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * variance**0.5
    middle = float(np.mean(means))
    return middle - half, middle + half


def paired_interval(
    a: Sequence[Scores], b: Sequence[Scores], confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return by how much accuracy a exceeds accuracy b, with an interval.

    Both classifiers answer the same images, so that images which are hard for both cancel. With
    several seeds the interval is `seeds_interval` of the differences. With one seed it is the
    normal one over images: of n images a alone gets `p` n right and b alone `q` n, difference
    p - q, variance (p + q - (p - q)^2) / n (McNemar 1947, doi:10.1007/BF02295996; Agresti,
    Categorical Data Analysis, 11.1).

    Args:
        a: For each seed, 1 for images that a got right, 0 for others.
        b: The same for b, for the same seeds and images.
        confidence: Of the interval.

    Returns:
        Difference, lower and upper end.
    """
    changes = [
        Scores(one.identity, one.index, one.values - other.values)
        for one, other in zip(a, b, strict=True)
    ]
    mean = float(np.mean([change.mean for change in changes]))
    if len(changes) > 1:
        return mean, *seeds_interval(changes, confidence)
    error = float(np.sqrt(changes[0].values.var() / len(changes[0].values)))
    half = float(stats.norm.ppf((1 + confidence) / 2)) * error
    return mean, mean - half, mean + half
