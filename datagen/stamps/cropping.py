"""The square that a stamp shows of an image."""

from __future__ import annotations

import math
from dataclasses import dataclass

from datagen.stamps.drops import DroppedError

# What is done where the square reaches beyond the image.
BEYOND = ("limit", "drop")
# Smaller squares show nothing [px].
MIN_SIDE = 8


@dataclass(frozen=True)
class Box:
    """Whole pixels of an image.

    Args:
        top: First row.
        left: First column.
        side: Number of rows and columns [px].
        is_limited: It is smaller than what was asked for, since the image ends.
    """

    top: int
    left: int
    side: int
    is_limited: bool = False

    @property
    def rows(self) -> slice:
        """Rows of the image."""
        return slice(self.top, self.top + self.side)

    @property
    def columns(self) -> slice:
        """Columns of the image."""
        return slice(self.left, self.left + self.side)


def middle(shape: tuple[int, int]) -> tuple[float, float]:
    """Return row and column of the middle of an image [px], pixel centres being whole numbers."""
    return (shape[0] - 1) / 2, (shape[1] - 1) / 2


def box_about(centre: tuple[float, float], side: float, shape: tuple[int, int], beyond: str) -> Box:
    """Return the square of whole pixels nearest to one about a point.

    Args:
        centre: Its row and column [px].
        side: Its side [px].
        shape: Of the image.
        beyond: Where it reaches beyond the image: `limit` it to the largest one about the same
            point, or `drop` the image.

    Raises:
        DroppedError: The side is not a number or below 8 px, or the square reaches beyond.
    """
    if not math.isfinite(side) or round(side) < MIN_SIDE:
        raise DroppedError(f"a crop of {side:g} px, less than {MIN_SIDE}", "crop")
    # The largest one about a point that may lie between pixels.
    largest = min(
        math.floor(2 * min(at + 0.5, n - 0.5 - at) + 1.0)
        for at, n in zip(centre, shape, strict=True)
    )
    largest = min(largest, *shape)
    wanted = round(side)
    if wanted > largest:
        if beyond == "drop":
            raise DroppedError(f"a crop of {wanted} px, but the image ends at {largest}", "crop")
        if largest < MIN_SIDE:
            raise DroppedError("the object lies at the border of the image", "crop")
    n = min(wanted, largest)
    top, left = (
        min(max(math.floor(at - (n - 1) / 2 + 0.5), 0), length - n)
        for at, length in zip(centre, shape, strict=True)
    )
    return Box(top, left, n, wanted > largest)
