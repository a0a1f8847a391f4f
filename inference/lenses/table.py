"""The table of predictions: its rows, the bytes of its parts, and how they are put together."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from numpy.typing import NDArray

from datagen.errors import DataFormatError, DataNotFoundError

FORMAT_VERSION = 1
PREDICTIONS, FAILURES = "PREDICTIONS", "FAILURES"
_COMMENTS = {
    "FMTVERS": "format version",
    "PARTHASH": "checkpoint, settings and input",
    "RUNHASH": "checkpoint and settings",
    "CKPTSHA": "",  # its value leaves no room for a comment
    "VERSION": "version of skyfold",
    "COLUMNS": "probabilities",
    "THRESH": "less probable images are unsure",
}
# Columns beside the probabilities.
KNOWN = ("ID", "CLASS", "UNSURE", "TRUE_CLASS", "DELTA_CHI2", "INDEX", "SPLIT")
Meta = Mapping[str, str | int | float]


@dataclass(frozen=True)
class Truth:
    """What is known of images, one entry each.

    Args:
        classes: Name of the class, empty where unknown.
        delta_chi2: How far the substructure changes the image, NaN where unknown.
        index: Number of a simulated image, -1 where unknown.
        splits: What an image was in the training, empty where unknown.
    """

    classes: NDArray[np.str_]
    delta_chi2: NDArray[np.float32]
    index: NDArray[np.int64]
    splits: NDArray[np.str_]

    @classmethod
    def unknown(cls, n_images: int) -> Truth:
        """Return the truth of images of which nothing is known."""
        empty, index = np.full(n_images, ""), np.full(n_images, -1)
        return cls(empty, np.full(n_images, np.nan, np.float32), index, empty)

    def take(self, rows: NDArray[np.int64]) -> Truth:
        """Return what is known of some rows."""
        return Truth(*(values[rows] for values in vars(self).values()))


@dataclass(frozen=True)
class PartResult:
    """What became of the images of a part.

    Args:
        predictions: A row for each image that was classified; see `rows`.
        failures: Columns id and reason, a row for each image or file that was not.
        meta: Keywords of the file.
    """

    predictions: Table
    failures: Table
    meta: Meta


def probability_columns(classes: Sequence[str]) -> list[str]:
    """Return the names of the columns that hold the probabilities of classes."""
    return [f"P_{name.upper()}" for name in classes]


def rows(
    ids: Sequence[str],
    probabilities: NDArray[np.float32],
    classes: Sequence[str],
    threshold: float,
    truth: Truth,
) -> Table:
    """Return the rows of classified images.

    Args:
        ids: Names of the images, n of them.
        probabilities: Shape (n, n_classes).
        classes: Names of the classes.
        threshold: Images whose greatest probability is below it are unsure.
        truth: What is known of the images.

    Returns:
        Columns ID, P_<CLASS> for each class, CLASS (the most probable), UNSURE, TRUE_CLASS,
        DELTA_CHI2, INDEX and SPLIT.
    """
    table = Table()
    table["ID"] = _strings(ids)
    for name, column in zip(probability_columns(classes), probabilities.T, strict=True):
        table[name] = column.astype(np.float32)
    table["CLASS"] = _strings(np.asarray(classes)[probabilities.argmax(axis=1)])
    table["UNSURE"] = probabilities.max(axis=1, initial=0.0) < np.float32(threshold)
    table["TRUE_CLASS"] = _strings(truth.classes)
    table["DELTA_CHI2"] = truth.delta_chi2.astype(np.float32)
    table["INDEX"] = truth.index.astype(np.int64)
    table["SPLIT"] = _strings(truth.splits)
    return table


def no_rows(classes: Sequence[str]) -> Table:
    """Return the table of no images."""
    return rows([], np.empty((0, len(classes)), np.float32), classes, 0.0, Truth.unknown(0))


def failure_rows(failures: Sequence[tuple[str, str]]) -> Table:
    """Return a table of (id, reason)."""
    ids, reasons = zip(*failures, strict=True) if failures else ((), ())
    return Table([_strings(ids), _strings(reasons)], names=["id", "reason"])


def to_fits(result: PartResult) -> bytes:
    """Return predictions and failures as the bytes of a FITS file; equal ones give equal bytes."""
    header = fits.Header()
    columns = " ".join(name for name in result.predictions.columns if name.startswith("P_"))
    for key, value in {**result.meta, "FMTVERS": FORMAT_VERSION, "COLUMNS": columns}.items():
        header[key] = (value, _COMMENTS.get(key, ""))
    hdus = fits.HDUList([fits.PrimaryHDU(header=header)])
    for name, table in ((PREDICTIONS, result.predictions), (FAILURES, result.failures)):
        hdus.append(fits.BinTableHDU(table.as_array(), name=name))
    buffer = io.BytesIO()
    hdus.writeto(buffer)
    return buffer.getvalue()


def read_result(path: Path) -> PartResult:
    """Read a part, or the table of all images.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: It is damaged or no such table.
    """
    try:
        with warnings.catch_warnings():
            # What is cut off is reported by a warning alone.
            warnings.simplefilter("error", AstropyUserWarning)
            return _read(path)
    except FileNotFoundError as error:
        raise DataNotFoundError(
            f"{path} does not exist; make it with: python inference/predict.py predict=lenses",
            value=str(path),
        ) from error
    except Exception as error:  # astropy raises many unrelated classes for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataFormatError(
            f"{path} is damaged or no table of predictions: {reason}; `python inference/predict.py "
            "predict=lenses` with the same settings writes it again",
            value=str(path),
        ) from error


def _read(path: Path) -> PartResult:
    with fits.open(path, memmap=False) as hdus:
        header = hdus[0].header
        if header["FMTVERS"] != FORMAT_VERSION:
            raise ValueError(f"FMTVERS = {header['FMTVERS']}, expected {FORMAT_VERSION}")
        meta = {key: header[key] for key in _COMMENTS if key in header}
        predictions, failures = (Table(_native(hdus[n])) for n in (PREDICTIONS, FAILURES))
    for name in [*header["COLUMNS"].split(), *KNOWN]:
        if name not in predictions.columns:
            raise ValueError(f"it lacks the column {name}")
    return PartResult(predictions, failures, meta)


def stacked(tables: Sequence[Table]) -> Table:
    """Return tables with equal columns one below the other."""
    first = tables[0]
    return Table(
        {name: np.concatenate([np.asarray(t[name]) for t in tables]) for name in first.columns}
    )


def _strings(values: Sequence[str] | NDArray[np.str_]) -> NDArray[np.str_]:
    """Return strings as FITS can hold them: ASCII, of at least one character."""
    escaped = [str(v).encode("ascii", "backslashreplace").decode() for v in values]
    return np.array(escaped, dtype=f"U{max([1, *map(len, escaped)])}")


def _native(hdu: fits.BinTableHDU) -> dict[str, NDArray[np.generic]]:
    """Return the columns of a table in the byte order of the machine, strings as str."""
    columns = {}
    for name in hdu.columns.names:
        values = np.asarray(hdu.data[name])
        columns[name] = values.astype(values.dtype.newbyteorder("="))
    return columns
