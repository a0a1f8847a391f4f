"""Reads truth and reference cluster catalogues into one form.

Known by their columns: the truth of simulated survey tiles (ECSV), redMaPPer cluster and member
tables (FITS), clusterdb tables (CSV, also gzipped); any other table through a column map.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Table
from astropy.units import UnitsWarning
from numpy.typing import NDArray

from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.tiles.geometry import unit_vectors
from datagen.tiles.survey import BUILD_SURVEY
from inference.survey.matching import SkyCatalog

log = logging.getLogger(__name__)

# What a column is called in the catalogues we know, in order of preference.
KNOWN_NAMES = {
    "id": ("cluster_id", "mem_match_id", "id", "name"),
    "ra": ("ra", "ra_deg", "raj2000"),
    "dec": ("dec", "dec_deg", "dej2000"),
    "redshift": ("z", "redshift", "z_lambda", "z_spec"),
    "richness": ("richness", "lambda", "lambda_chisq"),
    "labelled": ("labelled",),
    "pmem": ("pmem",),
}
_NEEDED = ("ra", "dec")
_FORMATS = {".ecsv": "ascii.ecsv", ".csv": "ascii.csv", ".csv.gz": "ascii.csv", ".fit": "fits"}
_FORMATS |= {".fits": "fits", ".fits.gz": "fits"}


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
    table = _read_table(path)
    wanted = {name: column for name, column in (columns or {}).items() if column is not None}
    found = _columns(table, wanted, path)
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
        (_floats(table, "ra", found), _floats(table, "dec", found)),
        _floats(table, "redshift", found),
        _floats(table, "richness", found),
        _flags(table, found, path),
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


def _read_table(path: Path) -> Table:
    if not path.is_file():
        raise DataNotFoundError(
            f"evaluate.reference = {path} does not exist; the truth of simulated survey tiles is "
            f"made by `{BUILD_SURVEY}`",
            value=str(path),
        )
    kind = next((_FORMATS[s] for s in sorted(_FORMATS) if path.name.lower().endswith(s)), None)
    if kind is None:
        raise DataFormatError(
            f"expected {path.name} to end with {', '.join(sorted(_FORMATS))}", value=path.name
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnitsWarning)
            return Table.read(path, format=kind)
    except Exception as error:  # astropy's readers raise many unrelated classes
        reason = " ".join(str(error).split())
        raise DataFormatError(f"{path} cannot be read: {reason}", value=str(path)) from error


def _columns(table: Table, wanted: dict[str, str], path: Path) -> dict[str, str]:
    """Return our names -> names in the file."""
    unknown = sorted(set(wanted) - set(KNOWN_NAMES))
    if unknown:
        raise ConfigError(
            f"expected evaluate.columns to map {', '.join(KNOWN_NAMES)}, but got {unknown[0]}",
            value=unknown[0],
            allowed=tuple(KNOWN_NAMES),
        )
    by_lower = {name.lower(): name for name in reversed(table.colnames)}
    found = {}
    for ours, names in KNOWN_NAMES.items():
        candidates = (wanted[ours].lower(),) if ours in wanted else names
        match = next((by_lower[name] for name in candidates if name in by_lower), None)
        if match is not None:
            found[ours] = match
        elif ours in wanted or ours in _NEEDED:
            raise DataFormatError(
                f"{path.name} has no column {wanted.get(ours, ours)}; it has "
                f"{', '.join(table.colnames)}; evaluate.columns maps names "
                "(such as evaluate.columns.ra=ALPHA)",
                value=wanted.get(ours, ours),
                allowed=tuple(table.colnames),
            )
    return found


def _with_positions(table: Table, found: Mapping[str, str], path: Path) -> Table:
    """Return the rows whose position is known."""
    known = np.isfinite(_floats(table, "ra", found)) & np.isfinite(_floats(table, "dec", found))
    if known.all():
        return table
    log.warning("%d of %d rows of %s have no position: left out", (~known).sum(), len(known), path)
    return table[known]


def _floats(table: Table, ours: str, found: Mapping[str, str]) -> NDArray[np.float64]:
    if ours not in found:
        return np.full(len(table), np.nan)
    values = np.ma.asarray(table[found[ours]]).astype(np.float64)
    return np.asarray(np.ma.filled(values, np.nan), np.float64)


def _flags(table: Table, found: Mapping[str, str], path: Path) -> NDArray[np.bool_]:
    if "labelled" not in found:
        return np.ones(len(table), bool)
    values = np.asarray(table[found["labelled"]])
    if values.dtype.kind not in "biu":
        raise DataFormatError(
            f"expected column {found['labelled']} of {path.name} to hold true or false, but got "
            f"{values.dtype}",
            value=str(values.dtype),
        )
    return values.astype(bool)


def _from_members(table: Table, found: Mapping[str, str]) -> ReferenceCatalog:
    """Return one cluster for each identifier: richness = sum of membership probabilities.

    The position is the mean of the members', weighted by probability: members tables do not hold
    the centre.
    """
    pmem = np.nan_to_num(_floats(table, "pmem", found))
    cluster = np.asarray(table[found["id"]]).astype(str) if "id" in found else np.zeros(len(pmem))
    ids, rows = np.unique(cluster.astype(str), return_inverse=True)
    vectors = unit_vectors(_floats(table, "ra", found), _floats(table, "dec", found))
    mean = np.zeros((len(ids), 3))
    np.add.at(mean, rows, vectors * pmem[:, None])
    redshift = _floats(table, "redshift", found)
    ra = np.degrees(np.arctan2(mean[:, 1], mean[:, 0])) % 360
    dec = np.degrees(np.arctan2(mean[:, 2], np.hypot(mean[:, 0], mean[:, 1])))
    z = np.array([np.median(redshift[rows == k]) for k in range(len(ids))])
    richness = np.zeros(len(ids))
    np.add.at(richness, rows, pmem)
    return make_reference(ids, (ra, dec), z, richness, np.ones(len(ids), bool))
