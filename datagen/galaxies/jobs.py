"""The work of `data_gen=galaxies`: one job per table of labels, with the images of its stamps."""

from __future__ import annotations

import itertools
import logging
from functools import partial
from pathlib import Path

import numpy as np

from datagen.errors import DataFormatError
from datagen.files import Card
from datagen.galaxies import format as files
from datagen.galaxies import physics
from datagen.galaxies.config import GalaxiesConfig
from datagen.galaxies.simulate import Simulator, Stamp
from datagen.pipeline import Job, Phase
from datagen.version import VERSION

log = logging.getLogger(__name__)


def build_phases(config: GalaxiesConfig) -> list[Phase]:
    """Return the only phase."""
    galaxy = config.galaxy
    log.info(
        "galaxy=%s: %d stamps of %d %s in %s, %d px",
        galaxy.name,
        config.nfiles * config.n_stamps_per_file(),
        config.nfiles * config.n_objects_per_file,
        galaxy.kind,
        ", ".join(galaxy.imaging.bands),
        galaxy.imaging.side,
    )
    return [Phase("stamps", tuple(_job(config, number) for number in range(config.nfiles)))]


def _job(config: GalaxiesConfig, number: int) -> Job:
    folder = Path(config.data_dir)
    seen = itertools.product(
        sorted(config.galaxy.snapshots), _numbers(config, number), range(config.n_projections)
    )
    images = tuple(files.images_path(folder, files.image_name(*one)) for one in seen)
    outputs = (*images, files.labels_path(folder, number))
    return Job(
        f"labels_{number:06d}", outputs, partial(make_file, config, number), number, config.seed
    )


def _numbers(config: GalaxiesConfig, number: int) -> range:
    n = config.n_objects_per_file
    return range(number * n, (number + 1) * n)


def make_file(config: GalaxiesConfig, number: int) -> None:
    """Simulate the objects of one table, write their images, then the table.

    Raises:
        DataFormatError: A pixel is not finite.
    """
    folder = Path(config.data_dir)
    simulator = Simulator(config.galaxy, config.seed, config.n_projections)
    rows = [
        _write(config, folder, stamp) for stamp in simulator(np.array(_numbers(config, number)))
    ]
    files.write_labels(files.labels_path(folder, number), files.columns_of(rows), meta(config))


def _write(config: GalaxiesConfig, folder: Path, stamp: Stamp) -> dict[str, float | str]:
    """Write the image of a stamp and return its row of labels."""
    name = files.image_name(stamp.snapshot, stamp.number, stamp.projection)
    if not np.isfinite(stamp.image).all():
        raise DataFormatError(
            f"expected finite pixels, but {name} of galaxy = {config.galaxy.name} has nan or inf; "
            "its settings ask for something too large or too small for float32",
            value=name,
        )
    unit, zero_point = "nanomaggy", physics.ZERO_POINT
    if config.galaxy.kind == "clusters":
        unit, zero_point = "count", 0.0
    shared: dict[str, Card] = {"BUNIT": unit, "ZEROPT": zero_point}
    bands = config.galaxy.imaging.bands
    cards = {band: shared | own for band, own in zip(bands, stamp.cards, strict=True)}
    files.write_images(files.images_path(folder, name), stamp.image, cards)
    place = {"SNAPSHOT": stamp.snapshot, "OBJECT": stamp.number, "PROJECTION": stamp.projection}
    return {**place, "FILE": name, **stamp.labels}


def meta(config: GalaxiesConfig) -> dict[str, Card | tuple[Card, str]]:
    """Return the header of a table of labels: how its stamps were made."""
    galaxy = config.galaxy
    return {
        "SUITE": galaxy.name,
        "KIND": (galaxy.kind, "galaxies, groups or clusters"),
        "BANDS": (",".join(galaxy.imaging.bands), "extensions of an image"),
        "SIDE": (galaxy.imaging.side, "side of an image [px]"),
        "REALIZ": (galaxy.realization, "which set of objects"),
        "SURVEY": (galaxy.systematics.is_on, "whether a survey adds its systematics"),
        "SEED": config.seed,
        "CONFHASH": config.content_hash(),
        "VERSION": VERSION,
    }
