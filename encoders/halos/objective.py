"""What an encoder is trained for: a weighted sum of losses."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn.functional import mse_loss

from datagen.errors import ConfigError
from encoders.distributed import gathered
from encoders.halos import losses
from encoders.halos.network import Outputs

# Options of the loss that are no weights.
OPTIONS = ("n_steps", "per_row")
# Terms that need more of the data than maps, and of the network than latents.
OF_CLASSES = ("classification", "cclp")
OF_TARGETS = ("distance", "regression")


@dataclass(frozen=True)
class Objective:
    """Weights of the losses; a loss of weight 0 is not computed.

    Args:
        classification: Cross-entropy of the classes.
        cclp: Compactness of the classes in the latent space, see `encoders.halos.losses.cclp`.
        n_steps: Longest walk of `cclp`.
        per_row: Whether `cclp` is a mean over maps, or over pairs of maps, as published.
        distance: Squared distance of the classes from their places on the first axis.
        regression: Squared distance of each map from its place on the first axis.
        reconstruction: Mean squared error of the decoded maps.
        bound: How far latents lie outside of [0, 1].
        divergence: Of the distributions of latents from the standard normal one.

    Raises:
        ConfigError: A weight is negative, all are 0, or `n_steps` is below 1.
    """

    classification: float
    cclp: float
    n_steps: int
    per_row: bool
    distance: float
    regression: float
    reconstruction: float
    bound: float
    divergence: float

    def __post_init__(self) -> None:
        values = [getattr(self, f.name) for f in fields(self) if f.name not in OPTIONS]
        if min(values) < 0 or max(values) == 0 or self.n_steps < 1:
            raise ConfigError(
                "expected weights of model.loss >= 0, one of them above, and n_steps >= 1, but got "
                f"{self}",
                str(self),
            )

    @property
    def weights(self) -> dict[str, float]:
        """Return the weights that are not 0."""
        found = {f.name: float(getattr(self, f.name)) for f in fields(self)
                 if f.name not in OPTIONS}  # fmt: skip
        return {name: weight for name, weight in found.items() if weight > 0}

    def only(self, names: Collection[str]) -> Objective:
        """Return the same weights for some losses, and 0 for the others."""
        off: dict[str, Any] = {name: 0.0 for name in self.weights if name not in names}
        return replace(self, **off)

    def check(self, names: list[str], has_targets: bool) -> None:
        """Raise `ConfigError` unless the data have what the losses ask for.

        Args:
            names: Of the classes.
            has_targets: Whether two cross-sections are known.
        """
        for loss in self.weights:
            if loss in OF_CLASSES and len(names) < 2:
                raise ConfigError(
                    f"expected two classes or more in data.sets for model.loss.{loss} > 0, but got "
                    f"classes = {', '.join(names) or 'none'}; take more cross-sections or sets, or "
                    "train model=halo_autoencoder, which needs none",
                    names,
                )
            if loss in OF_TARGETS and not has_targets:
                raise ConfigError(
                    f"expected two known cross-sections or more in data.sets for model.loss.{loss} "
                    f"> 0, but got classes = {', '.join(names) or 'none'}; take more, or set "
                    f"model.loss.{loss}=0",
                    names,
                )


class Labels(NamedTuple):
    """What is known of a batch.

    Args:
        classes: -1 for maps without a label (B,), int64.
        targets: NaN where unknown (B,).
        class_targets: Of all classes, NaN where unknown (K,).
        maps: What the network saw (B, C, H, H).
    """

    classes: Tensor
    targets: Tensor
    class_targets: Tensor
    maps: Tensor


def loss_terms(objective: Objective, outputs: Outputs, labels: Labels) -> dict[str, Tensor]:
    """Return each loss of the batch of all processes, without its weight.

    Args:
        objective: Says which losses are wanted.
        outputs: Of the network for the maps of this process.
        labels: Of the maps of this process.

    Raises:
        ConfigError: The network does not give what a loss asks for.
    """
    z, n_classes = outputs.z, len(labels.class_targets)

    def classes() -> Tensor:
        return gathered(labels.classes)

    made = {
        "classification": lambda: losses.classification(
            gathered(_given(outputs.logits, "logits", "classification")), classes()
        ),
        "cclp": lambda: losses.cclp(
            gathered(z), classes(), n_classes, objective.n_steps, objective.per_row
        ),
        "distance": lambda: losses.distance(gathered(z)[:, 0], classes(), labels.class_targets),
        "regression": lambda: losses.regression(gathered(z)[:, 0], gathered(labels.targets)),
        # Means over equally many maps in each process: their mean is that over all.
        "reconstruction": lambda: mse_loss(
            _given(outputs.maps, "a decoder", "reconstruction").float(), labels.maps
        ),
        "bound": lambda: losses.bound(z),
        "divergence": lambda: losses.divergence(
            z, _given(outputs.log_variance, "distributions of latents", "divergence")
        ),
    }
    return {name: made[name]() for name in objective.weights}


def weighted(objective: Objective, terms: dict[str, Tensor]) -> Tensor:
    """Return the sum of losses times their weights, a scalar."""
    total: Tensor = sum(terms[name] * weight for name, weight in objective.weights.items())  # type: ignore[assignment]
    return total


def _given(output: Tensor | None, what: str, loss: str) -> Tensor:
    if output is None:
        raise ConfigError(
            f"expected model.network to have {what} for model.loss.{loss} > 0; set it to 0, or "
            "choose another model",
            loss,
        )
    return output
