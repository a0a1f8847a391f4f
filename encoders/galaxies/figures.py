"""What a validation says of embeddings: what they tell of physical fields, how they lie."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torchmetrics import Metric, MetricCollection

from datagen.errors import ConfigError
from encoders.galaxies.collapse import Collapse, DimensionStd, RankMe
from encoders.galaxies.metrics import RetrievalPrecision, Rows, Uniformity
from encoders.galaxies.probes import Gallery, KNNProbe, RidgeProbe

# A dimension with less of the standard deviation that isotropic rows have says nothing.
DEAD = 0.1


@dataclass(frozen=True)
class Probes:
    """How embeddings are asked for physical fields.

    Args:
        classes: Fields that are numbers of classes, where stamps have them.
        n_neighbours: k, of the mean over nearest stamps and of the retrieval.
        penalty: Of ridge regression, > 0.
        n_folds: Parts of the objects, each of which is predicted from the others.

    Raises:
        ConfigError: A number is out of range.
    """

    classes: Sequence[str]
    n_neighbours: int
    penalty: float
    n_folds: int

    def __post_init__(self) -> None:
        if self.n_neighbours < 1 or not self.penalty > 0 or self.n_folds < 2:
            raise ConfigError(
                "expected n_neighbours >= 1, penalty > 0 and n_folds >= 2 in model.probes, but got "
                f"{self}",
                self,
            )


def build_figures(probes: Probes, labels: Sequence[str], n_features: int) -> MetricCollection:
    """Return the metrics of embeddings.

    They are updated with the keywords embeddings, objects, index and labels.

    Args:
        probes: How fields are asked for.
        labels: Names of the fields; none where stamps have no labels.
        n_features: Length of embeddings.
    """
    metrics: dict[str, Metric] = {
        "rows": Gallery(len(labels)),
        "uniformity": Uniformity(),
        "retrieval": RetrievalPrecision(probes.n_neighbours),
        "rank_me": RankMe(n_features),
        "dimensions": DimensionStd(n_features),
        "collapse": Collapse(n_features),
    }
    if labels:
        classes = [name for name in probes.classes if name in labels]
        metrics["knn"] = KNNProbe(labels, classes, probes.n_neighbours)
        metrics["ridge"] = RidgeProbe(labels, n_features, probes.penalty, probes.n_folds)
    return MetricCollection(metrics)  # type: ignore[arg-type] # a dict of metrics


def readable(found: Mapping[str, Any]) -> tuple[Rows, dict[str, float]]:
    """Return embeddings and figures that `build_figures` computed.

    `knn_r2` and `ridge_r2` are means over the fields that have a value.
    """
    rows, dimensions = found["rows"], found["dimensions"]
    figures = {name: float(value) for name, value in found.items()
               if isinstance(value, Tensor) and value.ndim == 0}  # fmt: skip
    figures["dead_dimensions"] = float((dimensions < DEAD).float().mean())
    for probe in ("knn_r2", "ridge_r2"):
        values = [x for name, x in figures.items()
                  if name.startswith(f"{probe}_") and math.isfinite(x)]  # fmt: skip
        if values:
            figures[probe] = sum(values) / len(values)
    return rows, figures
