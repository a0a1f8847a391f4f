"""Classic preprocessing of images in batches: threshold, equalisation, morphology.

All functions work on (..., H, W), image by image and band by band, on any device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from datagen.errors import ConfigError


class Preprocessing(nn.Module):
    """Applies steps in their order; without steps, images stay as they are.

    Args:
        steps: Names of `STEPS`.
        threshold: Of the step `threshold`, fraction of the range of an image, 0 to 1.

    Raises:
        ConfigError: A step is unknown, or the threshold is out of range.
    """

    def __init__(self, steps: Sequence[str], threshold: float) -> None:
        super().__init__()
        for step in steps:
            if step not in STEPS:
                raise ConfigError(
                    f"expected data.stretch.steps of {', '.join(STEPS)}, but got {step!r}",
                    step,
                    STEPS,
                )
        if not 0 <= threshold <= 1:
            raise ConfigError(
                "expected 0 <= data.stretch.threshold <= 1, but got data.stretch.threshold = "
                f"{threshold}",
                threshold,
            )
        self.steps, self.threshold = tuple(steps), threshold

    def forward(self, images: Tensor) -> Tensor:
        """Return images of the same shape (B, C, H, W)."""
        functions = PLAIN | {"threshold": partial(cut, threshold=self.threshold)}
        for step in self.steps:
            images = functions[step](images)
        return images

    def extra_repr(self) -> str:
        """Return what a printed network says about this step."""
        return f"steps={list(self.steps)}, threshold={self.threshold}"


def min_max(images: Tensor) -> Tensor:
    """Map the range of each image to 0 to 1; an image of one value becomes 0."""
    low, high = _range(images)
    span = high - low
    return (images - low) / torch.where(span > 0, span, torch.ones_like(span))


def cut(images: Tensor, threshold: float) -> Tensor:
    """Give pixels below a fraction of the range the lowest value of their image."""
    low, high = _range(images)
    return torch.where(images < low + threshold * (high - low), low, images)


def equalise(images: Tensor) -> Tensor:
    """Replace each pixel by the fraction of the pixels of its image that are not brighter.

    The histogram of the result is flat without any choice of bins; equal pixels stay equal. It has
    no gradient.
    """
    flat = images.flatten(-2).contiguous()
    ranks = torch.searchsorted(flat.sort(dim=-1).values, flat, right=True)
    return (ranks.to(images.dtype) / flat.shape[-1]).view_as(images)


def dilate(images: Tensor) -> Tensor:
    """Return the maximum under the elliptic 3x3 kernel: a pixel and its four neighbours."""
    planes = images.reshape(-1, *images.shape[-2:])
    rows = max_pool2d(planes, (3, 1), stride=1, padding=(1, 0))
    columns = max_pool2d(planes, (1, 3), stride=1, padding=(0, 1))
    return torch.maximum(rows, columns).view_as(images)


def erode(images: Tensor) -> Tensor:
    """Return the minimum under the elliptic 3x3 kernel."""
    return -dilate(-images)


def opening(images: Tensor) -> Tensor:
    """Erode, then dilate: removes what is narrower than the kernel, such as noise peaks."""
    return dilate(erode(images))


def _range(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and highest value of each image (..., 1, 1)."""
    return images.amin(dim=(-2, -1), keepdim=True), images.amax(dim=(-2, -1), keepdim=True)


PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "min_max": min_max,
    "equalise": equalise,
    "erode": erode,
    "dilate": dilate,
    "opening": opening,
}
STEPS = ("threshold", *PLAIN)
