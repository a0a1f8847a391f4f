"""The work of `data_gen=survey`: per tile its catalogs and its images, then one truth table."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from astropy.table import Table, vstack

from datagen.errors import DataNotFoundError
from datagen.fields import format as files
from datagen.fields.images import Exposure, draw_bands, image_header
from datagen.fields.schema import check_config_hash
from datagen.fields.survey import Tile, survey_tile, tile_sky
from datagen.fields.survey_config import SurveyConfig
from datagen.fields.version import FORMAT_VERSION
from datagen.files import Card
from datagen.pipeline import Job, Phase
from datagen.seeds import stream_seed
from datagen.version import VERSION

TRUTH_FILE = "truth_clusters.ecsv"
_SUFFIXES = {"fz": ".fits.fz", "plain": ".fits"}
# FITS allows 1 to 10000.
_DITHER_SEEDS = 10_000


def build_phases(config: SurveyConfig) -> list[Phase]:
    """Return the selected phases in the order catalog, image, truth."""
    tiles = [survey_tile(config, index) for index in range(config.nfiles)]
    phases = []
    if "catalog" in config.phases:
        phases.append(Phase("catalog", tuple(_catalog_job(config, tile) for tile in tiles)))
    if "image" in config.phases:
        phases.append(Phase("image", tuple(_image_job(config, tile) for tile in tiles)))
    if "truth" in config.phases:
        outputs = (Path(config.data_dir) / TRUTH_FILE,)
        # Every shard gathers what is there; the last one to finish finds all tiles.
        run, index = partial(make_truth, config), config.shard[0]
        job = Job("truth", outputs, run, index, config.seed, is_gathering=True)
        phases.append(Phase("truth", (job,)))
    return phases


def sources_path(folder: Path, tile: str) -> Path:
    """Return the name of a tile's source catalog."""
    return Path(folder) / tile / f"{tile}_sources.dat"


def tile_clusters_path(folder: Path, tile: str) -> Path:
    """Return the name of a tile's cluster table."""
    return Path(folder) / tile / f"{tile}_clusters.ecsv"


def tile_image_path(folder: Path, tile: str, band: str, kind: str) -> Path:
    """Return the name of a tile's image as in DES; `kind` is `fz` or `plain`."""
    return Path(folder) / tile / f"{tile}_r0000p00_{band}_nobkg{_SUFFIXES[kind]}"


def _catalog_job(config: SurveyConfig, tile: Tile) -> Job:
    folder = Path(config.data_dir)
    outputs = (tile_clusters_path(folder, tile.name), sources_path(folder, tile.name))
    run = partial(make_tile_catalog, config, tile.index)
    return Job(f"{tile.name}/catalog", outputs, run, tile.index, config.seed)


def _image_job(config: SurveyConfig, tile: Tile) -> Job:
    folder = Path(config.data_dir)
    outputs = tuple(
        tile_image_path(folder, tile.name, band, config.format) for band in config.bands
    )
    run = partial(make_tile_images, config, tile.index)
    return Job(f"{tile.name}/images", outputs, run, tile.index, config.seed)


def make_tile_catalog(config: SurveyConfig, index: int) -> None:
    """Draw the sky of one tile and write its cluster table and source catalog."""
    tile, folder = survey_tile(config, index), Path(config.data_dir)
    sources, clusters = tile_sky(config, tile)
    meta: dict[str, Card] = {
        "format_version": FORMAT_VERSION,
        "seed": config.seed,
        "index": index,
        "tile": tile.name,
        "config_hash": config.content_hash(),
        "package_version": VERSION,
        "ra_deg": tile.ra_deg,
        "dec_deg": tile.dec_deg,
        "image_size_px": tile.size_px,
        "pixel_scale": tile.pixel_scale,
    }
    # The type is given, because an empty column of names would become one of numbers.
    clusters["TILE"] = np.full(len(clusters), tile.name, dtype=f"U{len(tile.name)}")
    files.write_clusters(tile_clusters_path(folder, tile.name), clusters, meta)
    files.write_catalog(sources_path(folder, tile.name), sources, meta)


def make_tile_images(config: SurveyConfig, index: int) -> None:
    """Draw all bands of one tile from its source catalog on disk, one band at a time."""
    tile, folder = survey_tile(config, index), Path(config.data_dir)
    path = sources_path(folder, tile.name)
    sources = files.read_catalog(path)
    check_config_hash(sources.meta.get("config_hash"), config.content_hash(), path)
    exposure = Exposure(
        config.image, config.renderer, config.seed, index, "tile", config.content_hash()
    )
    shape = (tile.size_px, tile.size_px)
    for band, image in draw_bands(sources, shape, config.bands, exposure):
        header = image_header(tile.cards, band, exposure) | {"TILENAME": (tile.name, "survey tile")}
        path = tile_image_path(folder, tile.name, band, config.format)
        files.write_image(path, image, header, _compression(config, index, band))


def _compression(config: SurveyConfig, index: int, band: str) -> files.RiceCompression | None:
    if config.format == "plain":
        return None
    rows, columns = config.compressed_tile
    shape = (rows, min(columns or config.image_size, config.image_size))
    seed = 1 + stream_seed(config.seed, index, f"tile_dither_{band}") % _DITHER_SEEDS
    return files.RiceCompression(config.quantize_level, shape, seed)


def make_truth(config: SurveyConfig) -> None:
    """Gather the cluster tables of all tiles that are there into one, in the order of names."""
    folder = Path(config.data_dir)
    present = sorted(path.parent.name for path in folder.glob("DES*/DES*_clusters.ecsv"))
    if not present:
        raise DataNotFoundError(
            f"{folder} holds no cluster table of a tile; make them with: "
            "python datagen/run.py data_gen=survey data_gen.phases=[catalog]",
            value=str(folder),
        )
    tables = [_read_clusters(config, tile_clusters_path(folder, name)) for name in present]
    meta: dict[str, Card] = {
        "format_version": FORMAT_VERSION,
        "seed": config.seed,
        "n_tiles": len(present),
        "config_hash": config.content_hash(),
        "package_version": VERSION,
    }
    files.write_clusters(folder / TRUTH_FILE, vstack(tables, metadata_conflicts="silent"), meta)


def _read_clusters(config: SurveyConfig, path: Path) -> Table:
    clusters = files.read_clusters(path)
    check_config_hash(clusters.meta.get("config_hash"), config.content_hash(), path)
    return clusters
