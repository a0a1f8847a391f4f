"""The work of `data_gen=fields`: one job per source catalog, per field image and per file datum."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.io import fits
from astropy.table import Table

from datagen.errors import DataFormatError
from datagen.fields import format as files
from datagen.fields.config import FieldsConfig
from datagen.fields.datum import UNITS, CellRules, cell_catalog, redshift_map
from datagen.fields.images import Exposure, draw_bands, image_header
from datagen.fields.prior import draw_sky
from datagen.fields.schema import check_config_hash
from datagen.fields.sky import SkyArea
from datagen.fields.version import FORMAT_VERSION
from datagen.fields.wcs import tan_cards, tan_wcs
from datagen.files import Card
from datagen.pipeline import Job, Phase
from datagen.seeds import stream
from datagen.version import VERSION

# Fields point anywhere but near the poles, where right ascension loses its meaning.
MAX_DEC_DEG = 60.0


def build_phases(config: FieldsConfig) -> list[Phase]:
    """Return the selected phases in the order catalog, image, datum.

    Field `k * n_catalogs_per_file + j` is the j-th of file datum k.
    """
    builders = {"catalog": _catalog_job, "image": _image_job}
    phases = []
    for name, build in builders.items():
        if name in config.phases:
            fields = range(config.nfiles * config.n_catalogs_per_file)
            phases.append(Phase(name, tuple(build(config, index) for index in fields)))
    if "datum" in config.phases:
        numbers = range(config.nfiles)
        phases.append(Phase("datum", tuple(_datum_job(config, number) for number in numbers)))
    return phases


def _catalog_job(config: FieldsConfig, index: int) -> Job:
    folder = Path(config.data_dir)
    outputs = (files.clusters_path(folder, index), files.catalog_path(folder, index))
    run = partial(make_catalog, config, index)
    return Job(f"catalogs/field_{index:06d}", outputs, run, _number(config, index), config.seed)


def _image_job(config: FieldsConfig, index: int) -> Job:
    outputs = tuple(files.image_path(Path(config.data_dir), index, band) for band in config.bands)
    run = partial(make_images, config, index)
    return Job(f"images/field_{index:06d}", outputs, run, _number(config, index), config.seed)


def _datum_job(config: FieldsConfig, number: int) -> Job:
    outputs = (_file_data_path(config, number),)
    return Job(
        f"file_data/{number}", outputs, partial(make_datum, config, number), number, config.seed
    )


def _number(config: FieldsConfig, index: int) -> int:
    """Return the file datum of a field: all of its work belongs to one shard."""
    return index // config.n_catalogs_per_file


def _file_data_path(config: FieldsConfig, number: int) -> Path:
    return files.file_data_path(Path(config.data_dir), number, config.n_catalogs_per_file)


def make_catalog(config: FieldsConfig, index: int) -> None:
    """Draw the sky of one field and write its cluster table and source catalog."""
    shape = (config.image_size, config.image_size)
    ra_deg, dec_deg = _pointing(config.seed, index)
    wcs = tan_wcs(ra_deg, dec_deg, shape, config.image.pixel_scale)
    area = SkyArea.from_image(config.image, config.reference_band, wcs, shape)
    sources, clusters = draw_sky(config.prior, area, partial(stream, config.seed, index))
    meta: dict[str, Card] = {
        "format_version": FORMAT_VERSION,
        "seed": config.seed,
        "index": index,
        "config_hash": config.content_hash(),
        "package_version": VERSION,
        "ra_deg": ra_deg,
        "dec_deg": dec_deg,
        "image_size_px": config.image_size,
        "pixel_scale": config.image.pixel_scale,
    }
    files.write_clusters(files.clusters_path(Path(config.data_dir), index), clusters, meta)
    files.write_catalog(files.catalog_path(Path(config.data_dir), index), sources, meta)


def _pointing(seed: int, index: int) -> tuple[float, float]:
    """Draw the sky position of a field's centre [deg], uniform on the sphere."""
    rng = stream(seed, index, "pointing")
    sin_dec = rng.uniform(-1.0, 1.0) * np.sin(np.deg2rad(MAX_DEC_DEG))
    return float(rng.uniform(0.0, 360.0)), float(np.rad2deg(np.arcsin(sin_dec)))


def make_images(config: FieldsConfig, index: int) -> None:
    """Draw all bands of one field from its source catalog on disk."""
    folder = Path(config.data_dir)
    path = files.catalog_path(folder, index)
    sources = _read_sources(path, config)
    shape = (config.image_size, config.image_size)
    cards = _field_cards(sources, path, config)
    exposure = Exposure(
        config.image, config.renderer, config.seed, index, "field", config.content_hash()
    )
    for band, image in draw_bands(sources, shape, config.bands, exposure):
        header = image_header(cards, band, exposure)
        files.write_image(files.image_path(folder, index, band), image, header)


def _read_sources(path: Path, config: FieldsConfig) -> Table:
    """Read a source catalog that was made with these settings."""
    sources = files.read_catalog(path)
    check_config_hash(sources.meta.get("config_hash"), config.content_hash(), path)
    return sources


def _read_clusters(folder: Path, index: int, config: FieldsConfig) -> Table:
    """Read a cluster table that was made with these settings."""
    path = files.clusters_path(folder, index)
    clusters = files.read_clusters(path)
    check_config_hash(clusters.meta.get("config_hash"), config.content_hash(), path)
    return clusters


def _field_cards(sources: Table, path: Path, config: FieldsConfig) -> dict[str, Card]:
    """Return the WCS cards that a catalog was made for."""
    shape = (config.image_size, config.image_size)
    try:
        ra_deg, dec_deg = float(sources.meta["ra_deg"]), float(sources.meta["dec_deg"])
    except (KeyError, ValueError) as error:
        raise DataFormatError(
            f"{path}, ra_deg and dec_deg: expected the field's centre in `# key = value` lines; "
            "make it again with: python datagen/run.py data_gen=fields data_gen.phases=[catalog]",
            value=str(path),
        ) from error
    return tan_cards(ra_deg, dec_deg, shape, config.image.pixel_scale)


def make_datum(config: FieldsConfig, number: int) -> None:
    """Join catalogs and images of the fields of one file datum."""
    n = config.n_catalogs_per_file
    data = [_field_datum(config, index) for index in range(number * n, (number + 1) * n)]
    files.write_file_data(_file_data_path(config, number), data)


def _field_datum(config: FieldsConfig, index: int) -> dict[str, Any]:
    folder, size = Path(config.data_dir), config.image_size
    sources = _read_sources(files.catalog_path(folder, index), config)
    images = np.empty((len(config.bands), size, size), np.float32)
    headers = []
    for plane, band in zip(images, config.bands, strict=True):
        path = files.image_path(folder, index, band)
        image, header = files.read_image(path)
        _check_image(image, header, path, config)
        plane[:] = image
        headers.append(header)
    rules = CellRules(
        config.tile_size, tuple(config.bands), config.reference_band, config.min_flux_for_loss
    )
    cells = cell_catalog(sources, (size, size), rules, _read_clusters(folder, index, config))
    return {
        "images": torch.from_numpy(images),
        "tile_catalog": cells,
        "redshift_map": redshift_map(
            sources, (size, size), config.reference_band, _bright_flux(config)
        ),
        "meta": _meta(config, index, headers, float(cells["membership"].float().mean())),
    }


def _bright_flux(config: FieldsConfig) -> float:
    """Return the flux of twice the signal-to-noise ratio of a labelled member [counts]."""
    image = config.image
    at_depth: float = 10.0 ** (0.4 * (image.zero_point - image.depth_mag[config.reference_band]))
    return at_depth * 2.0 * config.prior.min_snr / image.depth_snr


def _check_image(image: Any, header: fits.Header, path: Path, config: FieldsConfig) -> None:  # noqa: ANN401
    """Refuse an image that does not belong to these settings."""
    size = config.image_size
    again = "make it again with: python datagen/run.py data_gen=fields data_gen.phases=[image]"
    if image.shape != (size, size):
        raise DataFormatError(
            f"{path}: expected shape ({size}, {size}), but got {image.shape}; {again}", image.shape
        )
    if not np.isfinite(image).all():
        raise DataFormatError(f"{path}: expected finite pixels, but found nan or inf; {again}")
    for key in ("PSFFWHM", "SKYSIGMA", "CRVAL1"):
        if key not in header:
            raise DataFormatError(f"{path}, {key}: the header has no such card; {again}", key)
    check_config_hash(header.get("CONFHASH"), config.content_hash(), path)


def _meta(
    config: FieldsConfig, index: int, headers: list[fits.Header], prevalence: float
) -> dict[str, Any]:
    """Return the plain values that travel with a field."""
    size = config.image_size
    wcs = tan_cards(
        float(headers[0]["CRVAL1"]),
        float(headers[0]["CRVAL2"]),
        (size, size),
        config.image.pixel_scale,
    )
    return {
        "format_version": FORMAT_VERSION,
        "seed": config.seed,
        "index": index,
        "config_hash": config.content_hash(),
        "package_version": VERSION,
        "bands": list(config.bands),
        "reference_band": config.reference_band,
        "pixel_scale": float(config.image.pixel_scale),
        "zero_point": float(config.image.zero_point),
        "cell_px": config.tile_size,
        "noise_sigma": [float(header["SKYSIGMA"]) for header in headers],
        "psf_fwhm": [float(header["PSFFWHM"]) for header in headers],
        "wcs": wcs,
        "prior": _prior_meta(config) | {"cell_prevalence": prevalence},
        "units": dict(UNITS),
    }


def _prior_meta(config: FieldsConfig) -> dict[str, Any]:
    """Return the prior's settings as plain values, without paths of this machine."""
    prior = dataclasses.asdict(config.prior)
    empirical = prior.pop("empirical")
    members = empirical["members_file"]
    return prior | {"members_file": Path(members).name if members else None}
