"""Novelty: distances against scikit-learn and scipy, false alarms, what each distance sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from sklearn.covariance import LedoitWolf
from torch import Tensor

from encoders.halos.novelty import (
    ClassDistance,
    NeighbourDistance,
    Novelty,
    cluster_folds,
    novelty_threshold,
    shrunk_covariance,
)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("n", [4, 30, 500])
def test_covariance_is_that_of_scikit_learn(n: int) -> None:
    x = normal(0, n, 6) @ normal(1, 6, 6)
    expected = LedoitWolf(assume_centered=True).fit(x.numpy()).covariance_
    np.testing.assert_allclose(shrunk_covariance(x), expected, rtol=1e-10)
    assert not shrunk_covariance(torch.zeros(3, 2)).any()


def test_class_distance_is_mahalanobis_to_the_nearest_mean() -> None:
    x = normal(2, 300, 4) @ normal(3, 4, 4)
    classes = torch.arange(300) % 3 - 1
    x = x + 5.0 * normal(4, 3, 4)[classes]
    means = np.stack([x[classes == k].numpy().mean(axis=0) for k in (-1, 0, 1)])
    deviations = x.numpy() - means[classes.numpy() + 1]
    inverse = np.linalg.inv(LedoitWolf(assume_centered=True).fit(deviations).covariance_)
    new = normal(5, 20, 4)
    differences = new.numpy()[:, None] - means
    expected = np.sqrt(np.einsum("nki,ij,nkj->nk", differences, inverse, differences)).min(axis=1)
    np.testing.assert_allclose(ClassDistance.fit(x, classes).distance(new), expected, rtol=1e-8)


def test_neighbour_distance_is_that_of_a_tree() -> None:
    x, new = normal(6, 200, 3) * torch.tensor([1.0, 10.0, 0.1]), normal(7, 50, 3)
    scale = x.numpy().std(axis=0)
    expected = cKDTree(x.numpy() / scale).query(new.numpy() / scale, 5)[0][:, -1]
    found = NeighbourDistance.fit(x, k=5).distance(new)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert NeighbourDistance.fit(x[:4], k=5).distance(new).isfinite().all()


def test_folds_are_whole_clusters() -> None:
    clusters = torch.tensor([7, 3, 7, 9, 3])
    assert cluster_folds(clusters).tolist() == [1, 0, 1, 2, 0]
    assert cluster_folds(torch.zeros(3)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("n_axes", [7, 100])
def test_usual_is_what_maps_of_new_clusters_are(n_axes: int) -> None:
    """Also with nearly as many axes as maps, where those that were learned from are too near."""
    x, new = normal(8, 120, n_axes), normal(9, 500, n_axes)
    novelty = Novelty.fit({"features": x}, torch.arange(120) % 2, torch.arange(120), k=5)
    for gauge in novelty.gauges:
        scores = gauge.score(new)
        assert abs(float(scores.median())) < 0.7, type(gauge.measure)
        assert 0.6 < float(scores.std()) < 1.6


def test_maps_of_new_clusters_are_usual() -> None:
    """Of twelve maps that are alike none is the neighbour that a map of a new cluster has."""

    def clumps(seed: int) -> Tensor:
        return normal(seed, 60, 7).repeat_interleave(12, 0) + 0.15 * normal(seed + 1, 720, 7)

    clusters = torch.arange(60).repeat_interleave(12)
    novelty = Novelty.fit({"latent": clumps(20)}, torch.arange(720) % 4, clusters, k=5)
    (gauge,) = (g for g in novelty.gauges if isinstance(g.measure, NeighbourDistance))
    scores = gauge.score(clumps(30))
    assert abs(float(scores.median())) < 0.5
    assert 0.6 < float(scores.std()) < 1.6


def views(seed: int, n: int) -> dict[str, Tensor]:
    """Return features on a ring, and a latent in two clumps."""
    angle = 2 * np.pi * np.random.default_rng(seed).random(n)
    ring = torch.from_numpy(np.stack([np.cos(angle), np.sin(angle)], axis=1))
    latent = normal(seed + 1, n, 7)
    latent[::2, 1] += 8.0
    return {"features": ring + 0.05 * normal(seed + 2, n, 2), "latent": latent}


def test_false_alarms_are_as_rare_as_promised() -> None:
    rates = []
    for seed in range(0, 400, 10):
        classes = torch.arange(200) % 2
        novelty = Novelty.fit(views(seed, 200), classes, torch.arange(200), k=5)
        known, new = novelty.score(views(seed + 4, 100)), novelty.score(views(seed + 7, 200))
        limit = novelty_threshold(known, torch.arange(100), 0.05)
        rates.append(float((new > limit).double().mean()))
    error = np.std(rates) / len(rates) ** 0.5
    assert np.mean(rates) < 0.05 + 3 * error
    assert np.mean(rates) > 0.05 - 1 / 101 - 3 * error
    assert novelty_threshold(known[:10], torch.arange(10), 0.05) == np.inf


def test_each_distance_sees_what_the_other_misses() -> None:
    classes = torch.arange(400) % 2
    novelty = Novelty.fit(views(0, 400), classes, torch.arange(400), k=5)
    usual = views(50, 300)
    limit = novelty_threshold(novelty.score(usual), torch.arange(300), 0.05)
    hole = {"features": 0.1 * normal(9, 50, 2), "latent": usual["latent"][:50]}
    shifted = {"features": usual["features"], "latent": usual["latent"] + 6.0}
    between = {**usual, "latent": usual["latent"].clone()}
    between["latent"][:, 1] = 4.0
    for odd in (hole, shifted):
        assert (novelty.score(odd) > limit).double().mean() > 0.98
    assert (novelty.score(between) > limit).double().mean() > 0.3
    alone = {g.view + type(g.measure).__name__: (g.score(hole["features"]) > limit).sum()
             for g in novelty.gauges if g.view == "features"}  # fmt: skip
    assert alone["featuresClassDistance"] == 0
    assert alone["featuresNeighbourDistance"] == 50


def test_scores_do_not_depend_on_units_or_batches() -> None:
    first = views(3, 300)
    classes, clusters = torch.arange(300) % 2, torch.arange(300)
    new = views(6, 40)
    score = Novelty.fit(first, classes, clusters, k=5).score(new)
    scaled = Novelty.fit({k: 1e3 * v for k, v in first.items()}, classes, clusters, k=5)
    torch.testing.assert_close(scaled.score({k: 1e3 * v for k, v in new.items()}), score)
    one = Novelty.fit(first, classes, clusters, k=5).score({k: v[:1] for k, v in new.items()})
    torch.testing.assert_close(one, score[:1])
