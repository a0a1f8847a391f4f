"""What a set of clusters says about one cross-section.

Multiplying what single clusters say narrows the answer with each of them, also where they disagree
or repeat each other. Here clusters scatter around a common value with a width that is inferred.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
# Likelihoods below it are not told apart from it.
SMALLEST = 1e-300


@dataclass(frozen=True)
class Posterior:
    """Probabilities of the centre and the width of a population.

    Args:
        centres: Centres, on the axis of the targets, rising (G,).
        widths: Standard deviations of the population, rising (T,).
        probability: Of each pair; the sum is 1 (G, T).
    """

    centres: Numbers
    widths: Numbers
    probability: Numbers

    def centre(self, levels: Sequence[float]) -> Numbers:
        """Return quantiles of the centre, whatever the width."""
        return _quantiles(self.centres, self.probability.sum(axis=1), levels)

    def width(self, levels: Sequence[float]) -> Numbers:
        """Return quantiles of the width, whatever the centre."""
        return _quantiles(self.widths, self.probability.sum(axis=0), levels)


def per_cluster(log_likelihood: Numbers, clusters: NDArray[np.int64]) -> Numbers:
    """Return one log-likelihood per cluster: the mean over its maps.

    Projections of one cluster, and its repeats by several networks, share nearly all that they
    know. As a mean they count once; as a sum they would count as independent clusters.

    Args:
        log_likelihood: (n, G).
        clusters: Clusters of the maps (n,).

    Returns:
        In the order of the sorted clusters (n_clusters, G).
    """
    _, inverse, counts = np.unique(clusters, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), log_likelihood.shape[1]))
    np.add.at(sums, inverse.reshape(-1), log_likelihood)
    return sums / counts[:, None]


def posterior(
    log_likelihood: Numbers, grid: Numbers, widths: Numbers, log_prior: Numbers | None = None
) -> Posterior:
    """Return the posterior of the centre mu and the width tau of a population.

    `p(mu, tau | d) ~ p(mu, tau) prod_i integral p(d_i | x) N(x; mu, tau) dx` (for example Gelman
    et al., Bayesian Data Analysis, 5.4); the integral is a sum over the grid, beyond which nothing
    is likely.
    At tau = 0 this is the plain product. The prior is flat in mu and, as Gelman (2006,
    doi:10.1214/06-BA117A) advises, in tau.

    Args:
        log_likelihood: ln p(d_i | x) of each cluster on the grid, up to a constant; of a network
            that gives p(x | d), this is ln p(x | d) - ln p(x) with the p(x) of its training (n, G).
        grid: Values x, evenly spaced, closer than the answer is wide; also the values of mu (G,).
        widths: Values of tau, >= 0, rising; others than 0 not below the spacing of the grid (T,).
        log_prior: Added to the logarithm of the flat prior (G, T).
    """
    return mean_posterior([log_likelihood], grid, widths, log_prior)


def mean_posterior(
    log_likelihoods: Iterable[Numbers],
    grid: Numbers,
    widths: Numbers,
    log_prior: Numbers | None = None,
) -> Posterior:
    """Return the mean of the posteriors that several likelihoods of the same data give.

    Where a likelihood was measured, its error is common to all clusters: it does not go down with
    their number, and the width of a population does not stand for it. Averaged over likelihoods
    that the measurement allows, a posterior holds it; the clusters do not choose among them (a cut
    posterior, Plummer 2015, doi:10.1007/s11222-014-9503-z).

    Args:
        log_likelihoods: One or more, each as `posterior` takes it (n, G).
        grid: See `posterior` (G,).
        widths: See `posterior` (T,).
        log_prior: See `posterior` (G, T).
    """
    kernels = [_kernel(grid, width) for width in widths]
    cells = np.outer(np.diff(_edges(grid)), np.diff(_edges(widths)))
    prior = 0.0 if log_prior is None else log_prior
    found = []
    for one in log_likelihoods:
        relative = one - one.max(axis=1, keepdims=True)
        total = np.stack([_sum_over_clusters(relative, k) for k in kernels], axis=1) + prior
        probability = np.exp(total - total.max()) * cells
        found.append(probability / probability.sum())
    return Posterior(grid, widths, np.mean(found, axis=0))


def _kernel(grid: Numbers, width: float) -> Numbers | None:
    """Return what a population of one width makes of each centre (G, G); None without a width."""
    if width == 0.0:
        return None
    spacing = (grid[-1] - grid[0]) / (len(grid) - 1)
    density = np.exp(-0.5 * ((grid[:, None] - grid) / width) ** 2)
    return np.asarray(density * (spacing / (width * np.sqrt(2.0 * np.pi))))


def _sum_over_clusters(log_likelihood: Numbers, kernel: Numbers | None) -> Numbers:
    """Return the log-likelihood of each centre at one width (G,)."""
    if kernel is None:
        return np.asarray(log_likelihood.sum(axis=0))
    mean = np.exp(log_likelihood) @ kernel
    return np.asarray(np.log(np.maximum(mean, SMALLEST)).sum(axis=0))


def _quantiles(values: Numbers, probability: Numbers, levels: Sequence[float]) -> Numbers:
    """Return quantiles, with the probability of a value spread evenly over its cell."""
    if len(values) == 1:
        return np.full(len(levels), values[0])
    cumulative = np.concatenate([[0.0], np.cumsum(probability)])
    return np.asarray(np.interp(levels, cumulative / cumulative[-1], _edges(values)))


def _edges(values: Numbers) -> Numbers:
    """Return the edges of the cells around values; those of the first and last one are halves."""
    if len(values) == 1:
        return np.array([0.0, 1.0])
    return np.concatenate([values[:1], 0.5 * (values[1:] + values[:-1]), values[-1:]])
