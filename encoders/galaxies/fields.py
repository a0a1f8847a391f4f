"""Physical fields as what a network puts out: losses, values in their units, figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from datagen.errors import ConfigError
from encoders.galaxies.probes import r2


class Fields:
    """What the outputs of a network mean, field by field.

    A number has one output, in units of its standard deviation from the mean; a class has as many
    as there are classes, their logits. A stamp whose label is unknown does not count for a field.

    Args:
        labels: `mean` and `std` of each field, in the order of the labels of a batch.
        classes: Number of classes of those fields that are numbers of classes.

    Raises:
        ConfigError: There is no field, or a number of classes is below 2.
    """

    def __init__(self, labels: Mapping[str, Mapping[str, Any]], classes: Mapping[str, int]) -> None:
        if not labels:
            raise ConfigError(
                "expected stamps with labels to learn from, but got none; choose some with "
                "data.labels, which a suite's yaml (conf/suite) makes of columns",
                list(labels),
            )
        few = [f"{name}: {n}" for name, n in classes.items() if n < 2]
        if few:
            raise ConfigError(
                f"expected 2 or more in model.classes, but got {', '.join(few)}", dict(classes)
            )
        self.names = list(labels)
        self.mean = [float(label["mean"]) for label in labels.values()]
        self.std = [float(label["std"]) for label in labels.values()]
        self.n_classes = {name: int(n) for name, n in classes.items() if name in labels}
        self.widths = [self.n_classes.get(name, 1) for name in self.names]

    @property
    def n_outputs(self) -> int:
        """Outputs of a network for all fields."""
        return sum(self.widths)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over fields that some stamp knows.

        It is the squared error of numbers, the cross-entropy of classes; 0 where nothing is known.

        Args:
            outputs: (B, n_outputs).
            labels: NaN where unknown (B, F).

        Raises:
            ConfigError: A label is none of the classes.
        """
        terms, n_fields = [], labels.new_zeros(())
        for number, part in enumerate(self._split(outputs)):
            is_known = labels[:, number].isfinite()
            # A sum over no stamp is 0, and so is its gradient.
            n = is_known.sum().clamp_min(1)
            n_fields = n_fields + is_known.any()
            truth = labels[is_known, number]
            if self.names[number] in self.n_classes:
                classes = self._classes(number, truth)
                terms.append(cross_entropy(part[is_known], classes, reduction="sum") / n)
            else:
                wanted = (truth - self.mean[number]) / self.std[number]
                terms.append((part[is_known, 0] - wanted).square().sum() / n)
        return torch.stack(terms).sum() / n_fields.clamp_min(1)

    def values(self, outputs: Tensor) -> Tensor:
        """Return fields in their units, and numbers of the likeliest classes (B, F)."""
        columns = []
        for number, part in enumerate(self._split(outputs)):
            if self.names[number] in self.n_classes:
                columns.append(part.argmax(dim=1).to(outputs.dtype))
            else:
                columns.append(part[:, 0] * self.std[number] + self.mean[number])
        return torch.stack(columns, dim=1)

    def probabilities(self, outputs: Tensor) -> dict[str, Tensor]:
        """Return the probabilities of the classes (B, n_classes), by fields that are classes."""
        parts = zip(self.names, self._split(outputs), strict=True)
        return {name: part.softmax(dim=1) for name, part in parts if name in self.n_classes}

    def figures(self, outputs: Tensor, labels: Tensor) -> dict[str, float]:
        """Return how well outputs (n, n_outputs) tell labels; see `compare`."""
        return self.compare(self.values(outputs), labels)

    def compare(self, values: Tensor, labels: Tensor) -> dict[str, float]:
        """Return `r2_<field>` of numbers and `accuracy_<field>` of classes; NaN without any.

        Args:
            values: As `values` gives them (n, F).
            labels: NaN where unknown (n, F).
        """
        found = {}
        for number, name in enumerate(self.names):
            is_known = labels[:, number].isfinite()
            value, truth = values[is_known, number], labels[is_known, number]
            if name in self.n_classes:
                found[f"accuracy_{name}"] = float((value == truth).double().mean())
            else:
                found[f"r2_{name}"] = float(r2(value, truth))
        return found

    def _split(self, outputs: Tensor) -> tuple[Tensor, ...]:
        return torch.split(outputs, self.widths, dim=1)

    def _classes(self, number: int, truth: Tensor) -> Tensor:
        n_classes, classes = self.n_classes[self.names[number]], truth.long()
        if ((classes != truth) | (classes < 0) | (classes >= n_classes)).any():
            raise ConfigError(
                f"expected labels {self.names[number]} to be numbers from 0 to {n_classes - 1} "
                f"(model.classes), but got {sorted(set(truth.tolist()))[:5]}",
                self.names[number],
            )
        return classes
