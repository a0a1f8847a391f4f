"""Which images of a suite become stamps, with which labels; and whether suites go together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datagen.errors import DataFormatError
from datagen.stamps.config import StampsConfig
from datagen.stamps.drops import Drop, DroppedError
from datagen.stamps.extract import box_of, view_image
from datagen.stamps.labels import label_images
from datagen.stamps.names import Image, compiled, list_images

# Images that are tried before a suite is taken for wrong as a whole.
N_TRIED = 8
# By how much pixel scales of suites may differ, relatively.
SCALE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Plan:
    """The images of a suite.

    Args:
        images: Those that are tried.
        labels: Alias -> values, one per image.
        drops: Images and rows that are not used.
        n_without_image: Number of rows without an image.
        n_not_taken: Images of objects that `fraction` leaves out.
    """

    images: list[Image]
    labels: dict[str, NDArray[np.float64]]
    drops: list[Drop]
    n_without_image: int
    n_not_taken: int


def make_plan(config: StampsConfig) -> Plan:
    """List images, choose the fraction of them that is taken, and find their labels."""
    images, drops = _images(config)
    taken = [image for image in images if is_taken(config, image.identity.object)]
    found = label_images(config.suite, taken)
    return Plan(
        found.images,
        found.labels,
        drops + found.drops,
        found.n_without_image,
        len(images) - len(taken),
    )


def is_taken(config: StampsConfig, number: int) -> bool:
    """Tell whether an object belongs to the fraction of a suite that is taken.

    It follows from seed and object alone; a larger fraction keeps all objects of a smaller one.
    """
    if config.suite.fraction >= 1:
        return True
    digest = hashlib.sha256(f"fraction {config.seed} {number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < config.suite.fraction * 2.0**64


def _images(config: StampsConfig) -> tuple[list[Image], list[Drop]]:
    suite = config.suite
    pattern = compiled(suite.pattern, f"suites.{suite.name}.pattern")
    bands = list(dict.fromkeys([*config.bands, *([suite.crop.band] if suite.crop.band else [])]))
    return list_images(Path(suite.folder), suite.images, pattern, bands)


def check_suites(parts: Sequence[StampsConfig]) -> None:
    """Look at the first images of each suite before anything is made.

    Raises:
        DataNotFoundError: A suite has no images.
        DataFormatError: None of its first images has the bands and numbers that its file names, or
            suites that are cut by fractions end with different pixel scales.
    """
    scales: dict[str, float] = {}
    for config in parts:
        scale = _first_scale(config)
        if config.suite.crop.kind == "fraction":
            scales[config.suite.name] = scale
    if not scales or not parts[0].image.same_scale:
        return
    first = next(iter(scales.values()))
    if any(abs(scale / first - 1) > SCALE_TOLERANCE for scale in scales.values()):
        words = ", ".join(f"{name} {scale:.4g}" for name, scale in scales.items())
        raise DataFormatError(
            f"expected stamps of all suites to have the same pixel scale, but got {words} "
            "[arcsec/px]; change crop.factor of a suite, or set data_gen.image.same_scale=false",
            scales,
        )


def _first_scale(config: StampsConfig) -> float:
    """Return the pixel scale of the first good stamp [arcsec/px], for crops by fraction."""
    images, drops = _images(config)
    reason = drops[0].reason if drops else "there are none"
    for image in images[:N_TRIED]:
        try:
            view = view_image(config.suite, config.bands, image)
            if config.suite.crop.kind != "fraction":
                return view.scale
            return view.scale * box_of(config.suite, view, {}).side / config.image.store_px
        except DroppedError as error:
            reason = f"{image.name}: {error}"
    raise DataFormatError(
        f"expected suite {config.suite.name} to have images as its file says, but none of the "
        f"first {max(min(len(images), N_TRIED), 1)} in {config.suite.folder} can be used: {reason}",
        config.suite.name,
    )
