"""Probes against scikit-learn and a slow search."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import mode
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from datagen.errors import ConfigError
from encoders.galaxies.probes import KNNProbe, RidgeProbe, folds_of

N, D, K = 80, 6, 5
FIELDS = ["z", "merger_time", "kind"]


def stamps(n_projections: int) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, objects and labels; projections of an object lie near each other."""
    generator = torch.Generator().manual_seed(n_projections)
    objects = torch.arange(N) // n_projections
    x = torch.randn(N, D, generator=generator)[objects]
    x = x + (n_projections > 1) * 0.1 * torch.randn(N, D, generator=generator)
    x = x * torch.tensor([1.0, 30.0, 0.2, 1.0, 5.0, 1.0]) + 3.0
    z = x[:, 0] - x[:, 2] + 0.3 * torch.randn(N, generator=generator)[objects]
    time = x[:, 1].abs()
    time[objects % 3 == 0] = torch.nan
    kind = (x[:, 0] > 2.5).float() + (x[:, 4] > 4.0).float()
    return x, objects, torch.stack((z, time, kind), dim=1)


def knn(x: Tensor, objects: Tensor, labels: Tensor) -> dict[str, float]:
    probe = KNNProbe(FIELDS, ["kind"], K)
    for part in torch.arange(len(x)).split(11):
        probe.update(x[part], objects[part], part, labels[part])
    return {name: float(value) for name, value in probe.compute().items()}


def test_neighbours_predict_as_in_scikit_learn() -> None:
    x, objects, labels = stamps(1)
    found = knn(x, objects, labels)
    scaled = StandardScaler().fit_transform(x.double().numpy())
    for column, name in enumerate(FIELDS):
        known = np.isfinite(labels[:, column].numpy())
        y = labels[known, column].double().numpy()
        # Without queries, no row is its own neighbour.
        places = NearestNeighbors(n_neighbors=K).fit(scaled[known]).kneighbors()[1]
        expected = r2_score(y, y[places].mean(axis=1))
        assert found[f"knn_r2_{name}"] == pytest.approx(expected, rel=1e-6)
    is_right = mode(y[places], axis=1).mode == y
    assert found["knn_accuracy_kind"] == pytest.approx(is_right.mean(), rel=1e-6)
    assert set(found) == {*(f"knn_r2_{name}" for name in FIELDS), "knn_accuracy_kind"}


def slow_knn(x: NDArray[np.float64], objects: NDArray[np.int64], y: NDArray[np.float64]) -> float:
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    known, guesses = [i for i in range(len(y)) if np.isfinite(y[i])], []
    for i in known:
        others = [j for j in known if objects[j] != objects[i]]
        others.sort(key=lambda j: float(((scaled[j] - scaled[i]) ** 2).sum()))
        guesses.append(np.mean([y[j] for j in others[:K]]))
    truth = y[known]
    return float(1 - ((guesses - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())


def test_projections_of_an_object_do_not_predict_each_other() -> None:
    x, objects, labels = stamps(4)
    found = knn(x, objects, labels)
    for column, name in enumerate(FIELDS):
        y = labels[:, column].double().numpy()
        expected = slow_knn(x.double().numpy(), objects.numpy(), y)
        assert found[f"knn_r2_{name}"] == pytest.approx(expected, rel=1e-6)
    # Labels without relation to the rest: an object's own projections would know them.
    noise = torch.randn(N, 3, generator=torch.Generator().manual_seed(1))[objects]
    assert knn(x, objects, noise)["knn_r2_z"] < 0.2
    assert knn(x, torch.arange(N), noise)["knn_r2_z"] > 0.5


def test_few_objects_and_unknown_labels_make_no_figures() -> None:
    x, objects, labels = stamps(4)
    assert all(np.isnan(value) for value in knn(x[:4], objects[:4], labels[:4]).values())
    labels[:, 0] = torch.nan
    labels[:, 1] = 0.3
    found = knn(x[:12], objects[:12], labels[:12])
    assert np.isnan(found["knn_r2_z"])
    assert np.isnan(found["knn_r2_merger_time"])
    # Fewer neighbours than asked for: one other object with three stamps.
    assert np.isfinite(knn(x[1:8], objects[1:8], labels[1:8])["knn_accuracy_kind"])


def ridge(x: Tensor, objects: Tensor, labels: Tensor, n_folds: int = 3) -> dict[str, float]:
    probe = RidgeProbe(FIELDS, x.shape[1], 0.7, n_folds)
    for part in torch.arange(len(x)).split(11):
        probe.update(x[part], objects[part], labels[part])
    return {name: float(value) for name, value in probe.compute().items()}


@pytest.mark.parametrize("n_folds", [2, 3])
def test_linear_probe_is_that_of_scikit_learn(n_folds: int) -> None:
    x, objects, labels = stamps(2)
    # A dead dimension, and two that are nearly the same.
    x = torch.cat((x, torch.full((N, 1), 0.1), x[:, :1] + 1e-4 * x[:, 3:4]), dim=1)
    found = ridge(x, objects, labels, n_folds)
    folds = folds_of(objects, n_folds).numpy()
    for column, name in enumerate(FIELDS):
        known = np.isfinite(labels[:, column].numpy())
        rows, y = x[known].double().numpy(), labels[known, column].double().numpy()
        guess = np.zeros(len(y))
        for fold in range(n_folds):
            is_held = folds[known] == fold
            model = make_pipeline(StandardScaler(), Ridge(0.7))
            guess[is_held] = model.fit(rows[~is_held], y[~is_held]).predict(rows[is_held])
        assert found[f"ridge_r2_{name}"] == pytest.approx(r2_score(y, guess), rel=1e-6)


def test_folds_are_even_and_keep_objects_together() -> None:
    objects = torch.arange(0, 3_000_000, 1000)
    counts = collections.Counter(folds_of(objects, 2).tolist())
    assert set(counts) == {0, 1}
    assert abs(counts[0] - 1500) < 150
    assert torch.equal(folds_of(objects, 2), folds_of(objects.clone(), 2))
    assert set(folds_of(-objects, 5).tolist()) == set(range(5))


def test_a_fold_without_stamps_makes_no_figure() -> None:
    x, objects, labels = stamps(4)
    assert all(np.isnan(value) for value in ridge(x[:4], objects[:4], labels[:4]).values())


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="among its fields z, merger_time, kind"):
        KNNProbe(FIELDS, ["is_quenched"], K)
    with pytest.raises(ConfigError, match="n_neighbours = 0"):
        KNNProbe(FIELDS, [], 0)
    with pytest.raises(ConfigError, match=r"penalty = 0\.0, n_folds = 2"):
        RidgeProbe(FIELDS, D, 0.0, 2)
