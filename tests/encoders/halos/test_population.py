"""Posterior of a set of clusters: closed form, product, simulated ranks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest, norm

from encoders.halos.population import per_cluster, posterior

GRID = np.linspace(-1.0, 2.0, 151)


def normal_likelihoods(measured: np.ndarray, error: np.ndarray) -> np.ndarray:
    return norm.logpdf(measured[:, None], GRID, error[:, None])


def test_normal_errors_have_a_closed_form() -> None:
    """d_i ~ N(mu, s_i^2 + tau^2)."""
    rng = np.random.default_rng(0)
    error = rng.uniform(0.1, 0.3, 12)
    measured = 0.5 + rng.normal(size=12) * np.hypot(error, 0.15)
    widths = np.linspace(0.0, 0.24, 9)
    # tau = 0 on a grid is a product of likelihoods, the others sums over it.
    found = posterior(normal_likelihoods(measured, error), GRID, widths)
    total = np.hypot(error[:, None, None], widths)
    log = norm.logpdf(measured[:, None, None], GRID[:, None], total).sum(axis=0)
    expected = np.exp(log - log.max()) * np.outer(
        np.r_[0.5, np.ones(149), 0.5], np.r_[0.5, np.ones(7), 0.5]
    )
    np.testing.assert_allclose(found.probability, expected / expected.sum(), atol=2e-7)


def test_quantiles_are_those_of_the_mean_of_normal_measurements() -> None:
    measured, error = np.array([0.4, 0.55, 0.5]), np.array([0.1, 0.2, 0.1])
    found = posterior(normal_likelihoods(measured, error), GRID, np.zeros(1))
    weight = error**-2.0
    mean, sigma = (measured * weight).sum() / weight.sum(), weight.sum() ** -0.5
    levels = [0.16, 0.5, 0.84, 0.975]
    np.testing.assert_allclose(found.centre(levels), norm.ppf(levels, mean, sigma), atol=1e-3)
    assert found.width([0.5]) == 0.0
    # A prior counts as one more measurement.
    prior = norm.logpdf(GRID, 0.4, 0.1)[:, None]
    three = posterior(normal_likelihoods(measured[1:], error[1:]), GRID, np.zeros(1), prior)
    np.testing.assert_allclose(three.probability, found.probability, atol=1e-12)


def test_clusters_that_disagree_widen_the_answer() -> None:
    error = np.full(20, 0.05)
    measured = 0.5 + np.where(np.arange(20) % 2, 0.4, -0.4)
    grid = np.linspace(-0.5, 1.5, 401)
    log_likelihood = norm.logpdf(measured[:, None], grid, error[:, None])
    product = posterior(log_likelihood, grid, np.zeros(1))
    found = posterior(log_likelihood, grid, np.linspace(0.0, 1.0, 21))
    narrow, wide = (np.diff(p.centre([0.16, 0.84]))[0] for p in (product, found))
    assert narrow == pytest.approx(2 * 0.05 / 20**0.5, rel=0.05)
    assert wide == pytest.approx(2 * 0.4 / 20**0.5, rel=0.15)
    assert 0.35 < found.width([0.5])[0] < 0.5


def test_maps_of_one_cluster_count_once() -> None:
    measured, error = np.array([0.3, 0.6]), np.array([0.1, 0.1])
    once = normal_likelihoods(measured, error)
    repeated = np.repeat(once, [3, 8], axis=0)
    clusters = np.repeat([7, 2], [3, 8])
    np.testing.assert_allclose(per_cluster(repeated, clusters), once[::-1])


def test_likelihoods_that_exclude_each_other_stay_finite() -> None:
    log_likelihood = normal_likelihoods(np.array([-0.9, 1.9]), np.array([1e-2, 1e-2]))
    for widths in (np.zeros(1), np.linspace(0.0, 1.0, 11)):
        found = posterior(log_likelihood, GRID, widths)
        assert np.isfinite(found.probability).all()
        assert found.centre([0.5])[0] == pytest.approx(0.5, abs=0.1)


def test_ranks_of_the_truth_are_uniform() -> None:
    """Drawn from the prior, the truth is below the q-quantile in a share q of all cases.

    Talts et al. (2018, arXiv:1804.06788).
    """
    rng = np.random.default_rng(4)
    grid, widths = np.linspace(-1.0, 2.0, 121), np.linspace(0.0, 0.3, 11)
    prior = np.where((grid > -0.001) & (grid < 1.001), 0.0, -np.inf)[:, None]
    ranks = []
    for _ in range(150):
        mu, tau = rng.uniform(0.0, 1.0), rng.uniform(0.0, 0.3)
        error = rng.uniform(0.05, 0.2, 10)
        measured = mu + np.hypot(tau, error) * rng.normal(size=10)
        log_likelihood = norm.logpdf(measured[:, None], grid, error[:, None])
        found = posterior(log_likelihood, grid, widths, prior)
        levels = np.linspace(0.0, 1.0, 201)
        ranks.append([np.interp(mu, found.centre(list(levels)), levels),
                      np.interp(tau, found.width(list(levels)), levels)])  # fmt: skip
    for rank in np.transpose(ranks):
        assert kstest(rank, "uniform").pvalue > 0.01
