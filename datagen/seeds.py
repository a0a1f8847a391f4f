"""Independent random streams, one for each (seed, index, component).

A stream depends on nothing else: not on the number of workers, the order of jobs or how many
files are asked for.
"""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, index: int, component: str) -> np.random.Generator:
    """Return the generator of one component of one item.

    Args:
        seed: The run's seed, >= 0.
        index: The item's number (field, survey tile, sample), >= 0.
        component: What is drawn, for example `"members"` or `"noise_g"`.
    """
    return np.random.Generator(np.random.PCG64(_sequence(seed, index, component)))


def stream_seed(seed: int, index: int, component: str) -> int:
    """Return the 63-bit seed of the same stream, for generators other than numpy's."""
    return int(_sequence(seed, index, component).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _sequence(seed: int, index: int, component: str) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(index, zlib.crc32(component.encode())))
