"""How far an encoder can be trusted: likelihoods, intervals, novelty, what a checkpoint keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import norm

from datagen.errors import ConfigError
from encoders.halos.conformal import coverage
from encoders.halos.judge import NEVER, Judge, JudgeSettings
from encoders.halos.likelihood import MARGIN, Likelihood, grid, interval, quantiles
from encoders.halos.metrics import Answers
from encoders.halos.reference import CLUSTERS, Reference
from encoders.halos.views import N_RINGS, ring_view

HOW = JudgeSettings(n_reference=2000, n_neighbours=3, false_alarms=0.05, level=0.68)
PLACES = np.array([0.0, 0.5, 1.0])


def answers(n_clusters: int, seed: int, pull: float = 0.6) -> Answers:
    """Return answers of an encoder that pulls z_0 to the middle: 3 classes, 2 maps of each.

    Errors have a part that all maps of a halo share.
    """
    rng = np.random.default_rng(seed)
    n = 6 * n_clusters
    clusters, classes = np.arange(n) // 6, np.arange(n) // 2 % 3
    error = 0.1 * rng.normal(size=n_clusters)[clusters] + 0.1 * rng.normal(size=n)
    first = 0.5 + pull * (PLACES[classes] - 0.5) + error
    z = np.stack((first, *rng.normal(size=(2, n))), axis=1)
    views = rng.normal(size=(n, 9))
    numbers = [torch.from_numpy(x) for x in (classes, PLACES[classes], 0 * clusters, np.arange(n))]
    return Answers(
        torch.from_numpy(z), torch.zeros(n, 0).double(), *numbers, torch.from_numpy(clusters),
        torch.from_numpy(views), (5, 4),
    )  # fmt: skip


def judged(n_clusters: int, seed: int = 0) -> Judge:
    reference = Reference(HOW.n_reference)
    reference.keep(answers(n_clusters, seed))
    return Judge.fit(reference, PLACES, HOW)


def test_quantiles_are_those_of_a_normal_distribution() -> None:
    likelihood = Likelihood(np.array([0.0, 1.0]), np.array([0.3, 0.7]), np.array([0.04, 0.04]))
    # dm/dt = 0.4: the posterior of t is normal, of width 0.1.
    found = quantiles(likelihood.log_posterior(np.array([0.5, 0.62])), (0.1, 0.5, 0.9))
    expected = np.array([[0.5], [0.8]]) + 0.1 * norm.ppf([0.1, 0.5, 0.9])
    np.testing.assert_allclose(found, expected, atol=2e-3)
    # Widths in between are interpolated in their logarithm; means go on beyond the known ones.
    one = Likelihood(np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.array([0.1, 0.4]))
    log = one.log(np.array([0.3]))[0]
    for t, width in ((0.5, 0.2), (1.2, 0.4), (-0.2, 0.1)):
        at = int(np.abs(grid() - t).argmin())
        wanted = norm.logpdf(0.3, grid()[at], width) - norm.logpdf(0.3, 0.0, 0.1)
        assert log[at] - log[np.abs(grid()).argmin()] == pytest.approx(wanted, abs=0.05)


def test_the_pull_to_the_middle_is_undone() -> None:
    whole = answers(500, seed=1)
    first, targets = whole.z[:, 0].numpy(), whole.targets.numpy()
    likelihood = Likelihood.fit(first, targets)
    np.testing.assert_allclose(likelihood.means, [0.2, 0.5, 0.8], atol=0.02)
    middles = quantiles(likelihood.log_posterior(first))[:, 1]
    for place in PLACES[:2]:
        assert np.median(middles[targets == place]) == pytest.approx(place, abs=0.04)
    with pytest.raises(ConfigError, match=r"two known cross-sections or more, but got .* 1;"):
        Likelihood.fit(first, np.where(targets == 0.5, 0.5, np.nan))


def test_the_prior_counts_gaps_between_cross_sections() -> None:
    likelihood = Likelihood(np.array([0.0, 0.5, 0.7, 1.0]), np.zeros(4), np.ones(4))
    # z_0 tells nothing: a third of (0, 1) is below 0.5, a third above 0.7.
    density = np.exp(likelihood.log_posterior(np.zeros(1))[0])
    step = grid()[1] - grid()[0]
    gaps = [(0.0, 0.5), (0.5, 0.7), (0.7, 1.0)]
    inside = [density[(grid() > low) & (grid() < high)].sum() * step for low, high in gaps]
    np.testing.assert_allclose(inside, 1.0, atol=0.03)
    assert density[0] == pytest.approx(2.0)
    assert density[-1] == pytest.approx(1.0 / 0.3)


def held(judge: Judge, new: Answers) -> float:
    assert judge.likelihood is not None
    low, _, high = interval(judge.likelihood.log_posterior(new.z[:, 0].numpy()), judge.shift).T
    return coverage(new.targets.numpy(), low, high, new.clusters.numpy())[0]


def test_intervals_hold_as_often_as_they_say() -> None:
    new = answers(1000, seed=2)
    shares = [held(judged(60, seed), new) for seed in range(10, 18)]
    assert np.mean(shares) == pytest.approx(0.68, abs=0.04)
    # Too few halos for any level: the interval is the whole axis.
    assert held(judged(2), new) == 1.0
    low, middle, high = interval(np.zeros((1, len(grid()))), np.inf)[0]
    assert (low, middle, high) == (-MARGIN, pytest.approx(0.5), 1.0 + MARGIN)


def views_of(new: Answers) -> dict[str, torch.Tensor]:
    assert new.views is not None
    return {"latent": new.z, "features": new.views[:, :5], "rings": new.views[:, 5:]}


def test_few_usual_maps_are_flagged_and_odd_ones_are() -> None:
    judge, usual = judged(80), views_of(answers(300, seed=3))
    alarms = (judge.score(usual) > judge.threshold).double().mean()
    assert 0.0 < alarms < 0.1
    for name in usual:
        odd = usual | {name: usual[name] + 8.0}
        assert (judge.score(odd) > judge.threshold).double().mean() > 0.99
    few = judged(1)
    assert few.threshold == NEVER
    assert not (few.score(usual) > few.threshold).any()


def test_the_reference_travels_with_the_weights() -> None:
    whole = answers(20, seed=4)
    reference, loaded = Reference(50), Reference(50)
    with torch.inference_mode():
        reference.keep(whole)
    kept = reference.column(CLUSTERS)
    assert len(reference) == 48  # 8 whole halos
    assert set(torch.bincount(kept)[kept.unique()].tolist()) == {6}
    assert {name: view.shape[1] for name, view in reference.views.items()} == {
        "latent": 3,
        "features": 5,
        "rings": 4,
    }
    state = {name: value.clone() for name, value in reference.state_dict().items()}
    loaded.load_state_dict(state)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, state[name])
    loaded.load_state_dict(Reference(50).state_dict())
    assert len(loaded) == 0


def literal(image: NDArray[np.float64]) -> list[float]:
    """Return mean, ln scatter and ln roughness of each ring of a channel, pixel by pixel."""
    side = len(image)
    rings: list[list[tuple[float, float]]] = [[] for _ in range(N_RINGS)]
    for i in range(side):
        for k in range(side):
            radius = np.hypot(i - (side - 1) / 2, k - (side - 1) / 2) / (side / 2)
            if radius < 1:
                step = image[i, k] - image[i, k - 1] if k else 0.0
                rings[int(radius * N_RINGS)].append((image[i, k], step))
    pixels = [np.array(ring) for ring in rings]
    return [
        *(p[:, 0].mean() for p in pixels),
        *(np.log(p[:, 0].std()) for p in pixels),
        *(0.5 * np.log((p[:, 1] ** 2).mean()) for p in pixels),
    ]


def test_rings_are_those_of_a_literal_transcription() -> None:
    maps = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 2, 18, 18)))
    found = ring_view(maps).view(2, 3, 2, N_RINGS)
    for b in range(2):
        for c in range(2):
            expected = literal(maps[b, c].numpy())
            np.testing.assert_allclose(found[b, :, c].flatten(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_reference": 0}, r"model\.judge\.n_reference to be >= 1, but got n_reference = 0"),
        ({"n_neighbours": 0}, r"n_neighbours to be >= 1"),
        ({"level": 1.0}, r"model\.judge\.level to be between 0 and 1, but got level = 1\.0"),
        ({"false_alarms": 0.0}, r"false_alarms to be between 0 and 1"),
    ],
)
def test_settings_of_the_judge_are_checked(change: dict[str, float], message: str) -> None:
    good = {"n_reference": 10, "n_neighbours": 2, "false_alarms": 0.05, "level": 0.68}
    with pytest.raises(ConfigError, match=message):
        JudgeSettings(**(good | change))  # type: ignore[arg-type]
