"""Writes what a training on labels of stamps has found to the folder of the run."""

from __future__ import annotations

from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure

from datagen.files import write_json
from encoders.galaxies.metrics import Rows
from encoders.galaxies.pictures import draw_fields
from encoders.galaxies.reports import ABOUT, identified
from encoders.reports import TableReports, logged, write_arrays


class ProbeReports(TableReports):
    """Tables, arrays and pictures in the folder of the run, written by the first process.

    In `folder`: `history.ecsv`, a row per validation, and its picture; `test.json` with the figures
    of the test; `predictions.npz` with fields of the tested stamps, found and true; `fields.png`,
    one against the other. In TensorBoard: the same picture of validations.

    Args:
        folder: Below the folder of the run.
        every_n_validations: Draw pictures for TensorBoard after each n-th validation.
        draws: Whether there are pictures, or tables alone.
    """

    def draw_validation(self, trainer: Trainer, module: Any) -> dict[str, Figure]:  # noqa: ANN401
        """Return found against true fields."""
        return _draw(module, module.validated)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what the test has found."""
        if not trainer.is_global_zero:
            return
        module: Any = pl_module
        rows: Rows = module.tested
        figures: dict[str, Any] = logged(trainer, "test")
        figures |= {name: module.card[name] for name in ABOUT} | {"n_stamps": len(rows.index)}
        figures |= {"encoder": module.card.get("encoder"), "is_frozen": module.is_frozen}
        write_json(self.path(trainer, "test.json"), figures)
        arrays = identified(trainer, "test", rows) | {
            "found": module.fields.values(rows.embeddings).float().cpu().numpy(),
            "true": rows.labels.float().cpu().numpy(),
            "label_names": np.array(module.fields.names, dtype=np.str_),
        }
        write_arrays(self.path(trainer, "predictions.npz"), arrays)
        if self.draws:
            for name, figure in _draw(module, rows).items():
                self.save(trainer, name, figure)


def _draw(module: Any, rows: Rows) -> dict[str, Figure]:  # noqa: ANN401 - ProbeModule
    fields = module.fields
    found, true = fields.values(rows.embeddings).cpu().numpy(), rows.labels.cpu().numpy()
    units = {name: str(label["unit"]) for name, label in module.card["labels"].items()}
    return {"fields": draw_fields(found, true, units, list(fields.n_classes))}
