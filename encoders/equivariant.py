"""Steerable convolutions of e2cnn as ordinary modules, and what stands between them.

e2cnn's own convolution keeps its expanded filter as a buffer, which `eval()` writes and `train()`
deletes: checkpoints may carry filters of other weights, a load in evaluation mode has no effect,
and what was in evaluation mode cannot be copied or trained further; bases are shared by all
networks of a process. Here a convolution has coefficients and its own copy of the basis. Filters
are never stored: no order of loading, evaluating and training matters.

References: Weiler & Cesa 2019, "General E(2)-Equivariant Steerable CNNs", arXiv:1911.08251.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from encoders.e2cnn_compat import enn, gspaces

# Width of a ring of a filter [px]: little of it lies on the pixels of the next one.
RING_WIDTH = 0.4
# Share of a tensor outside the span of others below which it counts as one of them.
DEPENDENT = 1e-4
# Norm below which a tensor is nothing but rounding.
TINY = 1e-9


class SteerableConv(nn.Module):
    """Convolution whose filters are linear combinations of a basis of steerable kernels.

    `filter = sum_i weights_i basis_i` with an orthonormal basis for each pair of representations,
    the most general convolution between the two types of fields (Weiler & Cesa 2019). For turns
    that take pixels to pixels that is every filter with the symmetry, as in group convolutions
    (Cohen & Welling 2016, arXiv:1602.07576); for other angles e2cnn's limits on angular frequencies
    keep the errors of sampling small, and leave 11 of 25 dimensions to a 5 x 5 filter of scalars.
    The sum is formed in every forward pass, in full precision under autocast as well; it costs
    little beside the convolution.

    Coefficients begin as normal numbers such that filters have the variance 2 / fan-in (He et al.
    2015, arXiv:1502.01852).

    Args:
        in_type: Fields of the input; equal representations stand together.
        out_type: Fields of the output, likewise.
        kernel_size: Side of the filters [px], odd.
        stride: Stride [px].
        padding: Zeros around the image [px]; by default the side is kept.
    """

    basis_print: Tensor

    def __init__(
        self,
        in_type: enn.FieldType,
        out_type: enn.FieldType,
        kernel_size: int,
        stride: int = 1,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = int(in_type.size), int(out_type.size)
        self.kernel_size, self.stride = kernel_size, stride
        self.padding = kernel_size // 2 if padding is None else padding
        on_lattice = quarter_turns(in_type.gspace)
        more = lattice_options(kernel_size) if on_lattice else {}
        layer = enn.R2Conv(in_type, out_type, kernel_size, bias=False, initialize=False, **more)
        self._blocks, weights = list(_blocks(layer.basisexpansion)), []
        for i, block in enumerate(self._blocks):
            basis = orthonormal(block.pop("basis"))
            if on_lattice:
                basis = pixel_basis(basis)
            # Not in checkpoints: it follows from the types.
            self.register_buffer(f"basis_{i}", basis, persistent=False)
            n_pairs = basis.shape[1] * basis.shape[2]
            variance = 2.0 * n_pairs / len(basis) / self.in_channels
            n_weights = len(basis) * math.prod(block["fields"])
            weights.append(math.sqrt(variance) * torch.randn(n_weights))
            first = sum(map(len, weights[:-1]))
            block["weights"] = slice(first, first + n_weights)
        self.weights = nn.Parameter(torch.cat(weights))
        self.register_buffer("basis_print", self._print())

    def filters(self) -> Tensor:
        """Return the filters (C_out, C_in, k, k)."""
        k = self.kernel_size
        filters = self.weights.new_zeros(self.out_channels, self.in_channels, k, k)
        for i, block in enumerate(self._blocks):
            basis = self.get_buffer(f"basis_{i}")
            weights = self.weights[block["weights"]].view(*block["fields"], len(basis))
            made = torch.einsum("boip,nmb->nomip", basis, weights)
            rows, columns = block["rows"], block["columns"]
            filters[rows, columns] = made.reshape(filters[rows, columns].shape)
        return filters

    @torch.no_grad()
    def set_filters(self, filters: Tensor) -> None:
        """Take the coefficients whose filters come nearest to given ones (C_out, C_in, k, k)."""
        for i, block in enumerate(self._blocks):
            basis = self.get_buffer(f"basis_{i}")
            (n, m), (_, o, size, _) = block["fields"], basis.shape
            given = filters[block["rows"], block["columns"]].reshape(n, o, m, size, -1)
            # The basis is orthonormal.
            found = torch.einsum("boip,nomip->nmb", basis, given)
            self.weights[block["weights"]] = found.flatten()

    def forward(self, fields: Tensor) -> Tensor:
        """Return (B, C_out, H', W') for fields (B, C_in, H, W)."""
        with torch.autocast(fields.device.type, enabled=False):
            filters = self.filters()
        return conv2d(fields, filters, stride=self.stride, padding=self.padding)

    @torch.no_grad()
    def _print(self) -> Tensor:
        """Return numbers that tell the bases of other groups or releases apart (n_blocks,)."""
        bases = [self.get_buffer(f"basis_{i}").flatten() for i in range(len(self._blocks))]
        return torch.stack([torch.arange(len(b)).cos().to(b) @ b for b in bases])

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *more: Any) -> None:  # noqa: ANN401
        """Refuse coefficients that mean something else here, though their number fits."""
        name, ours = f"{prefix}basis_print", self.basis_print
        theirs = state.get(name, ours)
        if theirs.shape != ours.shape or not torch.allclose(theirs.to(ours), ours, 0.02, 0.02):
            *_, errors = more
            errors.append(f"{prefix}weights belong to another basis: another group?")
            # What is refused must not say what our basis is.
            state = state | {name: ours}
        super()._load_from_state_dict(state, prefix, *more)

    @torch.no_grad()
    def plain(self) -> nn.Conv2d:
        """Return the same convolution as an ordinary one."""
        channels = (self.in_channels, self.out_channels)
        geometry = (self.kernel_size, self.stride, self.padding)
        conv = nn.Conv2d(*channels, *geometry, bias=False).to(self.weights)
        conv.weight.copy_(self.filters())
        return conv

    def extra_repr(self) -> str:
        """Return what distinguishes the layer, as in `nn.Conv2d`."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}"
        )


def quarter_turns(space: Any) -> bool:  # noqa: ANN401 - e2cnn ships no types
    """Tell whether the rotations of a group take pixels to pixels."""
    group = space.fibergroup
    order = getattr(group, "rotation_order", group.order())
    is_flip = isinstance(space, gspaces.Flip2dOnR2)
    return is_flip or order in (1, 2, 4)


def lattice_options(kernel_size: int) -> dict[str, Any]:
    """Return options of e2cnn's convolution with which filters may differ in every pixel.

    One ring for each distance of a pixel from the centre, and on each ring as many angular
    frequencies as its pixels can tell apart.

    Args:
        kernel_size: Side of the filters [px], odd.
    """
    half = kernel_size // 2
    offsets = range(-half, half + 1)
    n_pixels = Counter(x * x + y * y for x in offsets for y in offsets)
    squares = sorted(n_pixels)
    return {
        "rings": [math.sqrt(square) for square in squares],
        "sigma": [RING_WIDTH] * len(squares),
        "frequencies_cutoff": lambda radius: n_pixels[round(radius**2)] // 2,
    }


def pixel_basis(basis: Tensor) -> Tensor:
    """Return another orthonormal basis of the same filters: one coefficient for each free pixel.

    Each element is what the symmetry makes of a filter with one pixel. Optimisers that scale every
    coefficient on its own then treat filters as they do those of an ordinary convolution.

    Args:
        basis: Orthonormal (n, o, i, k^2).

    Returns:
        (n, o, i, k^2), float32.
    """
    flat = basis.double().flatten(1)
    return orthonormal((flat.T @ flat).view(-1, *basis.shape[1:]))


def orthonormal(basis: Tensor) -> Tensor:
    """Return an orthonormal basis of the span of tensors, by the method of Gram and Schmidt.

    Each in turn, so that rounding cannot choose another basis: coefficients keep their meaning.

    Args:
        basis: (n, ...), may depend on each other.

    Returns:
        (m, ...), m <= n, float32.
    """
    flat = basis.double().flatten(1)
    kept = flat.new_zeros(0, flat.shape[1])
    for row in flat:
        rest = row
        for _ in range(2):  # the second time removes what rounding left
            rest = rest - kept.T @ (kept @ rest)
        if rest.norm() > max(DEPENDENT * row.norm(), TINY):
            kept = torch.cat((kept, rest[None] / rest.norm()))
    return kept.view(-1, *basis.shape[1:]).float()


def _blocks(expansion: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - e2cnn ships no types
    """Yield for each pair of representations its basis (b, o, i, k^2) and where its filters go."""
    for pair in expansion._representations_pairs:
        rows, columns = (getattr(expansion, f"{side}_indices_{pair}") for side in ("out", "in"))
        basis = getattr(expansion, f"block_expansion_{pair}").sampled_basis
        yield {
            "basis": basis,
            "fields": (expansion._out_count[pair[1]], expansion._in_count[pair[0]]),
            "rows": slice(int(rows[0]), int(rows[1])),
            "columns": slice(int(columns[0]), int(columns[1])),
        }
