"""Bins a source catalog on cells and joins it with the images of the field.

Cells follow the image: the source at pixel (x, y) lies in row y // cell_px and column
x // cell_px, counted from the first pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray

from datagen.errors import DataFormatError
from datagen.fields.schema import PATCH_PX

UNITS = {
    "images": "counts",
    "fluxes": "counts",
    "locs": "fraction of the cell (row, col)",
    "galaxy_params": "HLR arcsec, G1, G2, FRACDEV",
    "noise_sigma": "counts",
    "psf_fwhm": "arcsec",
    "pixel_scale": "arcsec/px",
    "zero_point": "mag",
    "cell_px": "px",
    "cluster_richness": "red members brighter than 0.2 L* within R_lambda",
}
GALAXY_PARAMS = ("HLR", "G1", "G2", "FRACDEV")
# What a redshift map says where there is no source bright enough.
NO_SOURCE = -1.0


@dataclass(frozen=True)
class CellRules:
    """How sources become cell labels.

    Args:
        cell_px: Side of a cell [px].
        bands: Bands in the order of the images.
        reference_band: Band in which sources are compared.
        min_flux: Faintest member that labels its cell, reference band [counts].
    """

    cell_px: int
    bands: tuple[str, ...]
    reference_band: str
    min_flux: float


def cell_catalog(
    sources: Table, shape: tuple[int, int], rules: CellRules, clusters: Table
) -> dict[str, torch.Tensor]:
    """Bin a source catalog on the cells of an image.

    A cell is labelled if any member of a labelled system in it is at least `min_flux` bright; the
    brightest of these members gives it the redshift and the richness of its system. Its other keys
    describe its brightest source in the reference band. The weight is 0 where the only members
    belong to systems that are neither to be found nor to count as background.

    Args:
        sources: Source catalog with pixel positions.
        shape: Image shape (H, W) [px], multiples of the cell.
        rules: Cell size, bands and limits.
        clusters: Cluster table with the systems of the labelled members.

    Returns:
        Tensors with leading shape (ny, nx); see `datagen.fields.schema.CELL_KEYS`.

    Raises:
        DataFormatError: A labelled member belongs to a system that the table lacks.
    """
    # A pixel reaches from -0.5 to +0.5 around its centre, so the image begins at -0.5.
    row = (np.asarray(sources["Y"], np.float64) + 0.5) / rules.cell_px
    col = (np.asarray(sources["X"], np.float64) + 0.5) / rules.cell_px
    ny, nx = shape[0] // rules.cell_px, shape[1] // rules.cell_px
    inside = (row >= 0) & (row < ny) & (col >= 0) & (col < nx)
    found, row, col = sources[inside], row[inside], col[inside]
    cell = np.floor(row).astype(np.int64) * nx + np.floor(col).astype(np.int64)
    flux = _flux(found, rules.reference_band)
    is_bright = flux >= rules.min_flux
    counts = _member_counts(found, cell, is_bright, ny * nx)
    flat = {"n_sources": np.bincount(cell, minlength=ny * nx), **counts}
    chosen = _brightest_in(cell, np.where(is_bright & _is_labelled(found), flux, -np.inf), ny * nx)
    flat |= _systems(found["CLUSTER_ID"], chosen, clusters)
    flat |= _brightest(found, cell, np.stack([row % 1.0, col % 1.0], -1), rules, ny * nx)
    return {key: _grid(key, value, (ny, nx)) for key, value in flat.items()}


def redshift_map(
    sources: Table, shape: tuple[int, int], band: str, min_flux: float
) -> torch.Tensor:
    """Map the redshifts of bright sources finely: an extra target for encoders.

    Args:
        sources: Source catalog with pixel positions.
        shape: Image shape (H, W) [px].
        band: Band in which sources are compared.
        min_flux: Faintest source that counts [counts].

    Returns:
        Redshift of the brightest source in each 16 px square, 0 for a star, -1 without source;
        float32 (ceil(H / 16), ceil(W / 16)).
    """
    ny, nx = (-(-side // PATCH_PX) for side in shape)
    flux = _flux(sources, band)
    row = np.floor((np.asarray(sources["Y"], np.float64) + 0.5) / PATCH_PX).astype(np.int64)
    col = np.floor((np.asarray(sources["X"], np.float64) + 0.5) / PATCH_PX).astype(np.int64)
    used = (row >= 0) & (row < ny) & (col >= 0) & (col < nx) & (flux >= min_flux)
    rising = np.argsort(flux[used], kind="stable")
    result = np.full((ny, nx), NO_SOURCE, np.float32)
    # Of several assignments to the same square the last one, the brightest, stays.
    result[row[used][rising], col[used][rising]] = np.asarray(sources["Z"])[used][rising]
    return torch.from_numpy(result)


def _flux(sources: Table, band: str) -> NDArray[np.float64]:
    return np.asarray(sources[f"FLUX_{band.upper()}"], np.float64)


def _member_counts(
    sources: Table, cell: NDArray[np.int64], is_bright: NDArray[np.bool_], n_cells: int
) -> dict[str, NDArray[Any]]:
    """Count labelled members per cell and find the cells that are not to be judged."""
    is_counted = np.asarray(sources["LABEL_WEIGHT"]) > 0
    labelled = np.bincount(cell[_is_labelled(sources) & is_bright], minlength=n_cells)
    ignored = np.bincount(cell[~is_counted & is_bright], minlength=n_cells)
    weight = np.where((labelled == 0) & (ignored > 0), 0.0, 1.0)
    return {"n_members": labelled, "membership": labelled > 0, "cell_weight": weight}


def _brightest(
    sources: Table,
    cell: NDArray[np.int64],
    locs: NDArray[np.float64],
    rules: CellRules,
    n_cells: int,
) -> dict[str, NDArray[Any]]:
    """Return the properties of the brightest source per cell; zeros in empty cells."""
    chosen = _brightest_in(cell, _flux(sources, rules.reference_band), n_cells)
    is_filled = chosen >= 0
    columns = {
        "locs": locs,
        "fluxes": np.stack([_flux(sources, band) for band in rules.bands], -1),
        "redshift": np.asarray(sources["Z"], np.float64)[:, None],
        "source_type": np.asarray(sources["SOURCE_TYPE"], np.float64)[:, None],
        "galaxy_params": np.stack([np.asarray(sources[k], np.float64) for k in GALAXY_PARAMS], -1),
    }
    result = {}
    for key, values in columns.items():
        result[key] = np.zeros((n_cells, values.shape[1]))
        result[key][is_filled] = values[chosen[is_filled]]
    return result


def _is_labelled(sources: Table) -> NDArray[np.bool_]:
    """Return which sources are members that label their cells, however bright."""
    labelled: NDArray[np.bool_] = (np.asarray(sources["LABEL_WEIGHT"]) > 0) & (
        np.asarray(sources["MEM"]) > 0
    )
    return labelled


def _brightest_in(
    cell: NDArray[np.int64], flux: NDArray[np.float64], n_cells: int
) -> NDArray[np.int64]:
    """Return the row of the brightest source per cell, -1 without one; -inf takes no part."""
    rising = np.argsort(flux, kind="stable")
    rising = rising[flux[rising] > -np.inf]
    chosen = np.full(n_cells, -1)
    # Of several assignments to the same cell the last one, the brightest, stays.
    chosen[cell[rising]] = rising
    return chosen


def _systems(
    cluster_id: NDArray[np.int64], chosen: NDArray[np.int64], clusters: Table
) -> dict[str, NDArray[Any]]:
    """Return redshift and richness of the systems of the chosen members; 0 in cells without."""
    is_filled = chosen >= 0
    wanted = np.asarray(cluster_id)[chosen[is_filled]]
    row_of = {int(known): row for row, known in enumerate(clusters["CLUSTER_ID"])}
    missing = sorted(set(wanted.tolist()) - row_of.keys())
    if missing:
        raise DataFormatError(
            f"expected the cluster table to hold the systems of all labelled members, but it has "
            f"no CLUSTER_ID = {missing[0]}; make both again with: python datagen/run.py "
            "data_gen=fields data_gen.phases=[catalog] data_gen.overwrite=true",
            missing,
        )
    rows = [row_of[known] for known in wanted.tolist()]
    result = {}
    for key, column in (("cluster_redshift", "Z"), ("cluster_richness", "RICHNESS")):
        result[key] = np.zeros(len(chosen))
        result[key][is_filled] = np.asarray(clusters[column], np.float64)[rows]
    return result


def _grid(key: str, values: NDArray[Any], grid: tuple[int, int]) -> torch.Tensor:
    """Shape per-cell values to (ny, nx) for counts of all sources, else to (ny, nx, 1, ...)."""
    if key == "n_sources":
        return torch.from_numpy(values.astype(np.int64).reshape(grid))
    kind = {"n_members": np.int64, "membership": np.bool_}.get(key, np.float32)
    cells: NDArray[Any] = values.astype(kind).reshape(*grid, 1, -1)
    if key == "locs":
        # Rounding to single precision may reach 1, which belongs to the next cell.
        cells = np.minimum(cells, np.nextafter(np.float32(1), np.float32(0)))
    return torch.from_numpy(cells)
