"""Labels of the cells of images that are cut out of survey tiles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from astropy.table import Table, vstack
from astropy.wcs import WCS
from numpy.typing import NDArray

from datagen.fields import format as files
from datagen.fields.clusters import r_lambda_mpc
from datagen.fields.cosmology import ARCSEC_PER_RAD, arcsec_per_mpc
from datagen.fields.datum import GALAXY_PARAMS, CellRules, cell_catalog, redshift_map
from datagen.tiles.geometry import chord, pixel_to_sky, sky_to_pixel, unit_vectors
from datagen.tiles.reference import Reference, load_reference

if TYPE_CHECKING:
    from datagen.tiles.config import TilesConfig

TRUTH_FILE = "truth_clusters.ecsv"
CLUSTER_KEYS = {"cluster_redshift": "Z", "cluster_richness": "RICHNESS"}


@dataclass(frozen=True)
class TileLabels:
    """Sources and systems of one survey tile.

    Args:
        sources: Columns of a source catalog, as far as they matter for cells.
        systems: CLUSTER_ID, RA, DEC, Z, RICHNESS, LABELLED.
        wcs: Of the survey tile.
        rules: Cell size, bands and limits.
        min_flux_for_redshift: Faintest source in the redshift map [counts].
        by_circle: Whether cells within R_lambda of a system are labelled, instead of members'.
    """

    sources: Table
    systems: Table
    wcs: WCS
    rules: CellRules
    min_flux_for_redshift: float
    by_circle: bool

    def cells(self, origin: tuple[int, int], shape: tuple[int, int]) -> dict[str, torch.Tensor]:
        """Return the cell catalog of an image.

        Args:
            origin: First (row, column) of the image [px].
            shape: (H, W) of the image [px].
        """
        if self.by_circle:
            return circle_cells(self, origin, shape)
        sources = moved(self.sources, origin)
        result = cell_catalog(sources, shape, self.rules, self.systems)
        if "HAS_FLUX" in sources.colnames:
            unknown = sources[~np.asarray(sources["HAS_FLUX"], bool)]
            _ignore(result, unknown, self.rules.cell_px)
        return result

    def redshifts(self, origin: tuple[int, int], shape: tuple[int, int]) -> torch.Tensor:
        """Return the redshift map of an image; of doubtful members no redshift is known."""
        sources = moved(self.sources, origin)
        if "SURE" in sources.colnames:
            sources = sources[np.asarray(sources["SURE"])]
        return redshift_map(sources, shape, self.rules.reference_band, self.min_flux_for_redshift)


def tile_labels(
    config: TilesConfig, tile: str, wcs: WCS, shape: tuple[int, int], scales: dict[str, float]
) -> TileLabels:
    """Gather what labels the cells of a survey tile.

    Args:
        config: The settings.
        tile: Name of the survey tile.
        wcs: Of the survey tile.
        shape: (H, W) of the survey tile [px].
        scales: Factor that brings stored counts to the zero point, for each band.

    Raises:
        DataNotFoundError: A catalogue is missing.
        DataFormatError: A catalogue is damaged.
        ConfigError: The reference cannot label cells as it is asked to.
    """
    bands = tuple(config.survey_settings.bands)
    # They are given at zero point 30.
    to_counts = 10.0 ** (0.4 * (config.zero_point - 30.0))
    limits = (config.min_flux_for_loss * to_counts, config.min_flux_for_redshift * to_counts)
    if config.has_truth:
        sources, systems = _read_truth(config, tile, scales)
    else:
        reference = load_reference(config)
        sources = on_tile(reference, wcs, shape, bands)
        systems = reference.systems
        if config.label == "circle":
            systems = systems[is_near(reference.positions, wcs, shape, _radii(systems))]
        limits = limits if reference.has_fluxes else (0.0, 0.0)
    rules = CellRules(config.tile_size, bands, config.reference_band, limits[0])
    return TileLabels(sources, systems, wcs, rules, limits[1], config.label == "circle")


def truth_paths(config: TilesConfig, tile: str) -> tuple[Path, Path]:
    """Return the names of the source catalog of a simulated tile and of all clusters' table."""
    folder = Path(config.tiles_dir)
    return folder / str(config.reference).replace("{tile}", tile), folder / TRUTH_FILE


def _read_truth(config: TilesConfig, tile: str, scales: dict[str, float]) -> tuple[Table, Table]:
    sources_path, clusters_path = truth_paths(config, tile)
    sources, clusters = files.read_catalog(sources_path), files.read_clusters(clusters_path)
    for band, scale in scales.items():
        sources[f"FLUX_{band.upper()}"] *= scale
    systems = _completed(clusters["CLUSTER_ID", "Z", "RICHNESS"], sources)
    _ignore_out_of_range(config, sources, systems)
    return sources, systems


def _ignore_out_of_range(config: TilesConfig, sources: Table, systems: Table) -> None:
    """Give the members of systems that are too poor or out of the redshift range weight 0.

    Of systems that are centred outside all survey tiles the richness is not known.
    """
    low, high = config.redshift_range
    z, richness = np.asarray(systems["Z"]), np.asarray(systems["RICHNESS"])
    is_out = (z < low) | (z > high) | ((richness > 0) & (richness < config.richness_min))
    ignored = np.isin(sources["CLUSTER_ID"], np.asarray(systems["CLUSTER_ID"])[is_out])
    sources["LABEL_WEIGHT"][ignored & (np.asarray(sources["MEM"]) > 0)] = 0.0


def _completed(systems: Table, sources: Table) -> Table:
    """Add the systems of members that are centred outside all survey tiles, of richness 0."""
    members = sources[np.asarray(sources["MEM"]) > 0]
    numbers, first = np.unique(members["CLUSTER_ID"], return_index=True)
    is_new = ~np.isin(numbers, systems["CLUSTER_ID"])
    new = {"CLUSTER_ID": numbers[is_new], "Z": members["Z"][first[is_new]]}
    return vstack([systems, Table(new | {"RICHNESS": np.zeros(is_new.sum())})])


def on_tile(
    reference: Reference, wcs: WCS, shape: tuple[int, int], bands: tuple[str, ...]
) -> Table:
    """Return the members on a survey tile, with their pixels and what a source catalog needs."""
    if not len(reference.members):
        return _without_sources(bands)
    members = reference.members[is_near(reference.positions, wcs, shape)]
    members["X"], members["Y"] = sky_to_pixel(wcs, members["RA"], members["DEC"])
    inside = is_on(members["X"], members["Y"], shape)
    members = members[inside]
    for name in (*GALAXY_PARAMS, "SOURCE_TYPE"):
        members[name] = np.zeros(len(members))
    return members


def is_near(
    positions: NDArray[np.float64],
    wcs: WCS,
    shape: tuple[int, int],
    reach_rad: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.bool_]:
    """Return which unit vectors, shape (n, 3), come within their reach of an image's circle."""
    height, width = shape
    x = [(width - 1) / 2, -0.5, width - 0.5, -0.5, width - 0.5]
    y = [(height - 1) / 2, -0.5, -0.5, height - 0.5, height - 0.5]
    centre, *corners = unit_vectors(*pixel_to_sky(wcs, x, y))
    radius = max(float(np.linalg.norm(corner - centre)) for corner in corners)
    reach = 1.01 * radius + chord(reach_rad)
    near: NDArray[np.bool_] = np.linalg.norm(positions - centre, axis=1) <= reach
    return near


def is_on(
    x: NDArray[np.float64], y: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return which pixel positions lie on an image; the first pixel begins at -0.5."""
    x, y = np.asarray(x), np.asarray(y)
    inside: NDArray[np.bool_] = (
        (x >= -0.5) & (x < shape[1] - 0.5) & (y >= -0.5) & (y < shape[0] - 0.5)
    )
    return inside


def moved(sources: Table, origin: tuple[int, int]) -> Table:
    """Return sources with pixel positions on an image that begins at `origin` (row, column)."""
    result = sources.copy(copy_data=False)
    result["X"], result["Y"] = sources["X"] - origin[1], sources["Y"] - origin[0]
    return result


def _ignore(cells: dict[str, torch.Tensor], sources: Table, cell_px: int) -> None:
    """Give cells that hold one of some sources, but no labelled member, weight 0, in place."""
    ny, nx = cells["membership"].shape[:2]
    row, column = (np.floor((np.asarray(sources[k]) + 0.5) / cell_px).astype(int) for k in "YX")
    inside = (row >= 0) & (row < ny) & (column >= 0) & (column < nx)
    holds = torch.zeros((ny, nx, 1, 1), dtype=torch.bool)
    holds[row[inside], column[inside]] = True
    cells["cell_weight"][holds & ~cells["membership"]] = 0.0


def circle_cells(
    labels: TileLabels, origin: tuple[int, int], shape: tuple[int, int]
) -> dict[str, torch.Tensor]:
    """Return a cell catalog that labels the cells whose centre is within R_lambda of a system.

    R_lambda = (lambda / 100)^0.2 h^-1 Mpc (Rykoff et al. 2014, arXiv:1303.3562), at the redshift of
    the system. The cell with its centre is labelled in any case. `n_members` counts the circles;
    redshift and richness are those of the richest system. Of sources nothing is known.
    """
    cell, systems = labels.rules.cell_px, labels.systems
    ny, nx = shape[0] // cell, shape[1] // cell
    covers = _covers(labels, origin, (ny, nx))
    is_labelled = np.asarray(systems["LABELLED"], bool)
    n_labelled = covers[:, :, is_labelled].sum(axis=2)
    n_ignored = covers[:, :, ~is_labelled].sum(axis=2)
    result = cell_catalog(labels.sources, shape, labels.rules, systems)
    one = (ny, nx, 1, 1)
    result["n_members"] = torch.from_numpy(n_labelled.astype(np.int64).reshape(one))
    result["membership"] = result["n_members"] > 0
    weight = np.where((n_labelled == 0) & (n_ignored > 0), 0.0, 1.0)
    result["cell_weight"] = torch.from_numpy(weight.astype(np.float32).reshape(one))
    richness = np.where(is_labelled & covers, np.asarray(systems["RICHNESS"]), -1.0)
    richest = np.argmax(richness, axis=2) if len(systems) else np.zeros((ny, nx), int)
    for key, name in CLUSTER_KEYS.items():
        values = np.zeros((ny, nx), np.float32)
        values[n_labelled > 0] = np.asarray(systems[name])[richest[n_labelled > 0]]
        result[key] = torch.from_numpy(values.reshape(one))
    return result


def _covers(
    labels: TileLabels, origin: tuple[int, int], grid: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return whether the circle of each system covers each cell, shape (ny, nx, n)."""
    cell, systems = labels.rules.cell_px, labels.systems
    rows, columns = ((np.arange(n) + 0.5) * cell - 0.5 + first
                     for n, first in zip(grid, origin, strict=True))  # fmt: skip
    y, x = np.meshgrid(rows, columns, indexing="ij")
    cells = unit_vectors(*pixel_to_sky(labels.wcs, x.ravel(), y.ravel())).reshape(*grid, 3)
    radii, centres = _radii(systems), unit_vectors(systems["RA"], systems["DEC"])
    distance = np.linalg.norm(cells[:, :, None] - centres, axis=-1)
    covers: NDArray[np.bool_] = (distance <= chord(radii)) & (radii > 0)
    x, y = sky_to_pixel(labels.wcs, systems["RA"], systems["DEC"])
    height, width = (n * cell for n in grid)
    here = is_on(x - origin[1], y - origin[0], (height, width)) & (radii > 0)
    row, column = ((axis[here] - first + 0.5) // cell
                   for axis, first in zip((y, x), origin, strict=True))  # fmt: skip
    covers[row.astype(int), column.astype(int), np.flatnonzero(here)] = True
    return covers


def _radii(systems: Table) -> NDArray[np.float64]:
    """Return R_lambda of each system [rad], 0 where redshift or richness are unknown."""
    z, richness = np.asarray(systems["Z"]), np.asarray(systems["RICHNESS"])
    is_known = (z > 0) & (richness > 0)
    angle = np.zeros(len(systems))
    angle[is_known] = r_lambda_mpc(richness[is_known]) * arcsec_per_mpc(z[is_known])
    return angle / ARCSEC_PER_RAD


def _without_sources(bands: tuple[str, ...]) -> Table:
    fluxes = [f"FLUX_{band.upper()}" for band in bands]
    return Table({name: np.empty(0) for name in (*files.CATALOG_COLUMNS, *fluxes)})
