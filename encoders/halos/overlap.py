"""Overlap of sets in the latent space: the confidence of the reference method.

It says whether a whole set looks like a class that was trained on. It knows no threshold and says
nothing about a single map: `encoders.halos.novelty` does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import gaussian_kde

Numbers = NDArray[np.float64]
# Of the integral, and by how many bandwidths it goes beyond the outermost values.
N_STEPS = 512
MARGIN = 4.0
# Means that differ by a smaller share of the scatter are the same.
ROUNDING = 1e-9


def overlap(a: Numbers, b: Numbers) -> float:
    """Return `integral min(f, g) dx` of the densities of two samples, 0 to 1.

    Weitzman (1970); the densities are sums of Gaussians with Scott's bandwidths.

    Args:
        a: Sample (n,).
        b: Sample (m,).

    Returns:
        The overlap; NaN where a sample has fewer than two different values.
    """
    if min(len(np.unique(a)), len(np.unique(b))) < 2:
        return np.nan
    f, g = gaussian_kde(a), gaussian_kde(b)
    margin = MARGIN * max(float(kde.covariance[0, 0]) for kde in (f, g)) ** 0.5
    x = np.linspace(min(a.min(), b.min()) - margin, max(a.max(), b.max()) + margin, N_STEPS)
    return float(np.trapezoid(np.minimum(f(x), g(x)), x))


def projected(a: Numbers, b: Numbers) -> tuple[Numbers, Numbers]:
    """Return the places of two sets of points along the line between their means.

    Where the means are the same it is the line along which both together scatter most. Without
    axes all places are 0.

    Args:
        a: Points (n, D).
        b: Points (m, D).

    Returns:
        Places of a (n,) and of b (m,).
    """
    if not a.shape[1]:
        return np.zeros(len(a)), np.zeros(len(b))
    line, both = b.mean(axis=0) - a.mean(axis=0), np.concatenate([a, b])
    deviations = both - both.mean(axis=0)
    scatter = float((deviations**2).sum(axis=1).mean()) ** 0.5
    length = float(np.linalg.norm(line))
    if length > ROUNDING * scatter:
        direction = line / length
    else:
        direction = np.linalg.eigh(deviations.T @ deviations)[1][:, -1]
    return (a - a.mean(axis=0)) @ direction, (b - a.mean(axis=0)) @ direction


def overlap_with_classes(
    latent: Numbers, known: Numbers, classes: NDArray[np.int64]
) -> dict[int, float]:
    """Return how much a set overlaps with each known class, without the axis of the cross-section.

    The largest one is the confidence that the set is of the kind that was trained on.

    Args:
        latent: z of the set (n, D); axis 0 is the scaled cross-section and is left out.
        known: z of maps of known class (m, D).
        classes: Their classes (m,); -1 is none.

    Returns:
        Overlap by class.
    """
    return {
        int(label): overlap(*projected(latent[:, 1:], known[classes == label, 1:]))
        for label in np.unique(classes)
        if label >= 0
    }
