"""Stacks of square images (npy) with their truth (FITS): names, writers and readers.

Nothing is pickled and nothing carries a date: the same content gives the same bytes. Stacks are
mapped into memory, so that a reader of few images reads few pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray

from datagen.errors import DataFormatError, DataNotFoundError
from datagen.files import Card, atomic_path

# Cards of a primary header that say nothing of its content.
_STRUCTURE = ("SIMPLE", "BITPIX", "NAXIS", "EXTEND")


@dataclass(frozen=True)
class Stacks:
    """The files of one kind of images: `<kind>s/<stem>_000000.npy` and `truth/<stem>_000000.fits`.

    Args:
        kind: What one image is called in messages, such as map.
        stem: Beginning of the names of files.
        planes: What the second axis counts, such as channels.
        version: FORMATV of truth tables.
        command: What makes such files; messages name it.
    """

    kind: str
    stem: str
    planes: str
    version: int
    command: str

    def path(self, folder: Path, number: int) -> Path:
        """Return the name of a stack."""
        return Path(folder) / f"{self.kind}s" / f"{self.stem}_{number:06d}.npy"

    def truth_path(self, folder: Path, number: int) -> Path:
        """Return the name of the truth of a stack."""
        return Path(folder) / "truth" / f"{self.stem}_{number:06d}.fits"

    def truth_of(self, stack: Path) -> Path:
        """Return the name of the truth that belongs to a file."""
        return Path(stack).parent.parent / "truth" / f"{Path(stack).stem}.fits"

    def exist(self, folder: Path) -> bool:
        """Tell whether a folder holds a stack."""
        return any((Path(folder) / f"{self.kind}s").glob(f"{self.stem}_*.npy"))

    def files(self, folder: Path) -> list[Path]:
        """List the stacks below a data folder, sorted.

        Raises:
            DataNotFoundError: There is none.
        """
        found = sorted((Path(folder) / f"{self.kind}s").glob(f"{self.stem}_*.npy"))
        if not found:
            raise DataNotFoundError(
                f"{folder} holds no {self.kind}s/{self.stem}_*.npy; make some with: {self.command} "
                f"data_gen.data_dir={folder}",
                value=str(folder),
            )
        return found

    def write(self, path: Path, stack: NDArray[np.float32]) -> None:
        """Write images (n, planes, side, side) in float32, as a plain npy file."""
        little = np.ascontiguousarray(stack, "<f4")
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.lib.format.write_array(stream, little, allow_pickle=False)

    def read(self, path: Path) -> NDArray[np.float32]:
        """Map a stack into memory: (n, planes, side, side) float32, read-only.

        Raises:
            DataNotFoundError: The file is missing.
            DataFormatError: It is damaged, pickled, or holds arrays of another shape or type.
        """
        with self._reading(Path(path), f"{self.kind}s"):
            stack: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
        if stack.dtype != np.float32:
            raise self.error(path, "dtype", "float32", stack.dtype)
        if stack.ndim != 4 or stack.shape[-1] != stack.shape[-2] or 0 in stack.shape:
            raise self.error(path, "shape", f"(n, {self.planes}, side, side)", stack.shape)
        return stack

    def check_finite(self, path: Path, stack: NDArray[np.float32]) -> None:
        """Raise `DataFormatError` where an image holds nan or inf, naming the first one."""
        for number, image in enumerate(stack):
            if not np.isfinite(image).all():
                raise self.error(path, f"{self.kind} {number}", "finite pixels", "nan or inf")

    def write_tables(
        self,
        path: Path,
        tables: Mapping[str, Mapping[str, Any]],
        units: Mapping[str, str],
        meta: Mapping[str, Card | tuple[Card, str]],
    ) -> None:
        """Write a truth file.

        Args:
            path: Final name.
            tables: Columns of each table.
            units: Of columns, as FITS writes them; others have none.
            meta: Cards of the primary header, or pairs of a card and its comment.
        """
        header = fits.Header()
        for key, value in {**meta, "FORMATV": self.version}.items():
            header[key] = value
        hdus = [fits.PrimaryHDU(header=header)]
        for name, columns in tables.items():
            table = Table({key: np.asarray(column) for key, column in columns.items()})
            for key in table.colnames:
                table[key].unit = units.get(key) or None
            hdus.append(fits.BinTableHDU(table, name=name))
        with atomic_path(path) as temporary:
            fits.HDUList(hdus).writeto(temporary, overwrite=True)

    def read_table(self, path: Path, name: str, columns: Sequence[str]) -> Table:
        """Read a table of a truth file; the primary header is in its meta.

        Args:
            path: Of the truth.
            name: Of the table.
            columns: What it has to hold.

        Raises:
            DataNotFoundError: The file is missing.
            DataFormatError: It is damaged, of another version, or lacks a column.
        """
        with self._reading(Path(path), "truth"), fits.open(path, memmap=False) as hdus:
            header, table = hdus[0].header.copy(), Table(hdus[name].data)
            for column in hdus[name].columns:
                table[column.name].unit = column.unit
        table.meta = self._meta(path, header)
        self.check_columns(path, name, table.colnames, columns)
        return table

    def check_columns(
        self, path: Path, name: str, found: Sequence[str], needed: Sequence[str]
    ) -> None:
        """Raise `DataFormatError` where a table lacks a column, naming the first one."""
        for column in needed:
            if column not in found:
                raise self.error(path, f"table {name}", f"a column {column}", list(found))

    def read_header(self, path: Path) -> dict[str, Any]:
        """Read the primary header of a truth file.

        Raises:
            DataNotFoundError: The file is missing.
            DataFormatError: It is damaged or of another version.
        """
        with self._reading(Path(path), "truth"):
            header = fits.getheader(path)
        return self._meta(path, header)

    def error(self, path: Path, key: str, expected: str, got: object) -> DataFormatError:
        """Return the error of a file that does not hold what it should."""
        return DataFormatError(
            f"{path}, {key}: expected {expected}, but got {got}; {self._again()}",
            value=got,
            allowed=expected,
        )

    def _again(self) -> str:
        """Return what helps, whoever wrote the file."""
        return f"write it again; if it was simulated, with: {self.command}"

    def _meta(self, path: Path, header: fits.Header) -> dict[str, Any]:
        if header.get("FORMATV") != self.version:
            raise self.error(path, "FORMATV", str(self.version), header.get("FORMATV"))
        return {key: header[key] for key in header if key not in _STRUCTURE}

    @contextmanager
    def _reading(self, path: Path, what: str) -> Iterator[None]:
        """Turn whatever a reader raises on a missing or damaged file into one clear line."""
        if not path.is_file():
            raise DataNotFoundError(
                f"{what} {path} does not exist; make it with: {self.command}", str(path)
            )
        try:
            yield
        except Exception as error:
            reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
            if any(word in reason[0] for word in ("allow_pickle", "pickled", "Python objects")):
                reason = ["it holds pickled objects, which are not read since they may run code"]
            raise DataFormatError(
                f"cannot read {what} {path}: {reason[0]}; {self._again()}", str(path)
            ) from error
