"""What a network is trained for: losses with what they keep and learn."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.galaxies import losses
from encoders.galaxies.heads import SigmoidScale
from encoders.galaxies.queue import Queue

# What other stamps of an anchor's object are to it.
NEGATIVES, MASKED, POSITIVES = "negatives", "masked", "positives"
SAME_OBJECT = (NEGATIVES, MASKED, POSITIVES)


class View(NamedTuple):
    """What networks say of one view of each stamp.

    Args:
        projected: By the head (B, D).
        predicted: By the predictor, from what is projected (B, D); None without.
        target: Projected by the slow copy (B, D); None without.
    """

    projected: Tensor
    predicted: Tensor | None = None
    target: Tensor | None = None


class Objective(nn.Module):
    """A loss of two views; its parameters are trained, its buffers travel with the weights."""

    needs_predictor = False
    needs_target = False

    def forward(self, a: View, b: View, objects: Tensor) -> Tensor:
        """Return the loss, the mean over the stamps of this process.

        Args:
            a: First view.
            b: Second view of the same stamps.
            objects: Which object each stamp shows, >= 0 (B,), int64.
        """
        raise NotImplementedError


class _OfObjects(Objective):
    """An objective that compares stamps with each other.

    Args:
        same_object: What stamps of one object are to each other: `negatives`, `masked` (left out)
            or `positives`.

    Raises:
        ConfigError: `same_object` is none of these.
    """

    def __init__(self, same_object: str) -> None:
        super().__init__()
        if same_object not in SAME_OBJECT:
            raise ConfigError(
                f"expected same_object to be one of {', '.join(SAME_OBJECT)}, but got same_object "
                f"= {same_object!r}",
                same_object,
                SAME_OBJECT,
            )
        self.knows_objects = same_object != NEGATIVES
        self.as_positives = same_object == POSITIVES

    def known(self, objects: Tensor) -> Tensor | None:
        """Return objects, or None where every stamp counts as its own."""
        return objects if self.knows_objects else None


class SimCLR(_OfObjects):
    """See `losses.nt_xent`, or decoupled `losses.dcl`.

    Args:
        temperature: > 0.
        is_decoupled: Whether positives are left out of the sum.
        same_object: See `_OfObjects`.

    Raises:
        ConfigError: The temperature is not positive, or `same_object` unknown.
    """

    def __init__(self, temperature: float, is_decoupled: bool, same_object: str) -> None:
        super().__init__(same_object)
        self.temperature = _positive(temperature)
        self.loss = losses.dcl if is_decoupled else losses.nt_xent

    def forward(self, a: View, b: View, objects: Tensor) -> Tensor:
        """See `Objective.forward`."""
        known = self.known(objects)
        return self.loss(a.projected, b.projected, self.temperature, known, self.as_positives)


class NNCLR(_OfObjects):
    """See `losses.nnclr`; the first view of trained stamps enters the queue after the loss.

    Args:
        temperature: > 0.
        same_object: See `_OfObjects`.
        n_rows: Of the queue.
        n_dimensions: D, of what is projected.

    Raises:
        ConfigError: A setting is out of range.
    """

    needs_predictor = True

    def __init__(
        self, temperature: float, same_object: str, n_rows: int, n_dimensions: int
    ) -> None:
        super().__init__(same_object)
        self.temperature = _positive(temperature)
        self.queue = Queue(n_rows, n_dimensions)

    def forward(self, a: View, b: View, objects: Tensor) -> Tensor:
        """See `Objective.forward`."""
        assert a.predicted is not None
        assert b.predicted is not None
        known = self.known(objects)
        near_a, near_b = (self.queue.nearest(view.projected, known) for view in (a, b))
        loss = losses.nnclr(
            near_a, near_b, a.predicted, b.predicted, self.temperature, known, self.as_positives
        )
        if self.training:
            self.queue.push(a.projected, objects)
        return loss


class SigLIP(_OfObjects):
    """See `losses.siglip`, with a scale and a bias that are learned.

    Args:
        scale: First scale of cosines.
        bias: First bias.
        same_object: See `_OfObjects`.

    Raises:
        ConfigError: The scale is not positive, or `same_object` unknown.
    """

    def __init__(self, scale: float, bias: float, same_object: str) -> None:
        super().__init__(same_object)
        self.scale = SigmoidScale(scale, bias)

    def forward(self, a: View, b: View, objects: Tensor) -> Tensor:
        """See `Objective.forward`."""
        (scale, bias), known = self.scale(), self.known(objects)
        return losses.siglip(a.projected, b.projected, scale, bias, known, self.as_positives)


class VICReg(Objective):
    """See `losses.vicreg`.

    Args:
        invariance: Weight of the squared distance of views.
        variance: Weight of what dimensions lack of variance 1.
        covariance: Weight of what dimensions share.

    Raises:
        ConfigError: A weight is negative.
    """

    def __init__(self, invariance: float, variance: float, covariance: float) -> None:
        super().__init__()
        self.weights = (invariance, variance, covariance)
        if min(self.weights) < 0:
            raise ConfigError(
                "expected weights of VICReg >= 0, but got invariance = "
                f"{invariance}, variance = {variance}, covariance = {covariance}",
                self.weights,
            )

    def forward(self, a: View, b: View, objects: Tensor) -> Tensor:
        """See `Objective.forward`; objects play no part."""
        return losses.vicreg(a.projected, b.projected, *self.weights)


class BYOL(Objective):
    """See `losses.byol`; the slow copy is a `MovingAverage` of encoder and head."""

    needs_predictor = True
    needs_target = True

    def forward(self, a: View, b: View, objects: Tensor) -> Tensor:
        """See `Objective.forward`; objects play no part."""
        assert a.predicted is not None
        assert b.predicted is not None
        assert a.target is not None
        assert b.target is not None
        return losses.byol(a.predicted, b.predicted, a.target, b.target)


def _positive(temperature: float) -> float:
    if not temperature > 0:
        raise ConfigError(
            f"expected temperature of a loss > 0, but got temperature = {temperature}", temperature
        )
    return temperature
