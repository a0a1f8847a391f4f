"""Counter-based random numbers: known values, distribution, independence of neighbours."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from datagen.distributions import check_distribution, parse
from datagen.errors import ConfigError
from datagen.lenses.draws import Draws, splitmix64

N_ITEMS, N_NUMBERS = 2000, 64


@pytest.fixture(scope="module")
def uniform() -> torch.Tensor:
    return Draws(7, torch.arange(N_ITEMS), "test").uniform(N_NUMBERS)


def test_integers_are_those_of_splitmix64() -> None:
    """The first numbers of java.util.SplittableRandom's algorithm from the state 1234567."""
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    found = splitmix64(torch.tensor([1234567]), 3)[0].tolist()
    assert [number % 2**64 for number in found] == known


def test_numbers_depend_on_seed_index_component_and_counter_alone(uniform: torch.Tensor) -> None:
    some = torch.tensor([1999, 3, 3, 512])
    assert torch.equal(Draws(7, some, "test").uniform(5), uniform[some, :5])
    first = Draws(7, some, "test").integers(4)
    for other in (Draws(8, some, "test"), Draws(7, some + 1, "test"), Draws(7, some, "tesu")):
        assert not (other.integers(4) == first).any()
    assert len(torch.unique(Draws(7, torch.arange(N_ITEMS), "test").integers(64))) == 64 * N_ITEMS


def test_numbers_are_uniform(uniform: torch.Tensor) -> None:
    assert 0.0 < float(uniform.min()) < float(uniform.max()) < 1.0
    counts = torch.histc(uniform, 256, 0.0, 1.0).numpy()
    assert stats.chisquare(counts).pvalue > 1e-3
    # Also each counter over all images, as a parameter sees it, and the last bits.
    pvalues = [stats.kstest(column, "uniform").pvalue for column in uniform.T.numpy()]
    assert stats.kstest(pvalues, "uniform").pvalue > 1e-3
    bits = Draws(7, torch.arange(N_ITEMS), "test").integers(N_NUMBERS)
    share = torch.stack([((bits >> bit) & 1).double().mean() for bit in range(64)])
    assert float((share - 0.5).abs().max()) < 4.5 * 0.5 / (N_ITEMS * N_NUMBERS) ** 0.5


@pytest.mark.parametrize(("items", "numbers"), [(1, 0), (0, 1), (1, 1), (2, 0), (64, 0), (0, 8)])
def test_neighbours_are_independent(uniform: torch.Tensor, items: int, numbers: int) -> None:
    first = uniform[: N_ITEMS - items, : N_NUMBERS - numbers].flatten()
    second = uniform[items:, numbers:].flatten()
    pairs = torch.floor(16 * first) * 16 + torch.floor(16 * second)
    assert stats.chisquare(torch.bincount(pairs.long(), minlength=256).numpy()).pvalue > 1e-3
    assert stats.pearsonr(first.numpy(), second.numpy()).pvalue > 1e-3


def test_seeds_and_components_are_independent(uniform: torch.Tensor) -> None:
    for seed, component in ((8, "test"), (7, "tests")):
        other = Draws(seed, torch.arange(N_ITEMS), component).uniform(N_NUMBERS)
        assert stats.pearsonr(uniform.flatten().numpy(), other.flatten().numpy()).pvalue > 1e-3


def test_normal_numbers_are_normal() -> None:
    normal = Draws(1, torch.arange(200), "noise").normal(500).flatten().numpy()
    assert stats.kstest(normal, "norm").pvalue > 1e-3


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("uniform(0.8, 1.6)", stats.uniform(0.8, 0.8)),
        ("log_uniform(0.01, 3)", stats.loguniform(0.01, 3.0)),
        ("normal(-1, 0.02)", stats.norm(-1.0, 0.02)),
        ("half_normal(0.05)", stats.halfnorm(0.0, 0.05)),
    ],
)
def test_distributions_follow_scipy(text: str, reference: stats.distributions.rv_frozen) -> None:
    u = torch.linspace(0.001, 0.999, 101, dtype=torch.float64)
    x = parse(text).quantile(u)
    assert torch.allclose(x, torch.from_numpy(reference.ppf(u.numpy())), rtol=1e-9)
    assert torch.allclose(parse(text).cdf(x), u, rtol=1e-9)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("normal(0.5, 0.4)", stats.truncnorm(-1.0, 1.25, 0.5, 0.4)),
        ("half_normal(0.8)", stats.truncnorm(0.125, 1.25, 0.0, 0.8)),
    ],
)
def test_normal_distributions_are_cut_off_at_their_limits(
    text: str, reference: stats.distributions.rv_frozen
) -> None:
    u = torch.linspace(0.0, 1.0, 101, dtype=torch.float64)
    cut = parse(text).within(0.1, 1.0)
    x = cut.quantile(u)
    assert torch.allclose(x, torch.from_numpy(reference.ppf(u.numpy())), rtol=1e-9)
    assert torch.allclose(cut.cdf(x), u, rtol=1e-9)
    assert cut.cdf(torch.tensor([-5.0, 5.0])).tolist() == [0.0, 1.0]
    assert cut.bounds() == (0.1, 1.0)


def test_limits_far_out_change_no_bit() -> None:
    u = Draws(0, torch.arange(50), "test").uniform(4)
    for text in ("normal(0, 0.02)", "half_normal(0.05)"):
        assert torch.equal(parse(text).within(-30.0, 30.0).quantile(u), parse(text).quantile(u))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uniform(2, 1)", r"expected lens.q to be low < high, but got lens.q = uniform\(2, 1\)"),
        ("uniform(1)", "a number, uniform"),
        ("gauss(0, 1)", "a number, uniform"),
        ("nan", "a number, uniform"),
        ("log_uniform(0, 1)", "low > 0"),
        ("normal(0, 0)", "sigma > 0"),
        ("uniform(0.5, 1.5)", r"expected lens.q in \[0.1, 1\], but got lens.q = uniform"),
        ("2", r"expected lens.q in \[0.1, 1\], but got lens.q = 2"),
    ],
)
def test_bad_distributions_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_distribution("lens.q", text, 0.1, 1.0)
