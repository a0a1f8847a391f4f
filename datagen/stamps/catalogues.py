"""Groups that FoF and SubFind found in a simulation, as IllustrisTNG stores them (HDF5).

A snapshot NNN is `groups_NNN/fof_subhalo_tab_NNN.i.hdf5` or `groups_NNN/groups_NNN.i.hdf5`, in any
number of chunks i, each with the groups `Header`, `Group` and `Subhalo` (Nelson et al. 2019,
doi:10.1186/s40668-019-0028-x). Numbers are in the code's units, with the factors of h and of the
scale factor that its documentation lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from datagen.errors import DataFormatError, DataNotFoundError
from datagen.files import atomic_path

PREFIXES = ("fof_subhalo_tab_", "groups_")
# Attributes of `Header`: number of rows in all chunks, and in one.
_TOTAL = {"Group": "Ngroups_Total", "Subhalo": "Nsubgroups_Total"}
_HERE = {"Group": "Ngroups_ThisFile", "Subhalo": "Nsubgroups_ThisFile"}


class GroupCatalogue:
    """The groups of one snapshot; each column is read when it is asked for.

    Args:
        folder: Holds groups_NNN/.
        snapshot: Its number NNN.
        table: `Subhalo` or `Group`: what a row is.

    Raises:
        DataNotFoundError: There is no such snapshot.
        DataFormatError: A file is damaged.
    """

    def __init__(self, folder: Path, snapshot: int, table: str) -> None:
        self.table = table
        self.paths = chunk_paths(folder, snapshot)
        self.header = self._read_header()
        self._columns: dict[str, NDArray[Any]] = {}

    def __len__(self) -> int:
        return int(self.header[_TOTAL[self.table]])

    def column(self, name: str) -> Any:  # noqa: ANN401 - an array, or a number of the header
        """Return a column (n,) or (n, k), or an attribute of the header.

        Subhalos have the columns of their groups as well, and groups those of their first subhalo,
        NaN where they have none.

        Raises:
            DataFormatError: There is no such column.
        """
        if name in self.header:
            return self.header[name]
        if name not in self._columns:
            self._columns[name] = self._looked_up(name)
        return self._columns[name]

    def _looked_up(self, name: str) -> NDArray[Any]:
        found = self._read(self.table, name)
        if found is not None:
            return found
        other, link = (
            ("Group", "SubhaloGrNr") if self.table == "Subhalo" else ("Subhalo", "GroupFirstSub")
        )
        found = self._read(other, name)
        number = None if found is None else self._read(self.table, link)
        if found is None or number is None:
            there = ", ".join([*self._names(), *self.header])
            raise DataFormatError(
                f"{self.paths[0]}: expected a column {name}, but got {there or 'none'}", name, there
            )
        number = number.astype(np.int64)
        is_there = (number >= 0) & (number < len(found))
        values = np.full((len(number), *found.shape[1:]), np.nan)
        values[is_there] = found[number[is_there]]
        return values

    def _read(self, table: str, name: str) -> NDArray[Any] | None:
        """Return a column of all chunks, None if there is no such column."""
        parts = []
        for path in self.paths:
            with _opened(path) as file:
                # Chunks without rows have no columns.
                if name in file.get(table, {}):
                    parts.append(file[table][name][()])
        if not parts:
            return None
        column = np.concatenate(parts)
        total = int(self.header[_TOTAL[table]])
        if len(column) != total:
            raise DataFormatError(
                f"{self.paths[0].parent}, {name}: expected {total} rows as in Header, but got "
                f"{len(column)} in {len(self.paths)} file(s)",
                len(column),
                total,
            )
        return column

    def _names(self) -> list[str]:
        names: dict[str, None] = {}
        for path in self.paths:
            with _opened(path) as file:
                names |= dict.fromkeys([*file.get("Group", {}), *file.get("Subhalo", {})])
        return list(names)

    def _read_header(self) -> dict[str, Any]:
        with _opened(self.paths[0]) as file:
            header = dict(file["Header"].attrs) if "Header" in file else {}
        for key in (*_TOTAL.values(), "Redshift", "Time", "HubbleParam"):
            if key not in header:
                raise DataFormatError(f"{self.paths[0]}: expected Header to have {key}", key)
        return header


def chunk_paths(folder: Path, snapshot: int) -> list[Path]:
    """Return the files of a snapshot, in their order.

    Raises:
        DataNotFoundError: There are none.
    """
    home = Path(folder) / f"groups_{snapshot:03d}"
    for prefix in PREFIXES:
        name = re.compile(rf"{prefix}{snapshot:03d}(?:\.(?P<chunk>\d+))?\.hdf5")
        found = [(match, path) for path in home.glob("*.hdf5")
                 if (match := name.fullmatch(path.name))]  # fmt: skip
        if found:
            return [path for _, path in sorted((int(m["chunk"] or 0), path) for m, path in found)]
    raise DataNotFoundError(
        f"{home} holds no {' or '.join(f'{p}{snapshot:03d}.*.hdf5' for p in PREFIXES)}; correct "
        "labels.files of the suite",
        str(home),
    )


def write_catalogue(
    folder: Path,
    snapshot: int,
    tables: Mapping[str, Mapping[str, ArrayLike]],
    header: Mapping[str, Any],
    n_chunks: int = 1,
) -> None:
    """Write a small catalogue of the same form.

    Args:
        folder: Holds groups_NNN/.
        snapshot: Its number NNN.
        tables: `Group` and `Subhalo` -> columns of equal length.
        header: Further attributes: Redshift, Time, HubbleParam, BoxSize.
        n_chunks: Number of files, over which rows are spread evenly.
    """
    lengths = {name: len(np.asarray(next(iter(columns.values()), [])))
               for name, columns in tables.items()}  # fmt: skip
    totals = {_TOTAL[name]: lengths.get(name, 0) for name in _TOTAL}
    for chunk in range(n_chunks):
        path = (
            Path(folder) / f"groups_{snapshot:03d}" / f"fof_subhalo_tab_{snapshot:03d}.{chunk}.hdf5"
        )
        with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
            about = file.create_group("Header")
            about.attrs.update({**header, **totals, "NumFiles": n_chunks})
            for name, columns in tables.items():
                first, last = (lengths[name] * k // n_chunks for k in (chunk, chunk + 1))
                about.attrs[_HERE[name]] = last - first
                group = file.create_group(name)
                for key, values in columns.items():
                    if last > first:
                        group[key] = np.asarray(values)[first:last]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open an HDF5 file; whatever is wrong with it becomes one line."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        reason = (str(error).splitlines() or [""])[0]
        raise DataFormatError(f"cannot read {path}: {reason}", str(path)) from error
    with file:
        yield file
