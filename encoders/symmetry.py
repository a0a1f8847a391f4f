"""What the fields of a group are made of: their norms, activations and invariants.

Every module here takes and returns ordinary tensors (B, C, H, W) and acts on each place alone.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from datagen.errors import ConfigError
from encoders.e2cnn_compat import enn, gspaces
from encoders.equivariant import SteerableConv
from encoders.residual import ConvNorm, Fields, RunningNorm, affine_of

# Highest rotation frequency of the fields of SO(2) and O(2).
MAX_FREQUENCY = 3
GROUPS = "C1, C2, ..., C99; D1, D2, ..., D99 (with flips); SO2; O2 (with flips)"
# What other programs call these groups.
WORDS = {
    "circular": "; Circular with N = 8 is C8 here",
    "cyclic": "; the cyclic group of 8 rotations is C8 here",
    "dihedral": "; Dihedral with N = 8 is D8 here",
}
# As torch's batch normalisation.
MOMENTUM, EPSILON = 0.1, 1e-5


class GroupFields(Fields):
    """Fields that a group acts on.

    Args:
        space: The plane with the group.
        size: Channels of a field.
    """

    def __init__(self, space: Any, size: int) -> None:  # noqa: ANN401 - e2cnn ships no types
        self.space, self.size = space, size

    def lift(self, n_in: int, n_out: int, kernel: int, stride: int = 1, **more: int) -> nn.Module:
        """Return a convolution from `n_in` scalar channels; see `SteerableConv`."""
        scalars = enn.FieldType(self.space, [self.space.trivial_repr] * n_in)
        return SteerableConv(scalars, self.kind(n_out), kernel, stride, **more)

    def conv(self, n_in: int, n_out: int, kernel: int, stride: int = 1, **more: int) -> nn.Module:
        """Return a convolution from `n_in` to `n_out` fields; see `SteerableConv`."""
        return SteerableConv(self.kind(n_in), self.kind(n_out), kernel, stride, **more)

    def nearest(self, channels: Sequence[int]) -> list[int]:
        """Return how many fields, at least one, come nearest to each number of channels."""
        return [max(round(n / self.size), 1) for n in channels]

    @abstractmethod
    def kind(self, n: int) -> Any:  # noqa: ANN401 - e2cnn ships no types
        """Return e2cnn's type of `n` fields, equal representations together."""


class RegularFields(GroupFields):
    """Fields of a finite group: one channel per element, which the group permutes.

    Args:
        space: The plane with the group that acts on it.
    """

    def __init__(self, space: Any) -> None:  # noqa: ANN401 - e2cnn ships no types
        super().__init__(space, int(space.fibergroup.order()))

    def norm(self, n: int) -> nn.Module:
        """Return the batch normalisation of `n` fields."""
        return FieldNorm(n, self.size)

    def activation(self, n: int) -> nn.Module:
        """Return the nonlinearity of `n` fields."""
        return nn.ReLU(inplace=True)

    def invariants(self, n: int) -> nn.Module:
        """Return what makes `n (1 + size)` channels that the group leaves alone."""
        scalars = enn.FieldType(self.space, [self.space.trivial_repr] * (n * self.size))
        mixed = ConvNorm(SteerableConv(self.kind(n), scalars, 1), nn.BatchNorm2d(n * self.size))
        return Invariants(GroupPool(self.size), nn.Sequential(mixed, nn.ReLU(inplace=True)))

    def n_invariants(self, n: int) -> int:
        """Return how many channels `invariants` makes."""
        return n * (1 + self.size)

    def kind(self, n: int) -> Any:  # noqa: ANN401 - e2cnn ships no types
        """Return the type of `n` fields."""
        return enn.FieldType(self.space, [self.space.regular_repr] * n)


class IrrepFields(GroupFields):
    """Fields of SO(2) or O(2): a scalar, and vectors that turn 1 to 3 times as fast as the image.

    Args:
        space: The plane with the group that acts on it.
    """

    def __init__(self, space: Any) -> None:  # noqa: ANN401 - e2cnn ships no types
        super().__init__(space, 1 + 2 * MAX_FREQUENCY)

    def norm(self, n: int) -> nn.Module:
        """Return the batch normalisation of `n` fields."""
        return IrrepNorm(n)

    def activation(self, n: int) -> nn.Module:
        """Return the nonlinearity of `n` fields."""
        return Gate(n)

    def invariants(self, n: int) -> nn.Module:
        """Return what makes `4 n` channels that the group leaves alone."""
        return Norms(n)

    def n_invariants(self, n: int) -> int:
        """Return how many channels `invariants` makes."""
        return n * (1 + MAX_FREQUENCY)

    def kind(self, n: int) -> Any:  # noqa: ANN401 - e2cnn ships no types
        """Return the type of `n` fields."""
        has_flips = isinstance(self.space, gspaces.FlipRot2dOnR2)
        name = (lambda k: (1, k)) if has_flips else (lambda k: (k,))
        vectors = [self.space.irrep(*name(k)) for k in range(1, MAX_FREQUENCY + 1)]
        kinds = [self.space.trivial_repr, *vectors]
        return enn.FieldType(self.space, [kind for kind in kinds for _ in range(n)])


class FieldNorm(nn.Module):
    """Batch normalisation with one mean and variance per field of permuted channels.

    Args:
        n_fields: Number of fields.
        size: Channels of a field, the order of the group.
    """

    def __init__(self, n_fields: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.norm = nn.BatchNorm1d(n_fields)

    def forward(self, fields: Tensor) -> Tensor:
        """Return normalised fields of the same shape (B, n_fields size, H, W)."""
        flat = fields.reshape(fields.shape[0], self.norm.num_features, -1)
        normed: Tensor = self.norm(flat).view(fields.shape)
        return normed

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return the scale and shift of every channel at evaluation (C,)."""
        scale, shift = affine_of(self.norm)
        return scale.repeat_interleave(self.size), shift.repeat_interleave(self.size)


class VectorNorm(RunningNorm):
    """Divides fields of two channels that rotate into each other by their root mean square.

    There is no mean to subtract: a vector field has none that rotations leave alone.

    Args:
        n_fields: Number of fields.
    """

    mean_square: Tensor

    def __init__(self, n_fields: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_fields))
        self.register_buffer("mean_square", torch.ones(n_fields))

    def forward(self, fields: Tensor) -> Tensor:
        """Return normalised fields of the same shape (B, 2 n_fields, H, W)."""
        vectors = split(fields, 2)
        mean_square = self.mean_square
        if self.training:
            mean_square = vectors.float().square().mean((0, 2, 3, 4))
            with torch.no_grad():
                self.mean_square.lerp_(mean_square, MOMENTUM)
        scale = self.weight * (mean_square + EPSILON).rsqrt()
        return fields * scale.repeat_interleave(2)[:, None, None].to(fields.dtype)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return the scale and shift of every channel at evaluation (C,)."""
        scale = (self.weight * (self.mean_square + EPSILON).rsqrt()).repeat_interleave(2)
        return scale, torch.zeros_like(scale)


class IrrepNorm(nn.Module):
    """Batch normalisation of the scalars, `VectorNorm` of the vectors.

    Args:
        n_fields: Number of fields.
    """

    def __init__(self, n_fields: int) -> None:
        super().__init__()
        self.n_fields = n_fields
        self.scalars = nn.BatchNorm2d(n_fields)
        self.vectors = VectorNorm(MAX_FREQUENCY * n_fields)

    def forward(self, fields: Tensor) -> Tensor:
        """Return normalised fields of the same shape (B, 7 n_fields, H, W)."""
        scalars, vectors = fields.tensor_split([self.n_fields], dim=1)
        return torch.cat((self.scalars(scalars), self.vectors(vectors)), dim=1)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return the scale and shift of every channel at evaluation (C,)."""
        parts = zip(affine_of(self.scalars), self.vectors.affine(), strict=True)
        scale, shift = (torch.cat(part) for part in parts)
        return scale, shift


class Gate(nn.Module):
    """ReLU of the scalars; every vector is multiplied by a sigmoid of its field's scalar.

    Args:
        n_fields: Number of fields.
    """

    def __init__(self, n_fields: int) -> None:
        super().__init__()
        self.n_fields = n_fields
        self.slope = nn.Parameter(torch.ones(MAX_FREQUENCY, n_fields, 1, 1))
        self.offset = nn.Parameter(torch.zeros(MAX_FREQUENCY, n_fields, 1, 1))

    def forward(self, fields: Tensor) -> Tensor:
        """Return fields of the same shape (B, 7 n_fields, H, W)."""
        scalars, vectors = fields.tensor_split([self.n_fields], dim=1)
        gates = torch.sigmoid(self.slope * scalars[:, None] + self.offset)
        gated = split(vectors, 2) * gates.flatten(1, 2)[:, :, None]
        return torch.cat((relu(scalars), gated.flatten(1, 2)), dim=1)


class Norms(nn.Module):
    """Scalars, and the lengths of vectors.

    Args:
        n_fields: Number of fields.
    """

    def __init__(self, n_fields: int) -> None:
        super().__init__()
        self.n_fields = n_fields

    def forward(self, fields: Tensor) -> Tensor:
        """Return (B, 4 n_fields, H, W) for fields (B, 7 n_fields, H, W)."""
        scalars, vectors = fields.tensor_split([self.n_fields], dim=1)
        squares = split(vectors, 2).square().sum(dim=2)
        # The gradient of a root is infinite at 0.
        return torch.cat((scalars, (squares + EPSILON).sqrt()), dim=1)


class Invariants(nn.Module):
    """Several kinds of channels that the group leaves alone, side by side.

    Maxima over fields alone would leave few channels: those of the network over the group's order.

    Args:
        kinds: Each makes (B, C_i, H, W) of fields (B, C, H, W).
    """

    def __init__(self, *kinds: nn.Module) -> None:
        super().__init__()
        self.kinds = nn.ModuleList(kinds)

    def forward(self, fields: Tensor) -> Tensor:
        """Return (B, sum C_i, H, W) for fields (B, C, H, W)."""
        return torch.cat([kind(fields) for kind in self.kinds], dim=1)


class GroupPool(nn.Module):
    """Maximum over the channels of each field, which the group only permutes.

    Args:
        size: Channels of a field.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, fields: Tensor) -> Tensor:
        """Return (B, C / size, H, W) for fields (B, C, H, W)."""
        return split(fields, self.size).amax(dim=2)


def split(fields: Tensor, size: int) -> Tensor:
    """Return fields (B, n size, H, W) as (B, n, size, H, W)."""
    n_images, n_channels, *sides = fields.shape
    return fields.reshape(n_images, n_channels // size, size, *sides)


def fields_of(group: str, name: str = "group") -> RegularFields | IrrepFields:
    """Return the fields of a group of rotations (C, SO2), or of rotations and flips (D, O2).

    Args:
        group: C or D and the number of rotations, SO2 or O2.
        name: What users know it as, for messages.

    Raises:
        ConfigError: There is no such group.
    """
    if group in ("SO2", "O2"):
        plane = gspaces.FlipRot2dOnR2 if group == "O2" else gspaces.Rot2dOnR2
        return IrrepFields(plane(N=-1, maximum_frequency=2 * MAX_FREQUENCY))
    if not re.fullmatch(r"[CD][1-9]\d?", group):
        hint = next((text for word, text in WORDS.items() if group.lower().startswith(word)), "")
        message = f"expected {name} to be one of {GROUPS}, but got {group!r}{hint}"
        raise ConfigError(message, group, GROUPS)
    kind, order = group[0], int(group[1:])
    if order == 1:
        return RegularFields(gspaces.Flip2dOnR2() if kind == "D" else gspaces.TrivialOnR2())
    plane = gspaces.FlipRot2dOnR2 if kind == "D" else gspaces.Rot2dOnR2
    return RegularFields(plane(N=order))
