"""Reads the small published tables that the package carries in ``tables/``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
FloatLike = FloatArray | float | Sequence[float]
TABLES = Path(__file__).parent / "tables"


@cache
def load_table(name: str) -> NDArray[np.void]:
    """Read ``tables/<name>.ecsv`` as a structured array; its header holds units and citation."""
    # numpy takes a tenth of the time that astropy needs, but would read names from the comments
    lines = (TABLES / f"{name}.ecsv").read_text().splitlines()
    table: NDArray[np.void] = np.genfromtxt([s for s in lines if s[0] != "#"], names=True)
    return table


def interp(x: FloatLike, xp: FloatLike, fp: FloatLike) -> FloatArray:
    """`numpy.interp` that gives an array for a number too."""
    return np.asarray(np.interp(x, xp, fp), np.float64)


def interpolate(name: str, column: str, z: FloatArray | float) -> FloatArray:
    """Interpolate a column linearly in redshift; constant beyond the ends of the table."""
    table = load_table(name)
    return interp(z, table["z"], table[column])
