"""In which precision losses and figures are computed, whatever a network runs in."""

from __future__ import annotations

import torch
from torch import Tensor


def precise(values: Tensor) -> Tensor:
    """Return values in single precision, or in double where they are."""
    return values if values.dtype == torch.float64 else values.float()


def double(values: Tensor) -> Tensor:
    """Return values in double precision, or in single on Apple's GPUs, which have no other."""
    return values.float() if values.device.type == "mps" else values.double()
