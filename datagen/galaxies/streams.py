"""The random streams of a suite, one for each object and component, and what is drawn from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from datagen.distributions import Distribution
from datagen.seeds import stream

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Streams:
    """Streams that depend on nothing but seed, set of objects, object and component.

    Args:
        seed: Of the run, >= 0.
        realization: Which set of objects.
    """

    seed: int
    realization: int

    def __call__(self, number: int, component: str) -> np.random.Generator:
        """Return the generator of one component of one object."""
        return stream(self.seed, number, f"{component}_{self.realization}")

    def uniform(self, numbers: Numbers, component: str, count: int) -> Array:
        """Return `count` uniform numbers of each object, (count, n)."""
        return np.stack([self(int(k), component).random(count) for k in numbers], axis=-1)

    def rotation(self, number: int, projection: int) -> Array:
        """Draw a rotation from an object's own axes to the sky (x, y) and depth, (3, 3)."""
        return rotation(self(number, f"projection_{projection}"))


def rotation(rng: np.random.Generator) -> Array:
    """Draw a random rotation, (3, 3)."""
    found: Array = Rotation.from_quat(rng.standard_normal(4)).as_matrix()
    return found


def quantile(distribution: Distribution, u: Array) -> Array:
    """Return the values below which a distribution has the shares u."""
    found: Array = distribution.quantile(torch.from_numpy(np.ascontiguousarray(u))).numpy()
    return found
