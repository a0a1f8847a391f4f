"""Writes what a contrastive training has found to the folder of the run, and to TensorBoard."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from datagen.errors import ConfigError
from datagen.files import write_json
from encoders.galaxies import pictures
from encoders.galaxies.draws import About
from encoders.galaxies.metrics import Rows
from encoders.galaxies.neighbours import nearest, standardised
from encoders.galaxies.projector import write_projector
from encoders.reports import TableReports, logged, write_arrays

Numbers = NDArray[np.int64]
# What of the card tells whether two tests can be compared.
ABOUT = (
    "model", "suites", "bands", "train_px", "pixel_scale", "unit", "zero_point", "softening",
    "data_hash",
)  # fmt: skip
# Figures of single fields, of which there are means as well.
BY_FIELD = ("knn_r2_", "ridge_r2_")
# Side of a picture in the projector, and of the square of all of them at most [px].
SPRITE_PX, SQUARE_PX = 32, 8192
MOST_SPRITES = (SQUARE_PX // SPRITE_PX) ** 2
# Stamps that are read at a time, and those that are drawn with their views.
N_READ, N_VIEWED = 256, 8


class GalaxyReports(TableReports):
    """Tables, arrays and pictures in the folder of the run, written by the first process.

    - In `folder`: `history.ecsv`, a row per validation, and its picture; `test.json` with the
      figures of the test; `embeddings.npz` with the embeddings and labels of the tested stamps;
      `pca.png`, principal components coloured by labels; `neighbours.png`, stamps and those nearest
      to them; `views.png`, what the network is shown.
    - In TensorBoard: the same pictures, and the embedding projector.

    Embeddings are standardised in each dimension, for pictures and projector.

    Args:
        folder: Below the folder of the run.
        every_n_validations: Draw pictures for TensorBoard after each n-th validation.
        n_sprites: Stamps in the projector; 0: no projector.
        n_queries: Stamps whose nearest are drawn.
        n_neighbours: How many of these.
        draws: Whether there are pictures, or tables alone.

    Raises:
        ConfigError: A number is out of range.
    """

    def __init__(
        self,
        folder: str,
        every_n_validations: int,
        n_sprites: int,
        n_queries: int,
        n_neighbours: int,
        draws: bool,
    ) -> None:
        super().__init__(folder, every_n_validations, draws)
        self.n_sprites, self.n_queries, self.n_neighbours = n_sprites, n_queries, n_neighbours
        limits = {
            "n_sprites": (n_sprites, 0, MOST_SPRITES),
            "n_queries": (n_queries, 1, np.inf),
            "n_neighbours": (n_neighbours, 1, np.inf),
        }
        for name, (value, low, high) in limits.items():
            if not low <= value <= high:
                raise ConfigError(
                    f"expected {low} <= {name} <= {high} in model.reports, but got {name} = "
                    f"{value}",
                    value,
                    (low, high),
                )

    def show(self, writer: Any, trainer: Trainer, module: Any) -> None:  # noqa: ANN401
        """Show the last validation in TensorBoard."""
        super().show(writer, trainer, module)
        rows = finite(module.validated)
        if self.draws and self.n_sprites and len(rows.index):
            self._project(Path(writer.log_dir), trainer, module, rows)

    def is_drawn(self, name: str) -> bool:
        """Return whether a column of the table is in its picture: not what is said of one field."""
        return not name.split("/")[1].startswith(BY_FIELD)

    def draw_validation(self, trainer: Trainer, module: Any) -> dict[str, Figure]:  # noqa: ANN401
        """Return principal components, neighbours and views."""
        return self._draw(trainer, module, module.validated, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what the test has found."""
        if not trainer.is_global_zero:
            return
        module: Any = pl_module
        rows: Rows = module.tested
        figures: dict[str, Any] = logged(trainer, "test")
        figures |= {name: module.card[name] for name in ABOUT}
        figures |= {name: dict(module.hparams[name]) for name in ("network", "objective")}
        n_objects = len(np.unique(rows.objects.cpu().numpy()))
        figures |= {"n_stamps": len(rows.index), "n_objects": n_objects}
        write_json(self.path(trainer, "test.json"), figures)
        arrays = identified(trainer, "test", rows) | {
            "embeddings": rows.embeddings.float().cpu().numpy(),
            "labels": rows.labels.float().cpu().numpy(),
            "label_names": np.array(list(module.card["labels"]), dtype=np.str_),
        }
        write_arrays(self.path(trainer, "embeddings.npz"), arrays)
        if self.draws:
            for name, figure in self._draw(trainer, module, rows, "test").items():
                self.save(trainer, name, figure)

    def _draw(self, trainer: Trainer, module: Any, rows: Rows, split: str) -> dict[str, Figure]:  # noqa: ANN401
        rows, labels = finite(rows), module.card["labels"]
        if not len(rows.index):
            return {}
        embeddings = standardised(rows.embeddings).cpu().numpy()
        units = {name: str(label["unit"]) for name, label in labels.items()}
        values = rows.labels.cpu().numpy()
        return {
            "pca": pictures.draw_pca(embeddings, values, list(labels), units),
            "neighbours": self._strips(module, _dataset(trainer, split), rows),
            "views": _views(module, _dataset(trainer, split), rows, trainer.current_epoch),
        }

    def _strips(self, module: Any, dataset: Any, rows: Rows) -> Figure:  # noqa: ANN401
        """Draw stamps of different objects with their nearest."""
        x, chosen = standardised(rows.embeddings), of_different_objects(rows, self.n_queries)
        places, distances = nearest(
            x[chosen], rows.objects[chosen], x, rows.objects, self.n_neighbours
        )
        index = torch.cat((rows.index[chosen, None], rows.index[places]), dim=1).cpu().numpy()
        stamps = coloured(module, dataset, dataset.places_of(index.ravel()))
        stamps = stamps.reshape(*index.shape, *stamps.shape[1:])
        titles = dataset.names(dataset.places_of(index[:, 0]))
        return pictures.draw_strips(stamps[:, 0], stamps[:, 1:], distances.cpu().numpy(), titles)

    def _project(self, folder: Path, trainer: Trainer, module: Any, rows: Rows) -> None:  # noqa: ANN401
        """Write the embedding projector."""
        dataset = _dataset(trainer, "val")
        chosen = evenly(len(rows.index), self.n_sprites)
        places = dataset.places_of(rows.index[chosen].cpu().numpy())
        names = dataset.names(places)
        columns: dict[str, Any] = {"name": names, "suite": [suite_of(name) for name in names]}
        labels = module.card["labels"].items()
        for (name, label), values in zip(labels, rows.labels[chosen].T.tolist(), strict=True):
            columns[f"{name} [{label['unit']}]" if label["unit"] else name] = values
        embeddings = standardised(rows.embeddings)[chosen].float().cpu().numpy()
        sprites = coloured(module, dataset, places, SPRITE_PX)
        write_projector(folder, embeddings, sprites, columns)


def _views(module: Any, dataset: Any, rows: Rows, epoch: int) -> Figure:  # noqa: ANN401
    """Draw what a network is shown of stamps of different objects."""
    index = rows.index[of_different_objects(rows, N_VIEWED)].cpu()
    places = dataset.places_of(index.numpy())
    about: About = dataset.about(places)
    known = {field.name: getattr(about, field.name).to(module.device) for field in fields(about)}
    stamps = dataset.read(places).to(module.device)
    views = module.views(stamps, replace(about, **known), index.to(module.device), epoch)
    drawn = pictures.rgb(views.flatten(0, 1).cpu().numpy(), module.card["bands"])
    drawn = drawn.reshape(*views.shape[:2], *drawn.shape[1:])
    return pictures.draw_views(coloured(module, dataset, places), drawn, dataset.names(places))


def coloured(
    module: Any,  # noqa: ANN401 - GalaxyModule
    dataset: Any,  # noqa: ANN401 - GalaxiesDataset
    places: Numbers,
    side: int | None = None,
) -> NDArray[np.float32]:
    """Return stamps as the network sees them without views, in colours 0 to 1 (n, H, W, 3).

    Args:
        module: Has the stretch.
        dataset: Has the stamps.
        places: Of the stamps in it (n,).
        side: Of the pictures [px]; None: that of what the network sees.
    """
    found = []
    for first in range(0, len(places), N_READ):
        plain = module.views.plain(dataset.read(places[first : first + N_READ]))
        if side is not None:
            plain = interpolate(plain, size=(side, side), mode="area")
        found.append(pictures.rgb(plain.cpu().numpy(), module.card["bands"]))
    return np.concatenate(found)


def finite(rows: Rows) -> Rows:
    """Return the rows of finite embeddings: a network that has diverged gives others."""
    is_finite = rows.embeddings.isfinite().all(dim=1)
    return Rows(*(part[is_finite] for part in rows))


def evenly(n: int, n_chosen: int) -> Numbers:
    """Return at most `n_chosen` of n places, evenly spread and always the same."""
    return np.unique(np.linspace(0, n - 1, min(n, n_chosen)).round().astype(np.int64))


def of_different_objects(rows: Rows, n_chosen: int) -> Numbers:
    """Return the places of at most `n_chosen` rows, none of which show the same object."""
    firsts = np.sort(np.unique(rows.objects.cpu().numpy(), return_index=True)[1])
    chosen: Numbers = firsts[evenly(len(firsts), n_chosen)]
    return chosen


def identified(trainer: Trainer, split: str, rows: Rows) -> dict[str, NDArray[Any]]:
    """Return what tells the stamps of some rows from others: index, object, suite, name (n,)."""
    dataset, index = _dataset(trainer, split), rows.index.cpu().numpy()
    names: list[str] = dataset.names(dataset.places_of(index))
    return {
        "index": index,
        "object": rows.objects.cpu().numpy(),
        "suite": np.array([suite_of(name) for name in names], dtype=np.str_),
        "name": np.array(names, dtype=np.str_),
    }


def suite_of(name: str) -> str:
    """Return the suite of a stamp: names are suite, snapshot, object and projection."""
    return name.split("/")[0]


def _dataset(trainer: Trainer, split: str) -> Any:  # noqa: ANN401 - GalaxiesDataset
    return trainer.datamodule.dataset(split)  # type: ignore[attr-defined]
