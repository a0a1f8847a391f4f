"""The work of `data_gen=tiles`: one job per survey tile, which cuts it into images with labels."""

from __future__ import annotations

import contextlib
import logging
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datagen.errors import ConfigError, DataFormatError
from datagen.fields import format as files
from datagen.fields.datum import UNITS
from datagen.fields.version import FORMAT_VERSION
from datagen.files import content_hash
from datagen.pipeline import Job, Phase
from datagen.tiles.background import estimate_background
from datagen.tiles.bands import read_layout
from datagen.tiles.config import TilesConfig
from datagen.tiles.geometry import cutout_cards, sky_to_pixel
from datagen.tiles.labels import TileLabels, is_near, is_on, tile_labels, truth_paths
from datagen.tiles.listing import Tile, list_tiles
from datagen.tiles.reference import load_reference
from datagen.tiles.stack import TileBands
from datagen.version import VERSION

log = logging.getLogger(__name__)
# Name of a file datum: survey tile, number of the part, images in it.
_NAME = re.compile(r"file_data_(?P<tile>.+)-\d+_size_\d+\.pt")


@dataclass(frozen=True)
class TilePlan:
    """What is known of a survey tile before its pixels are read.

    Args:
        index: Its number among all tiles, sorted by name.
        tile: Its files.
        shape: (H, W) [px].
        n_entries: Members, or clusters, of the reference on it; None where that is not counted.
    """

    index: int
    tile: Tile
    shape: tuple[int, int]
    n_entries: int | None


def build_phases(config: TilesConfig) -> list[Phase]:
    """Return one job per survey tile; a tile that cannot be read has a job that says so.

    Raises:
        DataNotFoundError: There are no survey tiles, or no reference.
        DataFormatError: The reference is damaged.
        ConfigError: No survey tile shows an entry of the reference, or has a truth.
    """
    survey = config.survey_settings
    tiles = list_tiles(Path(config.tiles_dir), survey, "data_gen.tiles_dir")[: config.nfiles]
    if not config.has_truth:
        # What is wrong with it is no fault of a tile.
        load_reference(config)
    else:
        _check_truth(config, tiles)
    plans, jobs = [], []
    for index, tile in enumerate(tiles):
        try:
            plans.append(_plan(config, tile, index))
        except DataFormatError as error:
            run = partial(_fail, error)
            jobs.append(Job(f"tile {tile.name}", (), run, index, config.seed, may_fail=True))
    jobs += [_job(config, plan) for plan in _with_entries(config, plans)]
    stale = _stale(config, tiles, {path for job in jobs for path in job.outputs})
    return [Phase("tiles", tuple(sorted(jobs, key=lambda job: job.index)), stale)]


def _stale(config: TilesConfig, tiles: list[Tile], current: set[Path]) -> tuple[Path, ...]:
    """Return file data of these survey tiles that would not be made now.

    The tile is left out or damaged, or has another number of images.
    """
    names = {tile.name for tile in tiles}
    there = (Path(config.data_dir) / "file_data").glob("file_data_*.pt")
    matches = ((path, _NAME.fullmatch(path.name)) for path in sorted(there))
    return tuple(path for path, match in matches
                 if match and match["tile"] in names and path not in current)  # fmt: skip


def _check_truth(config: TilesConfig, tiles: list[Tile]) -> None:
    """Raise `ConfigError` if no survey tile has a truth: they are not simulated."""
    paths = [truth_paths(config, tile.name) for tile in tiles]
    if not any(sources.is_file() for sources, _ in paths) or not paths[0][1].is_file():
        raise ConfigError(
            f"expected data_gen.reference to name a members table (redMaPPer), because the survey "
            f"tiles in data_gen.tiles_dir = {config.tiles_dir} have no truth such as {paths[0][0]} "
            f"beside {paths[0][1].name}, but got reference = {config.reference}",
            value=config.reference,
            allowed="a members table, or the truth of simulated survey tiles",
        )


def starts(length: int, size: int, cell_px: int) -> list[int]:
    """Return where images begin along one axis of a survey tile [px].

    They follow one another; a last one, moved back on the grid of cells, shows the rest.
    """
    found = list(range(0, length - size + 1, size))
    last = (length - size) // cell_px * cell_px
    return found + [last] * (last > found[-1])


def make_tile(config: TilesConfig, plan: TilePlan) -> None:
    """Cut one survey tile into images with labels and write its file data.

    Raises:
        DataFormatError: The survey tile or its truth is damaged.
    """
    bands = TileBands(plan.tile, config.survey_settings, config.zero_point)
    with contextlib.closing(bands):
        scales = {b: f.scale for b, f in zip(bands.survey.bands, bands.files, strict=True)}
        labels = tile_labels(config, plan.tile.name, bands.reference.wcs, bands.shape, scales)
        # From top to bottom, so that rows of compressed files are decoded once.
        origins = _origins(config, plan.shape)
        for path, part in zip(_outputs(config, plan), _parts(config, origins), strict=True):
            data = []
            for origin in part:
                bands.forget(origin[0], plan.shape[1])
                data.append(_datum(config, plan, bands, labels, origin))
            files.write_file_data(path, data)


def _plan(config: TilesConfig, tile: Tile, index: int) -> TilePlan:
    survey = config.survey_settings
    if tile.problem is not None:
        raise DataFormatError(tile.problem, value=tile.name)
    path = tile.paths[survey.bands.index(survey.reference_band)]
    shape, wcs = read_layout(path, survey)
    if min(shape) < config.image_size:
        raise DataFormatError(
            f"{tile.name} has shape {shape}, which holds no image of data_gen.image_size = "
            f"{config.image_size} px",
            value=shape,
            allowed=f">= {config.image_size}",
        )
    if config.has_truth:
        sources, _ = truth_paths(config, tile.name)
        if not sources.is_file():
            raise DataFormatError(f"{tile.name} has no truth: no file {sources}", value=tile.name)
        return TilePlan(index, tile, shape, None)
    reference = load_reference(config)
    table = reference.members if len(reference.members) else reference.systems
    near = table[is_near(reference.positions, wcs, shape)]
    inside = is_on(*sky_to_pixel(wcs, near["RA"], near["DEC"]), shape)
    return TilePlan(index, tile, shape, int(inside.sum()))


def _with_entries(config: TilesConfig, plans: list[TilePlan]) -> list[TilePlan]:
    """Leave out survey tiles without an entry of the reference, if that is asked for."""
    seen = [plan for plan in plans if plan.n_entries != 0]
    if plans and not seen:
        what = "cluster" if config.label == "circle" else "member"
        raise ConfigError(
            f"none of the {len(plans)} survey tiles in data_gen.tiles_dir = {config.tiles_dir} "
            f"shows a {what} of data_gen.reference = {config.reference}; do both cover the same "
            "sky, in ICRS degrees?",
            value=config.reference,
        )
    if not config.require_members:
        return plans
    if len(seen) < len(plans):
        log.info("%d of %d survey tiles show an entry of the reference", len(seen), len(plans))
    return seen


def _fail(error: DataFormatError) -> None:
    raise error


def _job(config: TilesConfig, plan: TilePlan) -> Job:
    run = partial(make_tile, config, plan)
    name, outputs = f"tile {plan.tile.name}", _outputs(config, plan)
    inputs = _inputs(config, plan.tile)
    return Job(name, outputs, run, plan.index, config.seed, inputs=inputs, may_fail=True)


def _inputs(config: TilesConfig, tile: Tile) -> str:
    """Return what identifies the files that a survey tile is made from."""
    stamps = [*zip(tile.sizes, tile.mtimes_ns, strict=True)]
    if config.has_truth:
        stats = [path.stat() for path in truth_paths(config, tile.name) if path.is_file()]
        stamps += [(stat.st_size, stat.st_mtime_ns) for stat in stats]
    return content_hash({"files": stamps})


def _origins(config: TilesConfig, shape: tuple[int, int]) -> list[tuple[int, int]]:
    rows, columns = (starts(n, config.image_size, config.tile_size) for n in shape)
    return [(row, column) for row in rows for column in columns]


def _parts(config: TilesConfig, origins: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    n = config.images_per_file or len(origins)
    return [origins[first : first + n] for first in range(0, len(origins), n)]


def _outputs(config: TilesConfig, plan: TilePlan) -> tuple[Path, ...]:
    """Return the file data of a survey tile, named after it, so that its split stays its own."""
    folder = Path(config.data_dir) / "file_data"
    parts = _parts(config, _origins(config, plan.shape))
    names = (f"file_data_{plan.tile.name}-{k}_size_{len(p)}.pt" for k, p in enumerate(parts))
    return tuple(folder / name for name in names)


def _datum(
    config: TilesConfig,
    plan: TilePlan,
    bands: TileBands,
    labels: TileLabels,
    origin: tuple[int, int],
) -> dict[str, Any]:
    """Return one image with its cells; masked pixels stay NaN, which encoders take for sky."""
    size, cell = config.image_size, config.tile_size
    shape = (size, size)
    images = np.empty((len(bands.files), *shape), np.float32)
    rows, columns = (slice(first, first + size) for first in origin)
    bands.read(rows, columns, images)
    masked = ~np.isfinite(images)
    images[masked] = np.nan
    cells = labels.cells(origin, shape)
    counts = _is_fresh(config, plan.shape, origin) & _is_seen(config, masked)
    weight = cells["cell_weight"]
    weight *= torch.from_numpy(counts.astype(np.float32).reshape(weight.shape))
    return {
        "images": torch.from_numpy(images),
        "tile_catalog": cells,
        "redshift_map": labels.redshifts(origin, shape),
        "meta": {
            **_common_meta(config),
            "index": plan.index,
            "tile": plan.tile.name,
            "origin": list(origin),
            "noise_sigma": [estimate_background(image)[1] for image in images],
            "masked_fraction": [float(band.mean()) for band in masked],
            "wcs": cutout_cards(bands.reference.cards, bands.reference.wcs, origin),
            "prior": _prior_meta(config, cells),
            "cell_px": cell,
        },
    }


def _is_fresh(
    config: TilesConfig, shape: tuple[int, int], origin: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return which cells no image before shows, shape (ny, nx)."""
    size, cell = config.image_size, config.tile_size
    axes = []
    for length, first in zip(shape, origin, strict=True):
        before = [start for start in starts(length, size, cell) if start < first]
        end = before[-1] + size if before else 0
        axes.append(first + np.arange(0, size, cell) >= end)
    return np.logical_and.outer(*axes)


def _is_seen(config: TilesConfig, masked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which cells have enough pixels that no band masks, shape (ny, nx).

    Args:
        config: The settings.
        masked: Shape (C, H, W).
    """
    n, cell = config.image_size // config.tile_size, config.tile_size
    in_any = np.logical_or.reduce(masked)
    fraction = in_any.reshape(n, cell, n, cell).mean(axis=(1, 3))
    seen: NDArray[np.bool_] = fraction <= config.mask_fraction_max
    return seen


def _common_meta(config: TilesConfig) -> dict[str, Any]:
    """Return the plain values that all images share."""
    survey = config.survey_settings
    return {
        "format_version": FORMAT_VERSION,
        "seed": config.seed,
        "config_hash": config.content_hash(),
        "package_version": VERSION,
        "bands": list(survey.bands),
        "reference_band": config.reference_band,
        "pixel_scale": float(survey.pixel_scale),
        "zero_point": float(config.zero_point),
        "psf_fwhm": [],
        "units": dict(UNITS),
    }


def _prior_meta(config: TilesConfig, cells: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return where the labels come from, without paths of this machine."""
    content = config.content()
    keys = ("label", "min_probability", "ignore_probability", "richness_min", "redshift_range")
    return {
        "kind": "tiles",
        "survey": config.survey_settings.name,
        "reference": content["reference"],
        "clusters": content["clusters"],
        **{key: content[key] for key in keys},
        "cell_prevalence": float(cells["membership"].float().mean()),
    }
