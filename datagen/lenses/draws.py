"""Counter-based random numbers: each depends on (seed, index, component, counter) and no more.

The integers are those of SplitMix64 (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195), a
Weyl sequence under the finaliser Mix13 of Stafford (2011). Arithmetic on int64 wraps around alike
on every device, so that they are the same whatever the batch, its order, the worker or the device.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: step of the Weyl sequence
MIX_1, MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
# An odd step between the items of a component, unlike the one between the numbers of an item.
ITEM = 0xD1342543DE82EF95


def mix(z: Tensor) -> Tensor:
    """Return Stafford's Mix13 of the bits of `z`, int64 of any shape: a bijection."""
    z = (z ^ _shift(z, 30)) * _signed(MIX_1)
    z = (z ^ _shift(z, 27)) * _signed(MIX_2)
    return z ^ _shift(z, 31)


def splitmix64(state: Tensor, n: int) -> Tensor:
    """Return the first `n` numbers of SplitMix64 from each state.

    Args:
        state: Starting states, (B,) int64.
        n: Numbers per state.

    Returns:
        (B, n) int64 of uniform bits.
    """
    steps = torch.arange(1, n + 1, dtype=torch.int64, device=state.device) * _signed(GOLDEN)
    return mix(state[:, None] + steps)


@dataclass(frozen=True)
class Draws:
    """The random numbers of one component of many items.

    Args:
        seed: The run's seed, >= 0.
        index: Numbers of the items (images), (B,) int64; its device holds what is drawn.
        component: What is drawn, for example `"lens"` or `"noise"`.
    """

    seed: int
    index: Tensor
    component: str

    def integers(self, n: int) -> Tensor:
        """Return `n` times 64 uniform bits per item, (B, n) int64."""
        name = zlib.crc32(self.component.encode())
        key = _mixed(_mixed(self.seed & MASK) ^ name)
        return splitmix64(mix(self.index * _signed(ITEM) + _signed(key)), n)

    def uniform(self, n: int) -> Tensor:
        """Return `n` uniform numbers per item, (B, n) float64, never exactly 0 or 1."""
        # 52 bits: with 53 the largest number would be rounded to 1.
        return (_shift(self.integers(n), 12).double() + 0.5) * 2.0**-52

    def normal(self, n: int) -> Tensor:
        """Return `n` standard normal numbers per item, (B, n) float64."""
        numbers: Tensor = torch.special.ndtri(self.uniform(n))
        return numbers


def _shift(z: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros; the operator of int64 fills with the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """Return the int64 with the bits of an unsigned number."""
    return number - (1 << 64) if number >> 63 else number


def _mixed(number: int) -> int:
    """Return `mix` of a Python integer, as an unsigned number."""
    return int(mix(torch.tensor([_signed((number + GOLDEN) & MASK)]))[0]) & MASK
