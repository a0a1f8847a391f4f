"""Brings images to a common size, range and channels: one stretch for a set, kept in its card."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from datagen.errors import ConfigError
from encoders.lenses.preprocessing import Preprocessing
from encoders.statistics import MAD_TO_SIGMA

KINDS = ("sqrt", "asinh", "linear")
# Gaussians are cut at so many standard deviations.
N_SIGMA = 4.0


class Stretch(nn.Module):
    """`(bands_of(f(steps(images))) - mean) / std` per channel.

    - sqrt: `f(x) = sign(x) (sqrt(1 + |x| / softening) - 1)`: where it is bright, photon noise
      becomes the same everywhere (Anscombe 1948, doi:10.2307/2332343).
    - asinh: `f(x) = asinh(x / softening)`, linear in the noise and logarithmic in bright pixels.
    - linear: `f(x) = x / softening`.

    The steps treat each image on its own; by default there are none, so that brightness keeps its
    meaning. All numbers stand in the card of a checkpoint, not among the weights.

    Args:
        side: Side of what comes out [px].
        kind: sqrt, asinh or linear.
        softening: Per band [counts].
        scales: See `bands_of`; empty: each band is one channel.
        mean: Per channel, after f and `bands_of`.
        std: Per channel, after f and `bands_of`.
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
        scales: Sequence[float],
        mean: Sequence[float],
        std: Sequence[float],
        *,
        steps: Sequence[str],
        threshold: float,
    ) -> None:
        super().__init__()
        self.side, self.kind, self.scales = side, check_kind(kind), check_scales(scales)
        self.steps = Preprocessing(steps, threshold)
        for name, value in (("softening", softening), ("mean", mean), ("std", std)):
            row = torch.tensor(value, dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, row, persistent=False)

    @property
    def n_channels(self) -> int:
        """Channels of what comes out."""
        return self.mean.shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, n_channels, side, side) for images (B, C, H, H) [counts]."""
        return (bands_of(self.bright(images), self.scales) - self.mean) / self.std

    def bright(self, images: Tensor) -> Tensor:
        """Return `f(steps(images))`, what people see best, (B, C, side, side)."""
        images = self.steps(fit_side(images.float(), self.side))
        return curve(images, self.kind, self.softening)


def curve(images: Tensor, kind: str, softening: Tensor) -> Tensor:
    """Return f of `Stretch`, (B, C, H, W)."""
    scaled = images / softening
    if kind == "sqrt":
        return torch.sign(scaled) * (torch.sqrt(1.0 + scaled.abs()) - 1.0)
    return torch.asinh(scaled) if kind == "asinh" else scaled


def bands_of(images: Tensor, scales: Sequence[float]) -> Tensor:
    """Split images into bands of spatial scales by differences of Gaussians.

    With G_s the image under a Gaussian of s px, the channels of a plane are G_s1 - G_s2, ...,
    G_s(n-1) - G_sn, G_sn: details first, so that a network need not learn to take bright arcs away
    from their faint changes. They sum up to G_s1.

    Args:
        images: (B, C, H, W).
        scales: s1 < ... < sn [px]; none: the images as they are.

    Returns:
        (B, C n, H, W), those of the first plane first.
    """
    if not scales:
        return images
    smooth = [blurred(images, scale) for scale in scales]
    details = [fine - coarse for fine, coarse in itertools.pairwise(smooth)]
    return torch.stack([*details, smooth[-1]], dim=2).flatten(1, 2)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Convolve with a Gaussian; beyond the border the last row and column go on.

    Args:
        images: (B, C, H, W).
        sigma: Standard deviation [px]; 0 leaves images as they are.
    """
    if sigma == 0.0:
        return images
    radius = math.ceil(N_SIGMA * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    row = (kernel / kernel.sum()).to(images).view(1, 1, 1, -1)
    planes = pad(images.flatten(0, 1)[:, None], (radius, radius, radius, radius), mode="replicate")
    return conv2d(conv2d(planes, row), row.mT).view_as(images)


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


def fit_stretch(
    images: Tensor, options: Mapping[str, Any], noise: float | None, gain: float | None
) -> dict[str, Any]:
    """Fit a stretch to training images.

    Args:
        images: (n, C, side, side) [counts].
        options: `kind`, `scales`, `steps`, `threshold`, and `softening`: a number [counts], or
            None for the noise (1 if linear; if sqrt and the gain is known, `noise^2 gain`, where
            photons make as much noise as the sky).
        noise: Noise of the sky [counts]; None, and 0 of images without noise, measure it.
        gain: Electrons per count; None, and 0 of images without photon noise, if unknown.

    Returns:
        The arguments of `Stretch` besides the side, plain values.

    Raises:
        ConfigError: A value is out of range.
    """
    kind, given, steps = check_kind(options["kind"]), options["softening"], list(options["steps"])
    scales = check_scales(options["scales"])
    if given is not None and not (isinstance(given, int | float) and 0 < given < math.inf):
        raise ConfigError(
            f"expected data.stretch.softening > 0 or null, but got softening = {given}", given
        )
    images = Preprocessing(steps, options["threshold"])(images)
    # Steps change what the noise is.
    known, photons = (noise, gain) if not steps else (None, None)
    sigmas = [known or noise_of(band) for band in images.unbind(dim=1)]
    usual = {
        "sqrt": [sigma**2 * photons if photons else sigma for sigma in sigmas],
        "asinh": sigmas,
        "linear": [1.0] * len(sigmas),
    }
    softening = [float(given or value) for value in usual[kind]]
    # Double precision, so that the sums do not depend on how they are split up.
    values = bands_of(curve(images, kind, torch.tensor(softening).view(1, -1, 1, 1)), scales)
    flat = values.double().transpose(0, 1).flatten(1)
    return {
        "kind": kind,
        "softening": softening,
        "scales": scales,
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


def check_scales(scales: Sequence[float]) -> list[float]:
    """Return the scales of `bands_of` [px].

    Raises:
        ConfigError: They do not rise, or one is negative or not finite.
    """
    values = [float(scale) for scale in scales]
    is_rising = all(fine < coarse for fine, coarse in itertools.pairwise(values))
    if not (is_rising and all(0.0 <= value < math.inf for value in values)):
        raise ConfigError(
            f"expected data.stretch.scales to rise from >= 0 [px], but got {values}",
            values,
        )
    return values
