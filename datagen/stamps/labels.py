"""Labels of images: rows of tables, or of the catalogues of a simulation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.units import Unit, UnitConversionError
from numpy.typing import NDArray

from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.stamps.catalogues import GroupCatalogue
from datagen.stamps.drops import Drop
from datagen.stamps.expressions import Expression
from datagen.stamps.names import NO_SNAPSHOT, Image, object_number
from datagen.stamps.settings import LabelSettings, SuiteSettings

Values = NDArray[np.float64]
Key = tuple[int, ...]

# Rows without an image that are listed by name; all are counted.
MAX_LISTED = 1000


@dataclass(frozen=True)
class Labelled:
    """Images with their labels.

    Args:
        images: Those that have a row inside all ranges.
        labels: Alias -> values, one per image.
        drops: The others, and rows that are not used.
        n_without_image: Number of rows of tables without an image; not all may be in `drops`.
    """

    images: list[Image]
    labels: dict[str, Values]
    drops: list[Drop]
    n_without_image: int = 0


def label_images(suite: SuiteSettings, images: Sequence[Image]) -> Labelled:
    """Find the labels of images.

    Args:
        suite: Where labels stand.
        images: What is to be labelled.

    Raises:
        ConfigError: Groups have snapshots, but names of images tell none.
        DataNotFoundError: There is no table or catalogue.
        DataFormatError: One is damaged, lacks a column, or has one of another kind of unit.
    """
    if suite.labels is None:
        return Labelled(list(images), {}, [])
    found = (_from_tables if suite.labels.kind == "table" else _from_groups)(
        suite, suite.labels, images
    )
    return _inside_ranges(suite, found)


def _inside_ranges(suite: SuiteSettings, found: Labelled) -> Labelled:
    """Drop images with a label outside its range, or without one that has a range."""
    is_kept = np.ones(len(found.images), bool)
    drops = list(found.drops)
    for alias, column in suite.columns.items():
        if column.range is None:
            continue
        low, high = column.range
        values = found.labels[alias]
        is_inside = (values >= low) & (values <= high)
        for k in np.nonzero(is_kept & ~is_inside)[0]:
            reason = f"{alias} = {values[k]:.6g}, outside [{low:g}, {high:g}]"
            drops.append(Drop(found.images[k].name, "range", reason))
        is_kept &= is_inside
    images = [image for image, kept in zip(found.images, is_kept, strict=True) if kept]
    labels = {alias: values[is_kept] for alias, values in found.labels.items()}
    return Labelled(images, labels, drops, found.n_without_image)


def _from_tables(
    suite: SuiteSettings, settings: LabelSettings, images: Sequence[Image]
) -> Labelled:
    folder = Path(suite.folder)
    paths = sorted(path for path in folder.glob(settings.files) if path.is_file())
    if not paths:
        raise DataNotFoundError(
            f"{folder} holds no tables {settings.files} (labels.files of suite {suite.name}); "
            "labels=null in its file is for images without labels",
            str(folder),
        )
    rows: dict[Key, int] = {}
    drops: list[Drop] = []
    parts: dict[str, list[Values]] = {alias: [] for alias in suite.columns}
    n_rows = 0
    for path in paths:
        table = _read_table(path, settings.table)
        for number, key in enumerate(_keys(path, table, settings.keys)):
            if key in rows:
                what = f"{path.name}, row {number}"
                drops.append(Drop(what, "duplicate row", f"{_words(settings.keys, key)} again"))
            else:
                rows[key] = n_rows + number
        for alias, values in _evaluated(suite, _table_columns(path, table), len(table)):
            parts[alias].append(values)
        n_rows += len(table)
    return _joined(settings, images, rows, {a: np.concatenate(p) for a, p in parts.items()}, drops)


def _joined(
    settings: LabelSettings,
    images: Sequence[Image],
    rows: Mapping[Key, int],
    labels: Mapping[str, Values],
    drops: list[Drop],
) -> Labelled:
    """Give each image its row."""
    kept, taken = [], []
    unused = dict.fromkeys(rows)
    for image in images:
        key = tuple(int(getattr(image.identity, name)) for name in settings.keys)
        if key in rows:
            kept.append(image)
            taken.append(rows[key])
            unused.pop(key, None)
        else:
            drops.append(Drop(image.name, "no row", f"no label of {_words(settings.keys, key)}"))
    listed = list(unused)[:MAX_LISTED]
    drops += [Drop(_words(settings.keys, key), "no image", "a row without image") for key in listed]
    chosen = {alias: values[taken] for alias, values in labels.items()}
    return Labelled(kept, chosen, drops, len(unused))


def _from_groups(
    suite: SuiteSettings, settings: LabelSettings, images: Sequence[Image]
) -> Labelled:
    if any(image.identity.snapshot == NO_SNAPSHOT for image in images):
        raise ConfigError(
            f"expected suites.{suite.name}.pattern to have the group snapshot, since labels are "
            f"groups of snapshots, but got {suite.pattern!r}",
            suite.pattern,
        )
    kept: list[Image] = []
    drops: list[Drop] = []
    parts: dict[str, list[Values]] = {alias: [np.empty(0)] for alias in suite.columns}
    for snapshot in sorted({image.identity.snapshot for image in images}):
        folder = Path(suite.folder) / settings.files
        catalogue = GroupCatalogue(folder, snapshot, str(settings.table))
        here: list[Image] = []
        for image in images:
            if image.identity.snapshot != snapshot:
                continue
            if image.identity.object < len(catalogue):
                here.append(image)
                continue
            reason = f"{settings.table} {image.identity.object} of {len(catalogue)}"
            drops.append(Drop(image.name, "no row", reason))
        rows = np.array([image.identity.object for image in here], np.int64)
        for alias, values in _evaluated(suite, _group_columns(catalogue, rows), len(rows)):
            parts[alias].append(values)
        kept += here
    return Labelled(kept, {a: np.concatenate(p) for a, p in parts.items()}, drops)


def _group_columns(
    catalogue: GroupCatalogue, rows: NDArray[np.int64]
) -> Callable[[str, str | None], Any]:
    def column(name: str, _unit: str | None) -> Any:  # noqa: ANN401 - an array or a number
        found = catalogue.column(name)
        return found if name in catalogue.header else found[rows]

    return column


def _table_columns(path: Path, table: Table) -> Callable[[str, str | None], Any]:
    def column(name: str, unit: str | None) -> Any:  # noqa: ANN401 - an array
        if name not in table.colnames:
            there = ", ".join(table.colnames)
            raise DataFormatError(f"{path}: expected a column {name}, but got {there}", name, there)
        found = table[name]
        values = np.ma.filled(np.ma.asarray(found.data, np.float64), np.nan)
        if unit is None or not unit or found.unit is None:
            return values
        try:
            return values * Unit(found.unit).to(Unit(unit))
        except (UnitConversionError, TypeError) as error:
            raise DataFormatError(
                f"{path}, {name}: expected a unit that is like {unit} (columns of the suite), but "
                f"got {found.unit}",
                str(found.unit),
                unit,
            ) from error

    return column


def _evaluated(
    suite: SuiteSettings, column: Callable[[str, str | None], Any], n: int
) -> Iterator[tuple[str, Values]]:
    """Yield each label (n,); the unit of a column that stands alone is converted."""
    for alias, settings in suite.columns.items():
        where = f"suites.{suite.name}.columns.{alias}.expression"
        formula = Expression(settings.expression, where)
        unit = settings.unit if formula.is_name else None
        try:
            values = formula({name: column(name, unit) for name in formula.names})
        except (ValueError, TypeError) as error:
            if isinstance(error, DataFormatError):
                raise
            raise DataFormatError(f"{where}: {error}", settings.expression) from error
        if values.ndim > 1 or (values.ndim == 1 and len(values) != n):
            raise DataFormatError(
                f"expected {where} to give one number per row, but got {settings.expression} of "
                f"shape {values.shape}; X[k] is an element of a vector",
                values.shape,
            )
        yield alias, np.broadcast_to(values, n).astype(np.float64)


def _read_table(path: Path, hdu: str | None) -> Table:
    kind = path.suffix.lower()
    try:
        if kind == ".ecsv":
            return Table.read(path, format="ascii.ecsv")
        if kind == ".csv":
            return Table.read(path, format="ascii.csv")
        with fits.open(path, memmap=False) as hdus:
            table = Table.read(hdus[hdu or 1])
        table.convert_bytestring_to_unicode()
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataFormatError(
            f"cannot read the table {path}: {reason}; expected FITS, ECSV or CSV", str(path)
        ) from error
    return table


def _keys(path: Path, table: Table, names: Mapping[str, str]) -> list[Key]:
    """Return what each row is about, in the order of `names`."""
    columns = []
    for key, name in names.items():
        if name not in table.colnames:
            there = ", ".join(table.colnames)
            raise DataFormatError(
                f"{path}: expected a column {name} (labels.keys.{key}), but got {there}",
                name,
                there,
            )
        column = np.asarray(table[name])
        if column.dtype.kind in "iu":
            columns.append([int(value) for value in column])
        else:
            columns.append([object_number(str(value)) for value in column])
    return list(zip(*columns, strict=True))


def _words(names: Mapping[str, str], key: Key) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(names, key, strict=True))
