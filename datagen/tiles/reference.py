"""Clusters and their members on the sky: which of them label cells, and which are to be ignored."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
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
MEMBER_NAMES = KNOWN_NAMES | {
    "pmem": ("pmem", "p_mem", "p"),
    # In a members table Z_SPEC is a galaxy's own redshift.
    "redshift": tuple(name for name in KNOWN_NAMES["redshift"] if name != "z_spec"),
}
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
        members: RA, DEC [deg], Z of the system (0: unknown), CLUSTER_ID, MEM, LABEL_WEIGHT, SURE,
            FLUX of each band [counts], 0 where unknown, and HAS_FLUX in the reference band;
            without members if cells are labelled by circles.
        systems: CLUSTER_ID, RA, DEC [deg], Z (0: unknown), RICHNESS, LABELLED.
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
    if config.label == "circle":
        systems = _clusters(config, table, path, MEMBERS, ())
        _check_labels(config, _causes(config, systems))
        return Reference(Table(), systems, has_fluxes=False)
    clusters = None if config.clusters is None else read_table(Path(config.clusters), CLUSTERS)
    others = () if clusters is None else clusters.colnames
    columns = _columns_of(config, table, others)
    found = find_columns(table, columns, path, MEMBERS, known=MEMBER_NAMES)
    _check_members(found, table, path)
    table = table[_with_position(table, found, path)]
    probability = floats(table, "pmem", found)
    check_finite(probability, found["pmem"], str(path))
    check_probability(probability, found["pmem"], str(path))
    keys = names(table, "id", found)
    if clusters is None:
        systems, rows = _from_members(table, found, keys, probability)
    else:
        place = Path(str(config.clusters))
        systems = _clusters(config, clusters, place, CLUSTERS, table.colnames)
        rows = _rows_of(keys, np.asarray(systems["NAME"]))
    members, has_fluxes = _members(config, table, found, probability)
    _label(config, members, systems, rows, probability)
    # Of those below, nothing is known: they are galaxies like others.
    return Reference(members[probability >= config.ignore_probability], systems, has_fluxes)


def _label(
    config: TilesConfig,
    members: Table,
    systems: Table,
    rows: NDArray[np.int64],
    probability: NDArray[np.float64],
) -> None:
    """Add the systems to the members, and which of them label cells.

    Raises:
        ConfigError: None does.
    """
    is_known, row = rows >= 0, np.maximum(rows, 0)
    causes = {
        f"with P < data_gen.min_probability = {config.min_probability:g}": probability
        < config.min_probability,
        "whose cluster data_gen.clusters does not have": ~is_known,
    }
    causes |= {f"of clusters {cause}": is_so[row] & is_known
               for cause, is_so in _causes(config, systems).items()}  # fmt: skip
    is_labelled = _check_labels(config, causes)
    members["CLUSTER_ID"] = rows
    members["MEM"], members["LABEL_WEIGHT"] = is_labelled, is_labelled.astype(float)
    members["Z"] = np.where(is_known, np.asarray(systems["Z"])[row], 0.0)
    is_sure = probability >= config.min_probability
    members["SURE"] = is_sure & is_known & (np.asarray(members["Z"]) > 0)


def _causes(config: TilesConfig, systems: Table) -> dict[str, NDArray[np.bool_]]:
    """Return why systems do not label cells, in words -> which; LABELLED then says it of each."""
    z, richness = np.asarray(systems["Z"]), np.asarray(systems["RICHNESS"])
    low, high = config.redshift_range
    causes = {
        "of unknown redshift or richness": ~((z > 0) & np.isfinite(richness)),
        "that the table does not count as labelled": ~np.asarray(systems["LABELLED"], bool),
        f"with richness < data_gen.richness_min = {config.richness_min:g}": richness
        < config.richness_min,
        f"outside data_gen.redshift_range = [{low:g}, {high:g}]": (z < low) | (z > high),
    }
    systems["LABELLED"] = ~np.logical_or.reduce(list(causes.values()))
    return causes


def _check_labels(config: TilesConfig, causes: dict[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Return which rows of the reference label cells, and log why the others do not.

    Raises:
        ConfigError: None does.
    """
    left = np.ones(len(next(iter(causes.values()))), bool)
    words = []
    for cause, is_so in causes.items():
        if n := int((left & is_so).sum()):
            words.append(f"{n} {cause}")
        left &= ~is_so
    if not left.any():
        raise ConfigError(
            f"expected data_gen.reference = {config.reference} to label cells, but none of its "
            f"{len(left)} rows does: {', '.join(words)}",
            value=config.reference,
        )
    log.info("%d of %d rows of %s label cells%s", left.sum(), len(left), config.reference,
             "".join(f"; {word}" for word in words))  # fmt: skip
    return left


def _columns_of(config: TilesConfig, table: Table, others: Sequence[str]) -> dict[str, str | None]:
    """Return the names of columns that the user gave, without those that only the others have."""
    here, there = ({name.lower() for name in columns} for columns in (table.colnames, others))
    return {
        ours: None if name and name.lower() in there - here else name
        for ours, name in config.columns.items()
    }


def _check_members(found: dict[str, str], table: Table, path: Path) -> None:
    """Raise `ConfigError` unless a table can tell members of clusters."""
    if "pmem" in found and "id" in found:
        return
    missing = "membership probability (PMEM, P)" if "pmem" not in found else "MEM_MATCH_ID"
    raise ConfigError(
        f"expected data_gen.reference = {path} to be a members table, but it has no column of "
        f"{missing}; it has {', '.join(table.colnames)}; data_gen.columns maps names, and "
        "data_gen.label=circle labels the cells within R_lambda of the clusters of a table",
        value=str(path),
    )


def _with_position(table: Table, found: dict[str, str], path: Path) -> NDArray[np.bool_]:
    known = np.isfinite(floats(table, "ra", found)) & np.isfinite(floats(table, "dec", found))
    if not known.all():
        log.warning("%d of %d rows of %s have no position", (~known).sum(), len(known), path)
    if not known.any():
        raise DataFormatError(f"{path} holds no row with a position", value=str(path))
    return known


def _clusters(
    config: TilesConfig, table: Table, path: Path, words: Words, others: Sequence[str]
) -> Table:
    """Return the systems of a cluster table; what is not known of their redshift is 0.

    Args:
        config: The settings.
        table: The cluster table.
        path: For messages.
        words: For messages.
        others: Columns of the members table.
    """
    columns = _columns_of(config, table, others)
    found = find_columns(table, columns, path, words, needed=("ra", "dec", "redshift", "richness"))
    table = table[_with_position(table, found, path)]
    systems = Table({"NAME": names(table, "id", found), "CLUSTER_ID": np.arange(len(table))})
    systems["RA"], systems["DEC"] = (floats(table, name, found) for name in ("ra", "dec"))
    z, systems["RICHNESS"] = (floats(table, name, found) for name in ("redshift", "richness"))
    systems["Z"] = np.where(_is_redshift(z), z, 0.0)
    systems["LABELLED"] = flags(table, "labelled", found, path)
    return systems


def _is_redshift(z: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which values are redshifts: catalogues write 0, -1 or NaN for what is not known."""
    known: NDArray[np.bool_] = np.isfinite(z) & (z > 0)
    return known


def _from_members(
    table: Table,
    found: dict[str, str],
    keys: NDArray[np.str_],
    probability: NDArray[np.float64],
) -> tuple[Table, NDArray[np.int64]]:
    """Return the systems that members make up, and the system of each member.

    The richness is the sum of the membership probabilities, the redshift the median of
    those that are known, 0 if none is.
    """
    ids, rows = np.unique(keys, return_inverse=True)
    z, given = floats(table, "redshift", found), floats(table, "richness", found)
    order = np.argsort(rows, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(rows[order])) + 1)
    systems = Table({"NAME": ids, "CLUSTER_ID": np.arange(len(ids))})
    known = (z[group][_is_redshift(z[group])] for group in groups)
    systems["Z"] = [float(np.median(values)) if len(values) else 0.0 for values in known]
    summed = np.bincount(rows, weights=probability, minlength=len(ids))
    first = np.array([given[group[0]] for group in groups])
    systems["RICHNESS"] = np.where(np.isfinite(first), first, summed)
    systems["LABELLED"] = np.ones(len(ids), bool)
    return systems, rows.astype(np.int64)


def _rows_of(keys: NDArray[np.str_], known: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return the row of each key in the cluster table, -1 where it has none."""
    row_of = {name: row for row, name in enumerate(known.tolist())}
    return np.array([row_of.get(key, -1) for key in keys.tolist()], np.int64)


def _members(
    config: TilesConfig, table: Table, found: dict[str, str], probability: NDArray[np.float64]
) -> tuple[Table, bool]:
    """Return positions and fluxes, and whether these are known."""
    members = Table({"RA": floats(table, "ra", found), "DEC": floats(table, "dec", found)})
    bands = config.survey_settings.bands
    specs = {band: _magnitude_column(config, table, band) for band in bands}
    members["HAS_FLUX"] = np.ones(len(table), bool)
    for band, spec in specs.items():
        flux = np.zeros(len(table))
        if spec is not None:
            mags = column(table, spec, str(config.reference))
            known = (mags > MAG_RANGE[0]) & (mags < MAG_RANGE[1])
            flux[known] = 10.0 ** (0.4 * (config.zero_point - mags[known]))
            if band == config.reference_band:
                members["HAS_FLUX"] = known
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
