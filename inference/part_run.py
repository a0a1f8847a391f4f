"""A prediction whose units of work are parts: what is pending, what is left over, what it gave."""

from __future__ import annotations

import io
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from astropy.io import fits
from astropy.table import Table
from lightning import LightningModule
from numpy.typing import NDArray

from datagen import files
from datagen.errors import DataFormatError, DataNotFoundError
from inference import results
from inference.outputs import package_version, read_record, remove
from inference.part_data import Batches, Part, PartData, Truth
from inference.part_writer import PartFolder, PartWriter
from inference.results import Form, Meta, PartResult
from inference.settings import RunSettings

log = logging.getLogger(__name__)


class PartRun(ABC):
    """Everything that a prediction in parts needs besides a trainer.

    Tasks set the attributes and say what the rows of the table are.

    Attributes:
        items: What a part is made of, in the plural.
        done: What happens to them, such as classified.
        lost: What is said of an item for which the encoder gives no finite number.
        form: Of the tables.
        truth_kind: What holds the truth of items.
        settings: What the user said.
        paths: Names of the files.
        run: `run.json`.
        units: All parts, sorted by name.
        module: What Lightning predicts with; gives (B, D) for a batch.
    """

    noun = "parts"
    items: ClassVar[str]
    done: ClassVar[str]
    lost: ClassVar[str]
    form: Form
    truth_kind: ClassVar[Callable[..., Truth]]
    settings: RunSettings
    paths: PartFolder
    run: dict[str, Any]
    units: Sequence[Part]
    module: LightningModule

    @abstractmethod
    def batches(self) -> Batches:
        """Return how parts become batches."""

    @abstractmethod
    def rows(self, ids: Sequence[str], outputs: NDArray[np.floating], truth: Any) -> Table:  # noqa: ANN401 - of `truth_kind`
        """Return the rows of some items, from what the module gave (n, D)."""

    @abstractmethod
    def no_rows(self) -> Table:
        """Return the table of no items."""

    @abstractmethod
    def finish(self) -> int:
        """Put the results together; return how many items or files failed."""

    def meta(self) -> Meta:
        """Return the keywords of the tables."""
        return {
            "CKPTSHA": self.run["checkpoint"],
            "RUNHASH": self.run["run_hash"],
            "VERSION": package_version(),
        }

    def pending(self) -> list[Part]:
        """Return the parts without whole results of this run, sorted by name."""
        if self.settings.overwrite:
            return list(self.units)
        return [part for part in self.units if not self._is_done(part)]

    def prepare_output(self) -> None:
        """Note which run the folder belongs to; remove what a killed run left behind."""
        for left in self.paths.root.rglob(".partial-*"):
            remove(left)
        outdated = {part.name for part in self.pending()}
        if self.settings.overwrite:
            # Also of parts that are no longer in the input folder.
            outdated |= {path.stem for path in self.paths.part("x").parent.glob("*.fits")}
        for name in sorted(outdated):
            remove(self.paths.part(name))
            remove(self.paths.record(name))
        files.write_json(self.paths.run, self.run)

    def data(self) -> PartData:
        """Return what gives each rank the items of its parts."""
        return PartData(self)

    def writer(self) -> PartWriter:
        """Return the callback that saves the results."""
        return PartWriter(self)

    def collect(self) -> tuple[Table, Table]:
        """Write the table of everything, the list of failures and the manifest.

        Returns:
            Predictions and failures.
        """
        found = [self._result(part) for part in self.units]
        predictions = results.stacked([result.predictions for result in found])
        failures = results.stacked([result.failures for result in found])
        whole = PartResult(predictions, failures, self.meta())
        files.write_bytes(self.paths.predictions, results.to_fits(whole, self.form))
        files.write_text(self.paths.failed, to_ecsv(failures))
        files.write_json(self.paths.manifest, self._manifest(found))
        self._report(predictions, failures)
        return predictions, failures

    def _result(self, part: Part) -> PartResult:
        """Return the rows of a part; one that is damaged counts as failed, and is made again."""
        try:
            return results.read_result(self.paths.part(part.name), self.form)
        except (DataFormatError, DataNotFoundError) as error:
            remove(self.paths.record(part.name))
            failures = results.failure_rows([(part.ids[0], str(error))])
            return PartResult(self.no_rows(), failures, {})

    def _manifest(self, found: Sequence[PartResult]) -> dict[str, Any]:
        entries = [
            {
                **read_record(self.paths, part.name),
                "part": part.name,
                **part.note(),
                f"n_{self.items}": len(result.predictions),
                "n_failed": len(result.failures),
                "input_bytes": sum(size for size in part.sizes if size > 0),
            }
            for part, result in zip(self.units, found, strict=True)
        ]
        totals = {f"n_{key}": sum(e[f"n_{key}"] for e in entries) for key in (self.items, "failed")}
        return {**self.run, **totals, "parts": entries}

    def _report(self, predictions: Table, failures: Table) -> None:
        """Say in one line how it went."""
        n_done, done = len(predictions), f"{self.items} {self.done}"
        if not len(failures):
            log.info("%d %s, see %s", n_done, done, self.paths.predictions)
            return
        log.error(
            "%d %s, %d %s or files failed, see %s (%s: %s); repair them and run the command again, "
            "which does only what is missing",
            n_done,
            done,
            len(failures),
            self.items,
            self.paths.failed,
            failures["id"][0],
            failures["reason"][0],
        )

    def _is_done(self, part: Part) -> bool:
        """Tell whether the rows of a part are whole, without failures, of this run and input.

        They are whole if they are as long as they were written; `collect` reads them anyway.
        """
        path = self.paths.part(part.name)
        try:
            record = read_record(self.paths, part.name)
            is_whole = record.get("n_failed") == 0 and record.get("bytes") == path.stat().st_size
            part_hash = fits.getval(path, "PARTHASH") if is_whole else None
        except Exception:  # a damaged header makes astropy raise many unrelated classes
            return False
        # Times are no part of the results, whose bytes a copy of the input must reproduce.
        is_same_input = record.get("mtimes_ns") == list(part.mtimes_ns)
        return is_same_input and bool(part_hash == part.content_hash(self.run["run_hash"]))


def to_ecsv(table: Table) -> str:
    """Return the text of a table."""
    stream = io.StringIO()
    table.write(stream, format="ascii.ecsv")
    return stream.getvalue()
