"""Reads truth and reference cluster catalogues into one form.

Which files and columns are known stands in `datagen.tiles.catalogs`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen.errors import DataFormatError
from datagen.tiles.catalogs import Words, find_columns, flags, floats, read_table
from datagen.tiles.geometry import unit_vectors
from inference.survey.matching import SkyCatalog

log = logging.getLogger(__name__)

_WORDS = Words("evaluate.reference", "evaluate.columns")


@dataclass(frozen=True)
class ReferenceCatalog:
    """Clusters to compare with.

    Args:
        ids: Identifiers, shape (n,).
        sky: Positions, richness as mass (0 where unknown), redshift (NaN where unknown).
        richness: NaN where unknown, shape (n,).
        labelled: Whether the encoder was asked to find it, shape (n,).
    """

    ids: NDArray[np.str_]
    sky: SkyCatalog
    richness: NDArray[np.float64]
    labelled: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: NDArray[np.bool_]) -> ReferenceCatalog:
        """Return the rows where `rows` is true."""
        return make_reference(
            self.ids[rows],
            (self.sky.ra[rows], self.sky.dec[rows]),
            self.sky.redshift[rows],
            self.richness[rows],
            self.labelled[rows],
        )


def read_reference(path: Path, columns: Mapping[str, str | None] | None = None) -> ReferenceCatalog:
    """Read a cluster catalogue.

    Args:
        path: ECSV, CSV or FITS file, gzipped or not.
        columns: Our names (id, ra, dec, redshift, richness, labelled, pmem) -> names in the file;
            names that are left out are recognised.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: The file cannot be read, or a needed column is missing.
        ConfigError: The column map names what is unknown.
    """
    table = read_table(path, _WORDS)
    found = find_columns(table, columns or {}, path, _WORDS)
    table = _with_positions(table, found, path)
    if not len(table):
        raise DataFormatError(
            f"{path} holds no cluster with a position; evaluate.reference names a catalogue with "
            "clusters",
            value=str(path),
        )
    if "pmem" in found:
        return _from_members(table, found)
    n = len(table)
    return make_reference(
        np.asarray(table[found["id"]]).astype(str) if "id" in found else np.arange(n).astype(str),
        (floats(table, "ra", found), floats(table, "dec", found)),
        floats(table, "redshift", found),
        floats(table, "richness", found),
        flags(table, "labelled", found, path),
    )


def make_reference(
    ids: NDArray[np.str_],
    position: tuple[NDArray[np.float64], NDArray[np.float64]],
    redshift: NDArray[np.float64],
    richness: NDArray[np.float64],
    labelled: NDArray[np.bool_],
) -> ReferenceCatalog:
    """Return a catalogue from arrays of shape (n,); position is (ra, dec) [deg]."""
    sky = SkyCatalog(*position, np.nan_to_num(richness, nan=0.0), redshift)
    return ReferenceCatalog(ids, sky, richness, labelled)


def _with_positions(table: Table, found: Mapping[str, str], path: Path) -> Table:
    """Return the rows whose position is known."""
    known = np.isfinite(floats(table, "ra", found)) & np.isfinite(floats(table, "dec", found))
    if known.all():
        return table
    log.warning("%d of %d rows of %s have no position: left out", (~known).sum(), len(known), path)
    return table[known]


def _from_members(table: Table, found: Mapping[str, str]) -> ReferenceCatalog:
    """Return one cluster for each identifier: richness = sum of membership probabilities.

    The position is the mean of the members', weighted by probability: members tables do not hold
    the centre.
    """
    pmem = np.nan_to_num(floats(table, "pmem", found))
    cluster = np.asarray(table[found["id"]]).astype(str) if "id" in found else np.zeros(len(pmem))
    ids, rows = np.unique(cluster.astype(str), return_inverse=True)
    vectors = unit_vectors(floats(table, "ra", found), floats(table, "dec", found))
    mean = np.zeros((len(ids), 3))
    np.add.at(mean, rows, vectors * pmem[:, None])
    redshift = floats(table, "redshift", found)
    ra = np.degrees(np.arctan2(mean[:, 1], mean[:, 0])) % 360
    dec = np.degrees(np.arctan2(mean[:, 2], np.hypot(mean[:, 0], mean[:, 1])))
    z = np.array([np.median(redshift[rows == k]) for k in range(len(ids))])
    richness = np.zeros(len(ids))
    np.add.at(richness, rows, pmem)
    return make_reference(ids, (ra, dec), z, richness, np.ones(len(ids), bool))
