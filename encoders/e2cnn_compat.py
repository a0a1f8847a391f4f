"""Lets e2cnn 0.2.3 run on present numpy and torch; import e2cnn from here.

That release, the last one, uses what has been removed since: `np.float` (numpy 1.24; O(2)),
`np.array(x, copy=False)` where a copy is due (2.0; SO(2), O(2) and dihedral groups),
`ndarray.tostring` (2.3; the same and flips), and masks of bytes (torch 2; O(2), and warnings
elsewhere). What replaces them works on older releases too, and importing twice changes nothing.
Other releases of e2cnn are left alone.
"""

from __future__ import annotations

from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np
import torch
from e2cnn import gspaces
from e2cnn import nn as enn
from e2cnn.group.groups import o2group
from e2cnn.kernels import irreps_basis
from e2cnn.kernels import utils as kernel_utils
from e2cnn.nn.modules.r2_conv import basisexpansion_singleblock as single_block

__all__ = ["REPAIRED", "enn", "gspaces"]

REPAIRED = "0.2.3"


class _Patched(ModuleType):
    """A module in which some names mean something else, for one importer alone."""

    def __init__(self, module: ModuleType, **names: object) -> None:
        super().__init__(module.__name__)
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module has
        return getattr(self._module, name)


def _array(values: Any, copy: bool = True) -> Any:  # noqa: ANN401 - as numpy's
    """Copy only where it must, as `copy=False` meant in numpy 1."""
    return np.array(values) if copy else np.asarray(values)


def _hash(basis: Any) -> int:  # noqa: ANN401 - e2cnn ships no types
    """Hash a kernel basis by its irreps and the bytes of its frequencies and phases."""
    arrays = (np.asarray(values).tobytes() for values in (basis.mu, basis.gamma))
    return hash((basis.in_irrep, basis.out_irrep, *arrays))


def _repair() -> None:
    o2group.np = _Patched(np, float=float)
    kernel_utils.np = _Patched(np, array=_array)
    single_block.np = _Patched(np, uint8=np.bool_)
    single_block.torch = _Patched(torch, uint8=torch.bool)
    for name in (
        "Flips",
        "ContinuousRotations",
        "FlipsDiscreteRotations",
        "FlipsContinuousRotations",
    ):
        getattr(irreps_basis, f"R2{name}Solution").__hash__ = _hash


if version("e2cnn") == REPAIRED:
    _repair()
