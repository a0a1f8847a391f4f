"""A prediction on maps of halos from start to end: plan, resume, collect."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray

from datagen import files
from datagen.errors import ConfigError
from encoders.checkpoint import load_with_sha256
from inference.halos import evaluation, plots, table
from inference.halos.ensemble import Ensemble
from inference.halos.listing import MAPS
from inference.halos.reading import Expected, MapReader, Truth, check_set
from inference.halos.sets import Comparison, summarise
from inference.halos.settings import HaloSettings
from inference.halos.table import FORM
from inference.outputs import check_run, check_writable, describe_run, remove
from inference.part_data import Batches
from inference.part_run import PartRun, to_ecsv
from inference.part_writer import PartFolder
from inference.results import Meta
from inference.stack_parts import find_groups, list_parts

log = logging.getLogger(__name__)


class HaloFolder(PartFolder):
    """Names of everything below the output folder."""

    @property
    def sets(self) -> Path:
        """What each set tells as a whole."""
        return self.root / "sets.ecsv"

    @property
    def evaluation(self) -> Path:
        """Figures of predictions whose truth is known."""
        return self.root / "evaluation.json"

    def of_summary(self) -> list[Path]:
        """Everything that is made of the table."""
        pictures = [self.root / f"{name}.png" for name in plots.PICTURES]
        return [self.sets, self.evaluation, *pictures]


class HaloRun(PartRun):
    """Everything that a prediction on maps of halos needs besides a trainer.

    Args:
        settings: `conf/predict/halos.yaml`.
        ensemble: The encoders.
        checkpoint: SHA-256 of the checkpoint that the encoder comes from, or of those of several.

    Raises:
        CheckpointError: The encoders do not fit the maps.
        ConfigError: A setting does not fit the results that are there, or the checkpoint.
        DataNotFoundError: There are no maps.
        OutputError: The output folder cannot be written.
    """

    items, done = "maps", "predicted"
    lost = "the encoder gave no finite number"
    form = FORM
    truth_kind = Truth
    settings: HaloSettings
    paths: HaloFolder

    def __init__(self, settings: HaloSettings, ensemble: Ensemble, checkpoint: str) -> None:
        self.settings, self.module, self.ensemble = settings, ensemble, ensemble
        split_of = ensemble.split_of()
        if settings.split is not None and not split_of:
            raise ConfigError(
                "expected predict.split = null for a checkpoint whose card names no halos, but got "
                f"predict.split = {settings.split}",
                settings.split,
            )
        self.expected = Expected.of(ensemble.card, split_of)
        folders = find_groups(Path(settings.cached_data_path), settings.sets, MAPS)
        for name, folder in folders.items():
            check_set(name, folder, self.expected)
        self.paths = HaloFolder(Path(settings.output_dir))
        named = {f"predict.{key}": value for key, value in settings.result_settings().items()}
        self.run = describe_run(checkpoint, named, settings.cached_data_path)
        self.units = list_parts(folders, MAPS, settings.split)
        check_run(self.paths, self.run, settings.overwrite)
        check_writable(self.paths.root)
        if not ensemble.can_flag:
            log.warning(
                "no map will be flagged: the encoder has too few validation clusters for a rate of "
                "false alarms; train with more halos (data_gen.nfiles)"
            )

    def batches(self) -> Batches:
        """Return how parts become batches."""
        opened = functools.partial(MapReader, expected=self.expected)
        return Batches(opened, self.expected.shape, self.settings.batch_size)

    def rows(self, ids: Sequence[str], outputs: NDArray[np.floating], truth: Any) -> Table:  # noqa: ANN401 - a `Truth`
        """Return the rows of some maps, from what the ensemble gave (n, D)."""
        return table.rows(ids, outputs.astype(np.float64), truth, self.ensemble)

    def no_rows(self) -> Table:
        """Return the table of no maps."""
        return table.no_rows(self.ensemble)

    def meta(self) -> Meta:
        """Return the keywords of the tables."""
        n_members = len(self.ensemble.members)
        return {**super().meta(), "THRESH": self.ensemble.threshold, "N_MEMBER": n_members}

    def finish(self) -> int:
        """Put table, sets and evaluation together; return how many maps or files failed."""
        predictions, failures = self.collect()
        for path in self.paths.of_summary():
            # One of other maps would seem to belong to these.
            remove(path)
        new = evaluation.new_maps(predictions)
        if len(new) == 0:
            log.info("no summary of sets: all halos are of train and val")
            return len(failures)
        how = Comparison(self.settings.n_compared, self.settings.n_permutations)
        if self.settings.summarise:
            sets = summarise(new, self.ensemble, how)
            files.write_text(self.paths.sets, to_ecsv(sets))
            plots.write_sets(self.paths.root, new, sets, self.ensemble)
        if self.settings.evaluate:
            self._evaluate(new)
        return len(failures)

    def _evaluate(self, new: Table) -> None:
        found = evaluation.evaluate(new, self.ensemble)
        files.write_json(self.paths.evaluation, {"run_hash": self.run["run_hash"], **found})
        plots.write_coverage(self.paths.root, found)
        log.info("%s, see %s", evaluation.in_words(found), self.paths.evaluation)


def load_ensemble(settings: HaloSettings) -> tuple[Ensemble, str]:
    """Load the checkpoints of the settings; return them with what identifies them.

    Raises:
        DataNotFoundError: One is missing.
        CheckpointError: One is corrupt, of another task, or does not fit the others.
    """
    # Launchers divide the cores among ranks, and what a judge is fitted to depends on threads.
    torch.set_num_threads(settings.n_threads)
    names = [settings.weight_save_path, *settings.ensemble]
    loaded = [load_with_sha256(Path(name), "halos") for name in names]
    members: list[Any] = [module for module, _ in loaded]
    hashes = [sha256 for _, sha256 in loaded]
    joined = hashlib.sha256("".join(hashes).encode()).hexdigest()
    return Ensemble(members, names), hashes[0] if len(hashes) == 1 else joined
