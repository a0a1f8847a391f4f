"""The work of `data_gen=lenses`: one job per file of images and its truth."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import torch

from datagen.errors import ConfigError, DataFormatError
from datagen.files import Card
from datagen.lenses import format as files
from datagen.lenses.blocks import BLOCK
from datagen.lenses.config import LensesConfig
from datagen.lenses.prior import draw_macro
from datagen.lenses.simulate import Simulator
from datagen.lenses.substructure import Lot, draw_subhalos
from datagen.pipeline import Job, Phase
from datagen.version import VERSION

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
    truth = files.truth_path(folder, number)
    files.write_truth(truth, made.truth, made.substructure, _meta(config))
    files.write_images(files.images_path(folder, number), made.images.cpu().numpy())


def _meta(config: LensesConfig) -> dict[str, Card | tuple[Card, str]]:
    """Return the header of a truth file: how its images were made and how they were seen."""
    imaging = config.lens.resolved().imaging
    widths = (imaging.psf_fwhm[band] for band in imaging.bands)
    return {
        "SEED": config.seed,
        "PRESET": config.lens.name,
        "FLAWS": config.lens.legacy_flaws,
        "SIDE": (imaging.side, "side of an image [px]"),
        "PIXSCALE": (imaging.pixel_scale, "[arcsec/px]"),
        "BANDS": (",".join(imaging.bands), "planes of an image"),
        **{f"FWHM_{k}": (fwhm, "of the PSF [arcsec]") for k, fwhm in enumerate(widths)},
        "GAIN": (imaging.electrons_per_count, "electrons per count; 0: no photon noise"),
        "DEVICE": (config.device, "where images were computed"),
        "DTYPE": (config.dtype, "in which they were computed"),
        "CONFHASH": config.content_hash(),
        "VERSION": VERSION,
    }


def expected_bytes(config: LensesConfig) -> float:
    """Return about how much images and truth take, from the substructure of a few images.

    Where substructure is selected, there is somewhat more of it.
    """
    settings = config.lens.resolved()
    index = torch.arange(3 * BLOCK)
    macro = draw_macro(settings, config.seed, index, index % len(files.CLASSES))
    lot = Lot(settings, config.seed, index, macro)
    n_rows = float((draw_subhalos(lot, 0).theta_e > 0.0).sum()) / len(index) / len(files.CLASSES)
    # Each third image has a rod.
    n_rows += settings.substructure.line_of_sight.n_halos + 1.0 / len(files.CLASSES)
    n_numbers = len(files.LENS_COLUMNS) + n_rows * len(files.SUBSTRUCTURE_COLUMNS)
    n_pixels = len(settings.imaging.bands) * settings.imaging.side**2
    return config.nfiles * config.n_images_per_file * (4.0 * n_pixels + 8.0 * n_numbers)
