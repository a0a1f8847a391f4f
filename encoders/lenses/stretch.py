"""Brings images to a common size and range: one stretch for a whole data set, kept in its card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from datagen.errors import ConfigError
from encoders.lenses.preprocessing import Preprocessing
from encoders.statistics import MAD_TO_SIGMA

KINDS = ("asinh", "linear")


class Stretch(nn.Module):
    """`(f(steps(images)) - mean) / std` per band.

    - asinh: `f(x) = asinh(x / softening)`, linear in the noise and logarithmic in bright pixels.
    - linear: `f(x) = x / softening`.

    The steps treat each image on its own; by default there are none, so that brightness keeps its
    meaning. All numbers stand in the card of a checkpoint, not among the weights.

    Args:
        side: Side of what comes out [px].
        kind: asinh or linear.
        softening: Per band [counts].
        mean: Per band, after f.
        std: Per band, after f.
        steps: See `encoders.lenses.preprocessing.Preprocessing`.
        threshold: Of its step `threshold`, fraction of the range of an image.
    """

    softening: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        side: int,
        kind: str,
        softening: Sequence[float],
        mean: Sequence[float],
        std: Sequence[float],
        steps: Sequence[str],
        threshold: float,
    ) -> None:
        super().__init__()
        self.side, self.kind = side, check_kind(kind)
        self.steps = Preprocessing(steps, threshold)
        for name, value in (("softening", softening), ("mean", mean), ("std", std)):
            row = torch.tensor(value, dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, row, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, C, side, side) for images (B, C, H, H) [counts]."""
        images = self.steps(fit_side(images.float(), self.side))
        return (curve(images, self.kind, self.softening) - self.mean) / self.std


def curve(images: Tensor, kind: str, softening: Tensor) -> Tensor:
    """Return f of `Stretch`, (B, C, H, W)."""
    scaled = images / softening
    return torch.asinh(scaled) if kind == "asinh" else scaled


def fit_side(images: Tensor, side: int) -> Tensor:
    """Cut or continue square images around their centre.

    Where the sides differ by an odd number, the image moves by half a pixel. Beyond the border the
    last row and column go on.

    Args:
        images: (B, C, H, H).
        side: Wanted side [px].
    """
    excess = images.shape[-1] - side
    if excess >= 0:
        first = excess // 2
        return images[..., first : first + side, first : first + side]
    before, after = (-excess) // 2, -excess - (-excess) // 2
    return pad(images, (before, after, before, after), mode="replicate")


def fit_stretch(images: Tensor, options: Mapping[str, Any], noise: float | None) -> dict[str, Any]:
    """Fit a stretch to training images.

    Args:
        images: (n, C, side, side) [counts].
        options: `kind`, `steps`, `threshold`, and `softening`: a number [counts], or None for the
            noise (asinh) and 1 (linear).
        noise: Noise of the sky [counts]; None, and 0 of images without noise, measure it.

    Returns:
        The arguments of `Stretch` besides the side, plain values.

    Raises:
        ConfigError: A value is out of range.
    """
    kind, given, steps = check_kind(options["kind"]), options["softening"], list(options["steps"])
    if given is not None and not (isinstance(given, int | float) and 0 < given < math.inf):
        raise ConfigError(
            f"expected data.stretch.softening > 0 or null, but got softening = {given}", given
        )
    images = Preprocessing(steps, options["threshold"])(images)
    # Steps change what the noise is.
    known = noise if not steps else None
    softening = [
        float(given or (1.0 if kind == "linear" else known or noise_of(band)))
        for band in images.unbind(dim=1)
    ]
    # Double precision, so that the sums do not depend on how they are split up.
    values = curve(images, kind, torch.tensor(softening).view(1, -1, 1, 1)).double()
    flat = values.transpose(0, 1).flatten(1)
    return {
        "kind": kind,
        "softening": softening,
        "mean": flat.mean(dim=1).tolist(),
        "std": [spread or 1.0 for spread in flat.std(dim=1, correction=0).tolist()],
        "steps": steps,
        "threshold": float(options["threshold"]),
    }


def noise_of(images: Tensor) -> float:
    """Measure the noise of a band: 1.48 median |difference of neighbours| / sqrt(2).

    Args:
        images: (n, H, W) [counts].

    Returns:
        The noise [counts]; where most neighbours are equal, the standard deviation of all pixels,
        and 1 if that is 0 as well.
    """
    difference = np.abs(np.diff(images.numpy(), axis=2))
    noise = MAD_TO_SIGMA * float(np.median(difference)) / math.sqrt(2.0)
    return noise or float(images.std(correction=0)) or 1.0


def check_kind(kind: str) -> str:
    """Return the kind of a stretch.

    Raises:
        ConfigError: There is no such kind.
    """
    if kind not in KINDS:
        raise ConfigError(
            f"expected data.stretch.kind to be one of {', '.join(KINDS)}, but got kind = {kind}",
            kind,
            KINDS,
        )
    return kind
