"""The work of `data_gen=halos`: one job per file of maps and its truth."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import numpy as np

from datagen.errors import DataFormatError
from datagen.files import Card
from datagen.halos import format as files
from datagen.halos.config import HalosConfig
from datagen.halos.simulate import Simulator
from datagen.pipeline import Job, Phase
from datagen.version import VERSION

log = logging.getLogger(__name__)


def build_phases(config: HalosConfig) -> list[Phase]:
    """Return the only phase."""
    halo = config.halo
    log.info(
        "halo=%s: %d maps of %d clusters with sigma/m = %s cm^2/g, %d px of %g kpc",
        halo.name,
        config.nfiles * config.n_maps_per_file(),
        config.nfiles * config.n_clusters_per_file,
        ", ".join(f"{value:g}" for value in halo.cross_sections),
        halo.imaging.side,
        halo.imaging.pixel_scale,
    )
    return [Phase("maps", tuple(_job(config, number) for number in range(config.nfiles)))]


def _job(config: HalosConfig, number: int) -> Job:
    folder = Path(config.data_dir)
    outputs = (files.truth_path(folder, number), files.maps_path(folder, number))
    return Job(
        f"halos_{number:06d}", outputs, partial(make_file, config, number), number, config.seed
    )


def make_file(config: HalosConfig, number: int) -> None:
    """Simulate one file of whole clusters and write it with its truth.

    Raises:
        DataFormatError: A map is not finite; nothing is written.
    """
    folder, n = Path(config.data_dir), config.n_clusters_per_file
    simulator = Simulator(config.halo, config.seed, config.n_projections)
    made = simulator(np.arange(number * n, (number + 1) * n))
    is_fine = np.isfinite(made.maps).all((1, 2, 3))
    if not is_fine.all():
        bad = int(made.truth["INDEX"][~is_fine][0])
        raise DataFormatError(
            f"expected finite pixels, but map {bad} of halo = {config.halo.name} has nan or inf; "
            "its settings ask for something too large or too small for float32",
            value=bad,
        )
    files.write_truth(files.truth_path(folder, number), made.truth, meta(config))
    files.write_maps(files.maps_path(folder, number), made.maps)


def meta(config: HalosConfig) -> dict[str, Card | tuple[Card, str]]:
    """Return the header of a truth file: how its maps were made."""
    halo, imaging = config.halo, config.halo.imaging
    units = {"mass": "Msun kpc-2", "xray": "solLum kpc-2", "stars": "Msun kpc-2"}
    if halo.observation.is_on:
        units["xray"] = "count"
    return {
        "SUITE": halo.name,
        "CHANNELS": (",".join(imaging.channels), "planes of a map"),
        **{f"UNIT_{k}": units[name] for k, name in enumerate(imaging.channels)},
        "SIDE": (imaging.side, "side of a map [px]"),
        "PIXSCALE": (imaging.pixel_scale, "[kpc/px]"),
        "DEPTH": (imaging.depth, "length of the projected column [kpc]"),
        "ENGINE": (halo.engine, "how self-interaction acts"),
        "CONTENT": (halo.content, "halos, or maps without a halo"),
        "OBSERVED": (halo.observation.is_on, "as telescopes would see it"),
        "SEED": config.seed,
        "CONFHASH": config.content_hash(),
        "VERSION": VERSION,
    }
