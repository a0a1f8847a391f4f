"""What an encoder of stamps says, as columns of a table: embeddings, or fields of a probe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from astropy.table import Table
from lightning import LightningModule
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from datagen.stamps.format import label_names
from encoders.galaxies.fields import Fields
from encoders.galaxies.figures import Probes
from encoders.galaxies.neighbours import standardised
from encoders.galaxies.pictures import draw_fields, draw_pca
from encoders.galaxies.probes import KNNProbe

Columns = dict[str, NDArray[Any]]
EMBEDDING, FOUND = "EMBEDDING", "FOUND_"


class Answers(Protocol):
    """What the outputs of a network mean.

    Args:
        n_outputs: D, of a stamp.
        units: Of columns that have one.
        known_units: Of labels, as the training had them; empty where there is none.
        picture: Name of what `draw` makes.
    """

    n_outputs: int
    units: Mapping[str, str]
    known_units: Mapping[str, str]
    picture: str

    def columns(self, outputs: NDArray[np.float32]) -> Columns:
        """Return the columns of a table from outputs (n, D)."""

    def figures(self, some: Table) -> dict[str, float]:
        """Return how well rows of the table tell labels; NaN where that is not known."""

    def draw(self, some: Table, units: Mapping[str, str]) -> Figure:
        """Draw rows of the table; labels have units."""


class Embeddings:
    """Column EMBEDDING of an encoder that learned from views.

    Args:
        n_outputs: D.
        probes: How embeddings are asked for labels.
    """

    picture = "pca"

    def __init__(self, n_outputs: int, probes: Probes) -> None:
        self.n_outputs, self.probes = n_outputs, probes
        # Where no field is found, labels may have any unit.
        self.units: Mapping[str, str] = {}
        self.known_units: Mapping[str, str] = {}

    def columns(self, outputs: NDArray[np.float32]) -> Columns:
        """Return the embeddings (n, D)."""
        return {EMBEDDING: outputs}

    def figures(self, some: Table) -> dict[str, float]:
        """Return `knn_r2_<label>`, and `knn_accuracy_<label>` of classes; see `KNNProbe`."""
        names = number_names(some)
        classes = [name for name in self.probes.classes if name in names]
        # Ranks that wait for the first one to finish compute nothing.
        probe = KNNProbe(names, classes, self.probes.n_neighbours, sync_on_compute=False)
        index, objects = np.arange(len(some)), np.asarray(some["IDENTITY"], np.int64)
        embeddings, values = _tensor(some[EMBEDDING]), labels_of(some, names)
        probe.update(embeddings, torch.from_numpy(objects), torch.from_numpy(index), values)
        return {name: float(value) for name, value in probe.compute().items()}

    def draw(self, some: Table, units: Mapping[str, str]) -> Figure:
        """Draw principal components, coloured by each label."""
        names = number_names(some)
        embeddings = standardised(_tensor(some[EMBEDDING]).double())
        return draw_pca(embeddings.numpy(), labels_of(some, names).numpy(), names, units)


class FoundFields:
    """Columns FOUND_<FIELD> of a probe, and P_<FIELD> of fields that are classes.

    Args:
        fields: What the outputs mean.
        units: Of the fields, by name; empty where there is none.
    """

    picture = "fields"

    def __init__(self, fields: Fields, units: Mapping[str, str]) -> None:
        self.fields, self.n_outputs, self.known_units = fields, fields.n_outputs, units
        self.units: Mapping[str, str] = {_found(name): unit for name, unit in units.items() if unit}

    def columns(self, outputs: NDArray[np.float32]) -> Columns:
        """Return the fields in their units, numbers of the likeliest classes, probabilities."""
        given, found = torch.from_numpy(outputs), {}
        for name, values in zip(self.fields.names, self.fields.values(given).T, strict=True):
            is_class = name in self.fields.n_classes
            found[_found(name)] = values.numpy().astype(np.int64 if is_class else np.float32)
        chances = self.fields.probabilities(given).items()
        return found | {f"P_{name.upper()}": values.numpy() for name, values in chances}

    def figures(self, some: Table) -> dict[str, float]:
        """Return `r2_<field>` of numbers and `accuracy_<field>` of classes."""
        return self.fields.compare(self._values(some), labels_of(some, self.fields.names))

    def draw(self, some: Table, units: Mapping[str, str]) -> Figure:
        """Draw found against true fields."""
        true = labels_of(some, self.fields.names).numpy()
        classes = list(self.fields.n_classes)
        return draw_fields(self._values(some).numpy(), true, self.known_units, classes)

    def _values(self, some: Table) -> Tensor:
        return torch.stack([_tensor(some[_found(name)]).double() for name in self.fields.names], 1)


def answers_of(module: LightningModule) -> Answers:
    """Return what the outputs of an encoder or of a probe mean."""
    trained: Any = module
    if not hasattr(trained, "fields"):
        return Embeddings(trained.network.n_features, trained.probes)
    labels = trained.card["labels"].items()
    return FoundFields(trained.fields, {name: str(label["unit"] or "") for name, label in labels})


def number_names(table: Table) -> list[str]:
    """Return the labels of a table that are numbers."""
    return [name for name in label_names(table.colnames) if table[name].dtype.kind in "fiub"]


def labels_of(table: Table, names: list[str]) -> Tensor:
    """Return labels (n, F), double precision; NaN where unknown."""
    there, found = number_names(table), np.full((len(table), len(names)), np.nan)
    for column, name in enumerate(names):
        if name in there:
            found[:, column] = table[name]
    return torch.from_numpy(found)


def _found(name: str) -> str:
    return f"{FOUND}{name.upper()}"


def _tensor(column: Any) -> Tensor:  # noqa: ANN401 - astropy's column
    return torch.from_numpy(np.array(column))
