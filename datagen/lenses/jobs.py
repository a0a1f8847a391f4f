"""The work of `data_gen=lenses`: one job per file of images and its truth."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import torch

from datagen.errors import ConfigError, DataFormatError
from datagen.fields.version import VERSION
from datagen.fields.wcs import Card
from datagen.lenses import format as files
from datagen.lenses.config import LensesConfig
from datagen.lenses.simulate import Simulator
from datagen.pipeline import Job, Phase

log = logging.getLogger(__name__)


def build_phases(config: LensesConfig) -> list[Phase]:
    """Return the only phase.

    Raises:
        ConfigError: `device = cuda` without a GPU.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("data_gen.device = cuda, but torch finds no GPU; take cpu", "cuda", "cpu")
    imaging = config.lens.imaging
    n_images = config.nfiles * config.n_images_per_file
    log.info(
        "lens=%s%s: %d images of %s, %d band(s) of %d px at %g arcsec/px",
        config.lens.name,
        " with the flaws of the public set" if config.lens.legacy_flaws else "",
        n_images,
        ", ".join(files.CLASSES),
        len(imaging.bands),
        imaging.side,
        imaging.pixel_scale,
    )
    return [Phase("images", tuple(_job(config, number) for number in range(config.nfiles)))]


def _job(config: LensesConfig, number: int) -> Job:
    folder = Path(config.data_dir)
    outputs = (files.truth_path(folder, number), files.images_path(folder, number))
    return Job(
        f"lenses_{number:06d}", outputs, partial(make_file, config, number), number, config.seed
    )


def make_file(config: LensesConfig, number: int) -> None:
    """Simulate one file of images and write it with its truth.

    Raises:
        DataFormatError: An image is not finite; nothing is written.
    """
    folder, n = Path(config.data_dir), config.n_images_per_file
    simulator = Simulator(config.lens, config.seed, config.device, getattr(torch, config.dtype))
    made = simulator(torch.arange(number * n, (number + 1) * n))
    is_fine = torch.isfinite(made.images).flatten(1).all(-1).cpu()
    if not is_fine.all():
        bad = int(made.truth["INDEX"][~is_fine][0])
        raise DataFormatError(
            f"expected finite pixels, but image {bad} of lens = {config.lens.name} has nan or inf; "
            "its settings ask for something too large or too small for this pixel scale",
            value=bad,
        )
    meta: dict[str, Card] = {
        "SEED": config.seed,
        "PRESET": config.lens.name,
        "FLAWS": config.lens.legacy_flaws,
        "CONFHASH": config.content_hash(),
        "VERSION": VERSION,
    }
    files.write_truth(files.truth_path(folder, number), made.truth, made.substructure, meta)
    files.write_images(files.images_path(folder, number), made.images.cpu().numpy())
