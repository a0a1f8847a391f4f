"""Images and rows that are not used: each is counted and listed with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from datagen.errors import DataFormatError

# Why an image or a row is not used.
KINDS = (
    *("name", "duplicate image", "duplicate row", "no row", "no image", "range"),
    *("unreadable", "band", "shape", "calibration", "pixels", "source", "crop"),
)


@dataclass(frozen=True)
class Drop:
    """An image or a row that is not used.

    Args:
        file: Its name below the folder of the suite; of a row what it is about.
        kind: One of `KINDS`.
        reason: The rest, in words.
    """

    file: str
    kind: str
    reason: str


class DroppedError(DataFormatError):
    """What is wrong with one image; its `value` is one of `KINDS`."""
