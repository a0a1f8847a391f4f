"""How fast cluster maps are simulated, and how much their radial profiles alone tell of sigma/m.

`python benchmarks/halos.py` prints the speed of `data_gen=halos` on one core, and the accuracy of a
linear discriminant analysis (LDA) of radial profiles on maps of clusters that it has not seen: what
a network must beat. Clusters, not maps, are split, 64 : 16 : 20; the second part chooses how much
the covariance is shrunk.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from datagen.halos.settings import HaloSettings, halo_settings
from datagen.halos.simulate import Made, Simulator

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]

SHARES = (0.64, 0.16, 0.20)
SHRINKAGES = (0.0, 1e-4, 1e-3, 1e-2, 0.1)
N_RINGS = 20


def main() -> None:
    """Simulate, classify, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n-clusters", type=int, default=200, help="12 maps each")
    parser.add_argument("--side", type=int, default=50, help="of a map of 2 Mpc [px]")
    parser.add_argument("--suite", default="a")
    parser.add_argument("--seeds", type=int, default=5, help="splits over which accuracies scatter")
    options = parser.parse_args()
    settings = suite(options.suite, options.side)
    start = time.process_time()
    made = simulate(settings, options.n_clusters)
    seconds = time.process_time() - start
    print(f"{len(made.maps)} maps of {options.side}^2, halo={options.suite}")
    print(f"{'maps per CPU-s':32} {len(made.maps) / seconds:8.1f}")
    truth = made.truth
    for channels in (("mass",), ("mass", "stars"), ("mass", "xray", "stars")):
        places = [settings.imaging.channels.index(name) for name in channels]
        features = profiles(made.maps[:, places])
        sigma = np.asarray(settings.cross_sections)
        labels = np.searchsorted(sigma, truth["CROSS_SECTION"]).astype(np.int64)
        found = [
            lda_accuracy(features, labels, truth["CLUSTER"].astype(np.int64), seed)
            for seed in range(options.seeds)
        ]
        label = f"LDA on profiles of {', '.join(channels)}"
        print(f"{label:44} {np.mean(found):6.3f} +- {np.std(found):.3f}")


def suite(name: str, side: int) -> HaloSettings:
    """Return a suite of `conf/halo` with maps of so many pixels across 2 Mpc."""
    folder = Path(__file__).resolve().parents[1] / "conf" / "halo"
    files = [OmegaConf.load(folder / f"{stem}.yaml") for stem in ("a", name)]
    imaging = {"imaging": {"side": side, "pixel_scale": 2000.0 / side}}
    values = OmegaConf.to_container(OmegaConf.merge(*files, imaging))
    assert isinstance(values, dict)
    values.pop("defaults", None)
    return halo_settings({str(key): value for key, value in values.items()})


def simulate(settings: HaloSettings, n_clusters: int, n_projections: int = 3) -> Made:
    """Simulate clusters, a few at a time."""
    simulator = Simulator(settings, 0, n_projections)
    made = [simulator(np.arange(k, min(k + 20, n_clusters))) for k in range(0, n_clusters, 20)]
    truth = {name: np.concatenate([m.truth[name] for m in made]) for name in made[0].truth}
    return Made(np.concatenate([m.maps for m in made]), truth)


def profiles(maps: NDArray[np.float32], n_rings: int = N_RINGS) -> Array:
    """Return the mean of log10 in rings around the centre, (n, channels * rings).

    Rings have widths that grow outwards, so that the centre counts as much as the outskirts.

    Args:
        maps: Positive maps, (n, channels, side, side).
        n_rings: Number of rings out to half the side.
    """
    side = maps.shape[-1]
    axis = np.arange(side) - 0.5 * (side - 1)
    radius = np.hypot(*np.meshgrid(axis, axis))
    edges = np.unique(np.geomspace(1.0, 0.5 * side, n_rings).round(1))
    ring = np.searchsorted(edges, radius)
    logs = np.log10(maps.reshape(*maps.shape[:2], -1))
    masks = [(ring == k).ravel() for k in range(len(edges)) if (ring == k).any()]
    found = np.stack([logs[..., mask].mean(-1) for mask in masks], -1)
    return found.reshape(len(maps), -1).astype(float)


def lda_accuracy(features: Array, labels: Numbers, groups: Numbers, seed: int) -> float:
    """Return the share of test maps whose class an LDA finds.

    Args:
        features: (n, d).
        labels: Classes 0 and on, (n,).
        groups: Cluster of each map; no cluster is in two parts, (n,).
        seed: Of the split.
    """
    test = split(groups, seed)[2]
    answers = lda_answers(features, labels, groups, seed, features[test])
    return float((answers == labels[test]).mean())


def lda_answers(
    features: Array, labels: Numbers, groups: Numbers, seed: int, asked: Array
) -> Numbers:
    """Return the classes of other maps, from an LDA whose shrinkage the validation maps choose.

    Args:
        features: (n, d).
        labels: Classes 0 and on, (n,).
        groups: Cluster of each map, (n,).
        seed: Of the split.
        asked: Features of the other maps, (m, d).
    """
    train, val, _ = split(groups, seed)
    known = features[train], labels[train]
    right = [(lda(*known, features[val], c) == labels[val]).mean() for c in SHRINKAGES]
    return lda(*known, asked, SHRINKAGES[int(np.argmax(right))])


def split(groups: Numbers, seed: int) -> list[NDArray[np.bool_]]:
    """Return masks of training, validation and test maps, (n,) each; groups stay together."""
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    ends = np.round(np.cumsum(SHARES) * len(names)).astype(int)
    parts = np.split(names, ends[:-1])
    return [np.isin(groups, part) for part in parts]


def lda(features: Array, labels: Numbers, asked: Array, shrinkage: float) -> Numbers:
    """Return the likeliest class of each row of `asked`, for Gaussian classes of one covariance.

    Args:
        features: Training set, (n, d).
        labels: Its classes, (n,).
        asked: (m, d).
        shrinkage: Share of the covariance that is replaced by a multiple of the unit matrix.
    """
    scale = features.std(0) + 1e-12
    x, asked = features / scale, asked / scale
    classes: Sequence[int] = np.unique(labels).tolist()
    means = np.stack([x[labels == c].mean(0) for c in classes])
    rest = x - means[np.searchsorted(classes, labels)]
    covariance = rest.T @ rest / len(x)
    covariance = (1 - shrinkage) * covariance + (shrinkage + 1e-9) * np.eye(len(covariance))
    weights = np.linalg.solve(covariance, means.T)
    scores = asked @ weights - 0.5 * (means.T * weights).sum(0)
    answers: Numbers = np.asarray(classes)[scores.argmax(-1)]
    return answers


if __name__ == "__main__":
    main()
