"""Heads: densities and losses against scipy, moments that a fit finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq, minimize
from scipy.special import logsumexp
from scipy.stats import norm

from encoders.halos.heads import (
    Mixture,
    MixtureHead,
    MomentHead,
    mixture_loss,
    moment_loss,
)


def mixture(n: int = 5, k: int = 3) -> Mixture:
    rng = np.random.default_rng(0)
    log_weight = torch.log_softmax(torch.from_numpy(rng.normal(size=(n, k))), dim=1)
    mean, scale = rng.normal(size=(n, k)), rng.uniform(0.05, 0.5, (n, k))
    return Mixture(log_weight, torch.from_numpy(mean), torch.from_numpy(scale))


def reference(m: Mixture, row: int, value: float) -> float:
    parts = (x[row].numpy() for x in (m.log_weight, m.mean, m.scale))
    log_weight, mean, scale = parts
    return float(logsumexp(log_weight + norm.logpdf(value, mean, scale)))


def test_density_loss_and_gradient_are_those_of_scipy() -> None:
    m = mixture()
    target = torch.tensor([0.1, np.nan, -0.4, 1.2, np.nan], dtype=torch.float64)
    known = [0, 2, 3]
    expected = [reference(m, k, float(target[k])) for k in known]
    torch.testing.assert_close(m.log_prob(target)[known], torch.tensor(expected).double())
    mean = m.mean.clone().requires_grad_()
    loss = mixture_loss(Mixture(m.log_weight, mean, m.scale), target)
    assert loss.item() == pytest.approx(-np.mean(expected))
    loss.backward()
    assert mean.grad is not None
    assert torch.isfinite(mean.grad).all()
    assert not mean.grad[[1, 4]].any()
    step = 1e-6
    moved = Mixture(m.log_weight, m.mean + step * (torch.arange(5) == 0)[:, None], m.scale)
    slope = (mixture_loss(moved, target) - loss.detach()) / step
    assert slope.item() == pytest.approx(mean.grad[0].sum().item(), rel=1e-4)
    nothing = mixture_loss(m, torch.full((5,), torch.nan, dtype=torch.float64))
    assert nothing == 0.0


def test_grids_distribution_quantiles_and_moments() -> None:
    m = mixture()
    grid = torch.linspace(-3.0, 3.0, 7).double().expand(5, 7)
    levels = torch.tensor([0.16, 0.5, 0.84], dtype=torch.float64)
    quantiles, (mean, sigma) = m.quantile(levels), m.moments()
    for row in range(5):

        def density(x: float, row: int = row) -> float:
            return float(np.exp(reference(m, row, x)))

        for place, value in enumerate(grid[row].tolist()):
            assert m.log_prob(grid)[row, place].item() == pytest.approx(reference(m, row, value))
        weight = m.log_weight[row].exp().numpy()

        def below(x: float, row: int = row, weight: np.ndarray = weight) -> float:
            return float(weight @ norm.cdf(x, m.mean[row].numpy(), m.scale[row].numpy()))

        assert m.cdf(grid)[row, 3].item() == pytest.approx(below(0.0))
        for k, level in enumerate(levels.tolist()):
            root = brentq(lambda x, level=level: below(x) - level, -20.0, 20.0)
            assert quantiles[row, k].item() == pytest.approx(root, abs=1e-9)
        points = sorted(m.mean[row].tolist())
        first = quad(lambda x: x * density(x), -8, 8, points=points, limit=200)[0]
        second = quad(lambda x: x * x * density(x), -8, 8, points=points, limit=200)[0]
        assert mean[row].item() == pytest.approx(first, abs=1e-6)
        assert sigma[row].item() == pytest.approx((second - first**2) ** 0.5, abs=1e-5)


def test_the_moment_loss_is_least_at_mean_and_variance() -> None:
    """The second term has no say in the mean: the variance is that around the mean."""
    target = np.random.default_rng(1).gamma(1.5, 0.4, 400)
    found = minimize(lambda m: np.mean((target - m[0]) ** 2), [0.0]).x[0]
    spread = minimize(lambda v: np.mean(((target - found) ** 2 - v[0]) ** 2), [1.0]).x[0]
    values = torch.from_numpy(target)
    mean = torch.tensor(float(found), dtype=torch.float64, requires_grad=True)
    variance = torch.tensor(float(spread), dtype=torch.float64, requires_grad=True)
    moment_loss(mean.expand(400), variance.expand(400), values).backward()
    assert mean.grad is not None
    assert variance.grad is not None
    assert abs(mean.grad.item()) < 1e-6
    assert abs(variance.grad.item()) < 1e-6
    assert found == pytest.approx(target.mean(), abs=1e-6)
    assert spread == pytest.approx(target.var(), abs=1e-5)
    expected = np.mean((target - found) ** 2) + np.mean(((target - found) ** 2 - spread) ** 2)
    value = moment_loss(mean.expand(400), variance.expand(400), values)
    assert value.item() == pytest.approx(expected)


def test_targets_that_are_not_known_pull_at_nothing() -> None:
    target = torch.tensor([0.5, torch.nan])
    mean, variance = torch.zeros(2, requires_grad=True), torch.ones(2, requires_grad=True)
    moment_loss(mean, variance, target).backward()
    assert mean.grad is not None
    assert mean.grad.tolist() == [-1.0, 0.0]
    assert moment_loss(mean, variance, torch.full((2,), torch.nan)) == 0.0


def test_heads_learn_a_spread_that_depends_on_the_input() -> None:
    torch.manual_seed(0)
    x = torch.rand(500, 1)
    target = 2.0 * x[:, 0] + (0.1 + 0.4 * x[:, 0]) * torch.randn(500)
    heads = (MixtureHead(1, 16, 2, min_scale=1e-3), MomentHead(1, 16, min_scale=1e-3))
    optimizer = torch.optim.Adam([p for head in heads for p in head.parameters()], 0.1)
    for _ in range(150):
        loss = mixture_loss(heads[0](x), target) + moment_loss(*heads[1](x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    places = torch.tensor([[0.2], [0.8]])
    mean, variance = heads[1](places)
    for middle, sigma in (heads[0](places).moments(), (mean, variance.sqrt())):
        torch.testing.assert_close(middle, 2.0 * places[:, 0], atol=0.08, rtol=0.0)
        torch.testing.assert_close(sigma, 0.1 + 0.4 * places[:, 0], atol=0.08, rtol=0.0)


def test_widths_have_a_floor() -> None:
    head, moments = MixtureHead(2, 4, 3, min_scale=0.05), MomentHead(2, 4, min_scale=0.05)
    for parameter in [*head.parameters(), *moments.parameters()]:
        torch.nn.init.constant_(parameter, -50.0)
    assert (head(torch.ones(1, 2)).scale >= 0.05).all()
    assert (moments(torch.ones(1, 2))[1] >= 0.05**2).all()
