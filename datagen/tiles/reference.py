"""Clusters and their members on the sky: which of them label cells, and which are to be ignored."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen.errors import ConfigError, DataFormatError
from datagen.fields.catalogs import check_finite, check_probability, column
from datagen.tiles.catalogs import (
    KNOWN_NAMES,
    Words,
    find_columns,
    flags,
    floats,
    names,
    read_table,
)
from datagen.tiles.geometry import unit_vectors

if TYPE_CHECKING:
    from datagen.tiles.config import TilesConfig

log = logging.getLogger(__name__)

MEMBERS = Words("data_gen.reference", "data_gen.columns")
CLUSTERS = Words("data_gen.clusters", "data_gen.columns")
# In redMaPPer PMEM is P times the probabilities that no other cluster has the galaxy and that it
# is bright and near enough (Rykoff et al. 2014, arXiv:1303.3562).
MEMBER_NAMES = KNOWN_NAMES | {"pmem": ("pmem", "p_mem", "p")}
# An array of magnitudes has one element per band: ugriz in SDSS, griz in DES.
ARRAYS = {5: "ugriz", 4: "griz"}
ARRAY_NAMES = ("MAG", "MODEL_MAG")
BAND_NAMES = ("MAG_{}", "MODEL_MAG_{}", "MAG_AUTO_{}", "{}MAG")
# Outside, catalogues write what they do not know.
MAG_RANGE = (0.0, 40.0)


@dataclass(frozen=True)
class Reference:
    """Members and their systems, in the columns of the simulator's catalogues as far as known.

    Args:
        members: RA, DEC [deg], Z of the system, CLUSTER_ID, MEM, LABEL_WEIGHT, and FLUX of each
            band [counts], 0 where unknown; without members if cells are labelled by circles.
        systems: CLUSTER_ID, RA, DEC [deg], Z, RICHNESS, LABELLED.
        has_fluxes: Whether fluxes are known; otherwise all members count as bright.
    """

    members: Table
    systems: Table
    has_fluxes: bool

    @functools.cached_property
    def positions(self) -> NDArray[np.float64]:
        """Unit vectors of the members, or of the systems where there are none, shape (n, 3)."""
        table = self.members if len(self.members) else self.systems
        return unit_vectors(table["RA"], table["DEC"])


def load_reference(config: TilesConfig) -> Reference:
    """Read the reference of a configuration; once in each process.

    Raises:
        DataNotFoundError: A table is missing.
        DataFormatError: A table cannot be read, lacks a column, or has values out of range.
        ConfigError: The tables do not allow what `data_gen.label` asks for.
    """
    return _load(_Key(config, config.content_hash()))


class _Key:
    """A configuration, which is not hashable, by its content."""

    def __init__(self, config: TilesConfig, content: str) -> None:
        self.config, self._content = config, content

    def __hash__(self) -> int:
        return hash(self._content)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._content == other._content


@functools.lru_cache(maxsize=1)
def _load(key: _Key) -> Reference:
    config = key.config
    path = Path(str(config.reference))
    table = read_table(path, MEMBERS)
    found = find_columns(table, config.columns, path, MEMBERS, known=MEMBER_NAMES)
    if config.label == "circle":
        return Reference(Table(), _clusters(config, path, MEMBERS), has_fluxes=False)
    if "pmem" not in found or "id" not in found:
        missing = "membership probability (PMEM, P)" if "pmem" not in found else "MEM_MATCH_ID"
        raise ConfigError(
            f"expected data_gen.reference = {path} to be a members table, but it has no column of "
            f"{missing}; it has {', '.join(table.colnames)}; data_gen.columns maps names, and "
            "data_gen.label=circle labels the cells within R_lambda of the clusters of a table",
            value=str(path),
        )
    table = table[_with_position(table, found, path)]
    probability = floats(table, "pmem", found)
    check_finite(probability, found["pmem"], str(path))
    check_probability(probability, found["pmem"], str(path))
    keys = names(table, "id", found)
    if config.clusters is None:
        systems, rows = _from_members(table, found, keys, probability)
    else:
        systems = _clusters(config, Path(config.clusters), CLUSTERS)
        rows = _rows_of(keys, np.asarray(systems["NAME"]))
    systems["LABELLED"] &= _is_in_range(config, systems)
    members, has_fluxes = _members(config, table, found, probability)
    members["CLUSTER_ID"] = rows
    is_known = rows >= 0
    is_sure = probability >= config.min_probability
    is_labelled = is_known & is_sure
    is_labelled[is_known] &= np.asarray(systems["LABELLED"])[rows[is_known]]
    members["MEM"], members["LABEL_WEIGHT"] = is_labelled, is_labelled.astype(float)
    members["SURE"] = is_sure & is_known
    members["Z"] = np.where(is_known, np.asarray(systems["Z"])[np.maximum(rows, 0)], 0.0)
    # Of those below, nothing is known: they are galaxies like others.
    return Reference(members[probability >= config.ignore_probability], systems, has_fluxes)


def _with_position(table: Table, found: dict[str, str], path: Path) -> NDArray[np.bool_]:
    known = np.isfinite(floats(table, "ra", found)) & np.isfinite(floats(table, "dec", found))
    if not known.all():
        log.warning("%d of %d rows of %s have no position", (~known).sum(), len(known), path)
    if not known.any():
        raise DataFormatError(f"{path} holds no row with a position", value=str(path))
    return known


def _clusters(config: TilesConfig, path: Path, words: Words) -> Table:
    """Return the systems of a cluster table; those of unknown richness or redshift do not count."""
    table = read_table(path, words)
    found = find_columns(
        table, config.columns, path, words, needed=("ra", "dec", "redshift", "richness")
    )
    table = table[_with_position(table, found, path)]
    systems = Table({"NAME": names(table, "id", found), "CLUSTER_ID": np.arange(len(table))})
    systems["RA"], systems["DEC"] = (floats(table, name, found) for name in ("ra", "dec"))
    systems["Z"], systems["RICHNESS"] = (
        floats(table, name, found) for name in ("redshift", "richness")
    )
    systems["LABELLED"] = flags(table, "labelled", found, path)
    systems["LABELLED"] &= _is_in_range(config, systems)
    return systems


def _from_members(
    table: Table,
    found: dict[str, str],
    keys: NDArray[np.str_],
    probability: NDArray[np.float64],
) -> tuple[Table, NDArray[np.int64]]:
    """Return the systems that members make up, and the system of each member.

    The richness is the sum of the membership probabilities, the redshift the median.
    """
    ids, rows = np.unique(keys, return_inverse=True)
    z, given = floats(table, "redshift", found), floats(table, "richness", found)
    order = np.argsort(rows, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(rows[order])) + 1)
    systems = Table({"NAME": ids, "CLUSTER_ID": np.arange(len(ids))})
    systems["Z"] = [float(np.median(z[group])) for group in groups]
    summed = np.bincount(rows, weights=probability, minlength=len(ids))
    first = np.array([given[group[0]] for group in groups])
    systems["RICHNESS"] = np.where(np.isfinite(first), first, summed)
    systems["LABELLED"] = np.ones(len(ids), bool)
    return systems, rows.astype(np.int64)


def _rows_of(keys: NDArray[np.str_], known: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return the row of each key in the cluster table, -1 where it has none."""
    row_of = {name: row for row, name in enumerate(known.tolist())}
    return np.array([row_of.get(key, -1) for key in keys.tolist()], np.int64)


def _is_in_range(config: TilesConfig, systems: Table) -> NDArray[np.bool_]:
    low, high = config.redshift_range
    z, richness = np.asarray(systems["Z"]), np.asarray(systems["RICHNESS"])
    # Comparisons with NaN are false: what is not known does not label.
    result: NDArray[np.bool_] = (richness >= config.richness_min) & (z >= low) & (z <= high)
    return result


def _members(
    config: TilesConfig, table: Table, found: dict[str, str], probability: NDArray[np.float64]
) -> tuple[Table, bool]:
    """Return positions and fluxes, and whether these are known."""
    members = Table({"RA": floats(table, "ra", found), "DEC": floats(table, "dec", found)})
    bands = config.survey_settings.bands
    specs = {band: _magnitude_column(config, table, band) for band in bands}
    for band, spec in specs.items():
        flux = np.zeros(len(table))
        if spec is not None:
            mags = column(table, spec, str(config.reference))
            known = (mags > MAG_RANGE[0]) & (mags < MAG_RANGE[1])
            flux[known] = 10.0 ** (0.4 * (config.zero_point - mags[known]))
        members[f"FLUX_{band.upper()}"] = flux
    has_fluxes = specs[config.reference_band] is not None
    if not has_fluxes:
        log.warning(
            "%s has no magnitude in %s: all members count as bright; data_gen.magnitudes names "
            "columns",
            config.reference,
            config.reference_band,
        )
    return members, has_fluxes


def _magnitude_column(config: TilesConfig, table: Table, band: str) -> str | None:
    """Return the column of a band's magnitude: the configured one, or one that is recognised."""
    if band in config.magnitudes:
        return config.magnitudes[band]
    for pattern in BAND_NAMES:
        name = pattern.format(band.upper())
        if name in table.colnames:
            return name
    for name in ARRAY_NAMES:
        shape: Any = table[name].shape if name in table.colnames else ()
        index = ARRAYS.get(shape[-1], "").find(band) if len(shape) > 1 else -1
        if index >= 0:
            return f"{name}[{index}]"
    return None
