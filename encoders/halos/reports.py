"""Writes the splits of a training to the folder of its run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from astropy.table import Table
from lightning.pytorch import LightningModule, Trainer

from datagen.files import atomic_path
from encoders.callbacks import ReportCallback

SPLITS_FILE = "splits.ecsv"


class HaloReports(ReportCallback):
    """`splits.ecsv` in the folder of the run: a row per halo with its split and number of maps."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the splits."""
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        counts = Counter(data.halos.halo.tolist())
        rows = [(name, split, counts[name]) for split, names in data.ids.items() for name in names]
        table = Table(rows=sorted(rows), names=("halo", "split", "n_maps"))
        with atomic_path(Path(trainer.default_root_dir) / SPLITS_FILE) as temporary:
            table.write(temporary, format="ascii.ecsv", overwrite=True)
