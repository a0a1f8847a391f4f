"""e2cnn 0.2.3 on the numpy and torch that are installed."""

from __future__ import annotations

import importlib
import warnings
from importlib.metadata import version

import numpy as np
import pytest
import torch
from e2cnn.group.groups import o2group
from e2cnn.kernels import utils as kernel_utils

from encoders import e2cnn_compat
from encoders.e2cnn_compat import REPAIRED, enn, gspaces


def planes() -> list[gspaces.GSpace]:
    rotations = [gspaces.Rot2dOnR2(n) for n in (2, 3, 4, 8)]
    flips = [gspaces.FlipRot2dOnR2(n) for n in (2, 3, 4, 8)]
    circles = [
        plane(-1, maximum_frequency=2) for plane in (gspaces.Rot2dOnR2, gspaces.FlipRot2dOnR2)
    ]
    return [gspaces.TrivialOnR2(), gspaces.Flip2dOnR2(), *rotations, *flips, *circles]


@pytest.mark.parametrize("plane", planes(), ids=lambda plane: plane.name)
def test_every_group_builds_and_convolves(plane: gspaces.GSpace) -> None:
    representations = list(plane.fibergroup.irreps.values())
    if plane.fibergroup.order() > 0:
        representations.append(plane.regular_repr)
    kind = enn.FieldType(plane, representations)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "indexing with dtype torch.uint8")
        layer = enn.R2Conv(kind, kind, 5, padding=2)
    out = layer(enn.GeometricTensor(torch.randn(1, kind.size, 9, 9), kind))
    assert out.tensor.isfinite().all()
    assert out.tensor.std() > 0


def test_o2_induces_from_rotations() -> None:
    # The place where e2cnn asks for numpy.float.
    plane = gspaces.FlipRot2dOnR2(-1, maximum_frequency=2)
    rotations, *_ = plane.fibergroup.subgroup((None, -1))
    induced = plane.induced_repr((None, -1), rotations.irrep(1))
    flip = induced((1, 0.0))
    np.testing.assert_allclose(flip @ flip, np.eye(4), atol=1e-12)


@pytest.mark.skipif(version("e2cnn") != REPAIRED, reason="other releases are left alone")
def test_importing_twice_changes_nothing() -> None:
    importlib.reload(e2cnn_compat)
    importlib.reload(e2cnn_compat)
    assert kernel_utils.np.array is not np.array
    assert kernel_utils.np.pi == np.pi
    assert o2group.np.float is float
    # Only e2cnn's own modules see what was mended.
    assert not hasattr(np, "float")


def test_arrays_are_copied_only_where_they_must_be() -> None:
    numbers = np.arange(3.0)
    assert np.shares_memory(kernel_utils.np.array(numbers, copy=False), numbers)
    assert not np.shares_memory(kernel_utils.np.array(numbers), numbers)
    assert kernel_utils.np.array(2, copy=False).shape == ()
