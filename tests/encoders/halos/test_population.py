"""Posterior of a set of clusters: closed form, product, simulated ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import kstest, norm

from encoders.halos import likelihood
from encoders.halos.likelihood import LEVELS, Likelihood, refits
from encoders.halos.population import Posterior, mean_posterior, per_cluster, posterior

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


PLACES = np.array([0.0, 0.3, 0.6, 1.0])
COARSE, WIDTHS = 5, np.array([0.0, 0.1])


def toy(n_clusters: int, places: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Return z_0 of one map of each cluster at each place (n_clusters, K).

    It has a part that is the same for a cluster at all places, as large as the rest.
    """
    error = rng.normal(size=(n_clusters, 1)) + rng.normal(size=(n_clusters, len(places)))
    return 0.2 + 0.6 * np.asarray(places) + 0.12 * error


def calibrated(n_clusters: int, rng: np.random.Generator) -> tuple[Likelihood, list[Likelihood]]:
    """Return a likelihood from validation clusters, and its refits."""
    first, targets = toy(n_clusters, PLACES.tolist(), rng).ravel(), np.tile(PLACES, n_clusters)
    clusters = np.repeat(np.arange(n_clusters), len(PLACES))
    return Likelihood.fit(first, targets), list(refits(first, targets, clusters))


def populations(n_validation: int, rng: np.random.Generator) -> tuple[Posterior, Posterior]:
    """Return what 200 clusters at 0.6 say, without and with the error of the calibration."""
    plain, others = calibrated(n_validation, rng)
    first, grid = toy(200, [0.6], rng)[:, 0], likelihood.grid()[::COARSE]
    logs = [one.log(first)[:, ::COARSE] for one in (plain, *others)]
    return posterior(logs[0], grid, WIDTHS), mean_posterior(logs[1:], grid, WIDTHS)


def test_the_error_of_the_calibration_is_in_the_interval() -> None:
    """32 validation clusters say less than 200 clusters ask for."""
    rng, ends = np.random.default_rng(8), []
    for _ in range(50):
        ends.append([one.centre(LEVELS) for one in populations(32, rng)])
    low, _, high = np.moveaxis(np.array(ends), 2, 0)
    plain, found = ((low <= 0.6) & (high >= 0.6)).mean(axis=0)
    assert plain < 0.5
    assert 0.58 < found < 0.8


def test_a_calibration_by_many_clusters_has_no_error() -> None:
    plain, found = populations(20_000, np.random.default_rng(3))
    np.testing.assert_allclose(found.centre(LEVELS), plain.centre(LEVELS), atol=2e-3)
    np.testing.assert_allclose(found.width([0.5]), plain.width([0.5]), atol=2e-3)


def test_refits_are_those_of_other_validation_clusters() -> None:
    """Their means scatter as those of independent validations do, alike at all places."""
    rng = np.random.default_rng(5)
    found = np.array([one.means for one in calibrated(32, rng)[1]])
    independent = np.array([calibrated(32, rng)[0].means for _ in range(50)])
    expected = 0.12 * (2 / 32) ** 0.5
    np.testing.assert_allclose(independent.std(axis=0), expected, rtol=0.3)
    np.testing.assert_allclose(found.std(axis=0), expected, rtol=0.3)
    # Half of the variance is that of the clusters.
    assert np.corrcoef(found.T)[np.triu_indices(4, 1)].mean() == pytest.approx(0.5, abs=0.15)
    first, targets = np.array([0.1, 0.3, 0.9, 0.8]), np.array([0.0, 0.0, 1.0, 1.0])
    weighted = Likelihood.fit(first, targets, np.array([3.0, 1.0, 1.0, 1.0]))
    np.testing.assert_allclose(weighted.means, [0.15, 0.85])
    np.testing.assert_allclose(weighted.widths, [0.0075**0.5, 0.05])
