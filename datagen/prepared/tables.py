"""Tables of several suites as one: the same columns, units and order, whatever is listed first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen.errors import ConfigError, DataFormatError
from datagen.prepared.splitting import identities, numbers_of

# What tells a stamp from all others, and where it lies.
OBJECT_KEYS = ("SUITE", "SNAPSHOT", "OBJECT")
STAMP_KEYS = (*OBJECT_KEYS, "PROJECTION")
PLACE_KEYS = ("FILE_NUMBER", "ROW")
KEYS = (*STAMP_KEYS, *PLACE_KEYS)
# Number that all stamps of one object share, and whether it is known.
IDENTITY, IS_KNOWN = "IDENTITY", "IS_KNOWN"
# What is told of a row by this package; no label can have such a name.
_ADDED = (IDENTITY, IS_KNOWN, "SPLIT", "MATCH")
_OWN = {*KEYS, *_ADDED, "FILE"}
# Cards of a suite's header that have to be equal in all suites, with what they are.
_EQUAL = {
    "SIDE": "side of a stamp [px]",
    "ZEROPT": "zero point [AB mag]",
    "UNIT": "unit of the pixels",
}


@dataclass(frozen=True)
class Suite:
    """The labels of a suite.

    Args:
        name: Of its folder.
        table: One row per stamp: `KEYS` without SUITE, SCALE [arcsec/px], and labels.
        header: BANDS, SIDE, UNIT, ZEROPT where pixels are AB fluxes, and what else its files say.
        n_files: Number of its files.
    """

    name: str
    table: Table
    header: Mapping[str, Any]
    n_files: int

    @property
    def bands(self) -> list[str]:
        """Names of the bands in the order of the planes."""
        return str(self.header["BANDS"]).split(",")

    @property
    def pixel_scale(self) -> float:
        """Median pixel scale [arcsec/px]; nan where none is known."""
        scales = numbers(self.table, "SCALE")
        known = scales[np.isfinite(scales)]
        return float(np.median(known)) if len(known) else float("nan")


def check_suites(
    suites: Sequence[Suite], bands: Sequence[str] | None, scale_tolerance: float | None
) -> None:
    """Check that stamps of all suites can be trained on together.

    Args:
        suites: At least one.
        bands: What each has to have; None asks for the same bands in all.
        scale_tolerance: Largest relative difference of median pixel scales; None allows any.

    Raises:
        ConfigError: Bands, sides, zero points, units or pixel scales differ.
    """
    first = suites[0]
    for suite in suites:
        _check_bands(suite, first, bands)
        for card, what in _EQUAL.items():
            if suite.header.get(card) != first.header.get(card):
                raise _unlike(suite, first, what, suite.header.get(card), first.header.get(card))
        ratio = suite.pixel_scale / first.pixel_scale
        # Not written the other way round: nan is not close to anything.
        if scale_tolerance is not None and not abs(np.log(ratio)) <= np.log1p(scale_tolerance):
            raise _unlike(
                suite,
                first,
                "median pixel scale [arcsec/px]",
                f"{suite.pixel_scale:g}",
                f"{first.pixel_scale:g} within data_gen.scale_tolerance = {scale_tolerance:g}",
                "or, where stamps are cut to the size of each object, set scale_tolerance=null",
            )


def _check_bands(suite: Suite, first: Suite, bands: Sequence[str] | None) -> None:
    if bands is None:
        if suite.bands != first.bands:
            help_ = "or name those that all have with data_gen.bands"
            raise _unlike(suite, first, "bands", suite.bands, first.bands, help_)
        return
    for band in bands:
        if band not in suite.bands:
            raise ConfigError(
                f"expected data_gen.bands to be bands of every suite, but {suite.name} has "
                f"{', '.join(suite.bands)}, and no {band}",
                band,
                suite.bands,
            )


def _unlike(
    suite: Suite, first: Suite, what: str, got: object, expected: object, more: str = ""
) -> ConfigError:
    return ConfigError(
        f"expected the {what} of suite {suite.name} to be that of {first.name}, {expected}, but "
        f"got {got}; extract both alike, leave one out (data_gen.suites)"
        f"{', ' + more if more else ''}",
        got,
        expected,
    )


def join(suites: Sequence[Suite], by: str) -> Table:
    """Return all rows as one table, sorted by `KEYS`.

    Labels that a suite lacks are nan there, or empty text. Units stay.

    Args:
        suites: At least one.
        by: `object`, or the column whose values stamps of one object share.

    Raises:
        ConfigError: A suite lacks the column `by`.
        DataFormatError: A label has other units or another type in another suite, or is no column
            of single values; or projections of one object differ in `by`.
    """
    names = _label_names(suites)
    columns: dict[str, NDArray[Any]] = {
        "SUITE": np.concatenate([np.full(len(s.table), s.name) for s in suites])
    }
    for name in [*KEYS[1:], *names]:
        columns[name] = np.concatenate(list(_pieces(suites, name)))
    ids = np.concatenate([identities(*_linking(suite, by)) for suite in suites])
    columns[IDENTITY], columns[IS_KNOWN] = numbers_of(ids), ids != ""
    units = {name: _unit(suites, name) for name in names}
    table = Table(columns)[np.lexsort([columns[key] for key in reversed(KEYS)])]
    for name, unit in units.items():
        table[name].unit = unit or None
    _check_links(table, by)
    return table


def labels(table: Table) -> list[str]:
    """Return the names of all columns that tell something about an object or its stamp."""
    return [name for name in table.colnames if name not in _OWN]


def fields(table: Table) -> list[str]:
    """Return the names of the labels that are numbers."""
    return [name for name in labels(table) if table[name].dtype.kind in "fiu"]


def numbers(table: Table, name: str) -> NDArray[np.float64]:
    """Return a column in double precision."""
    return np.asarray(table[name], np.float64)


def check_field(table: Table, name: str, setting: str) -> None:
    """Raise `ConfigError` unless a setting names a field that some suite has."""
    if name not in fields(table):
        allowed = fields(table)
        raise ConfigError(
            f"expected {setting} to name fields out of {', '.join(allowed)}, but got {name}; a "
            "suite's yaml (conf/suite) says which columns become fields",
            name,
            allowed,
        )


def count(table: Table, suites: Sequence[str]) -> dict[str, int]:
    """Return the number of rows by suite."""
    return {name: int((np.asarray(table["SUITE"]) == name).sum()) for name in suites}


def _label_names(suites: Sequence[Suite]) -> list[str]:
    """Return all labels, and see that FITS, which knows no case, can tell them from others."""
    names = list(dict.fromkeys(n for s in suites for n in s.table.colnames if n not in _OWN))
    taken = {name.upper(): name for name in (*KEYS, *_ADDED)}
    for name in names:
        if taken.setdefault(name.upper(), name) != name:
            raise DataFormatError(
                f"expected fields whose names differ by more than case, also from "
                f"{', '.join(sorted(_OWN))}, but got {name}; give it another alias in the suite's "
                "yaml (conf/suite)",
                name,
            )
    return names


def _pieces(suites: Sequence[Suite], name: str) -> Iterator[NDArray[Any]]:
    """Yield a column of each suite, in this machine's byte order."""
    found = {s.name: _plain(s, name) for s in suites if name in s.table.colnames}
    kinds = {suite: "text" if x.dtype.kind == "U" else "numbers" for suite, x in found.items()}
    if len(set(kinds.values())) > 1:
        what = ", ".join(f"{kind} in {suite}" for suite, kind in kinds.items())
        raise DataFormatError(f"expected {name} to be of one type, but got {what}", what)
    is_text = "text" in kinds.values()
    for suite in suites:
        n = len(suite.table)
        missing = np.full(n, "") if is_text else np.full(n, np.nan)
        yield found.get(suite.name, missing)


def _plain(suite: Suite, name: str) -> NDArray[Any]:
    column = np.asarray(suite.table[name])
    if column.ndim != 1:
        raise DataFormatError(
            f"expected one value of {name} for each stamp of suite {suite.name}, but got the shape "
            f"{column.shape}",
            column.shape,
        )
    kind = column.dtype.kind
    return column.astype(str) if kind in "SU" else column.astype(column.dtype.newbyteorder("="))


def _unit(suites: Sequence[Suite], name: str) -> str:
    """Return the unit of a label, in the suites that have it."""
    units = {s.name: str(s.table[name].unit or "") for s in suites if name in s.table.colnames}
    if len(set(units.values())) > 1:
        what = ", ".join(f"{unit or 'none'} in {suite}" for suite, unit in units.items())
        raise DataFormatError(
            f"expected the same unit of {name} in all suites, but got {what}; convert it in a "
            "suite's yaml (conf/suite)",
            what,
        )
    return next(iter(units.values()))


def _linking(suite: Suite, by: str) -> tuple[NDArray[Any], str]:
    name = "OBJECT" if by == "object" else by
    if name not in suite.table.colnames:
        raise ConfigError(
            f"expected data_gen.split.by to be object or a column of every suite, but {suite.name} "
            f"has no {by}; it has {', '.join(labels(suite.table))}. Where objects have no history, "
            f"let the suite's yaml (conf/suite) make {by} of their ids",
            by,
            labels(suite.table),
        )
    return np.asarray(suite.table[name]), name


def _check_links(table: Table, by: str) -> None:
    """Raise `DataFormatError` where stamps of one object would be taken for two objects."""
    known = table[np.asarray(table[IS_KNOWN])]
    changes = {key: np.asarray(known[key])[1:] != np.asarray(known[key])[:-1]
               for key in (*OBJECT_KEYS, IDENTITY)}  # fmt: skip
    is_same = ~np.any([changes[key] for key in OBJECT_KEYS], axis=0)
    wrong = np.flatnonzero(is_same & changes[IDENTITY])
    if len(wrong):
        row = known[int(wrong[0])]
        raise DataFormatError(
            f"expected one {by} (data_gen.split.by) for all projections of an object, but those "
            f"of suite {row['SUITE']}, snapshot {row['SNAPSHOT']}, object {row['OBJECT']} have "
            "several",
            int(row["OBJECT"]),
        )
