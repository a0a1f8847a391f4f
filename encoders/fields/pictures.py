"""TensorBoard pictures of the validation: PR curve, fields with true and predicted cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import default_collate

from encoders.fields.metrics import N_BINS, Curve
from encoders.fields.normalize import compress, normalize

# Signal that is drawn white [sigma, after asinh]: about 15 sigma per pixel.
WHITE = 3.4
MAX_SIDE_PX = 640
GAP_PX = 8
GREEN, RED = (0.2, 1.0, 0.2), (1.0, 0.25, 0.2)
CURVE_POINTS = 128


class MembershipPictures(Callback):
    """Logs pictures after each validation, if there is a TensorBoard logger.

    Args:
        n_fields: Validation fields to draw, those with the most members.
        every_n_validations: Draw after each n-th validation.
    """

    def __init__(self, n_fields: int, every_n_validations: int) -> None:
        self.n_fields, self.every = n_fields, every_n_validations
        self.n_validations = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw fields, and the precision-recall curve of all validation cells."""
        writer = self._writer(trainer)
        if writer is not None:
            for number, picture in enumerate(self._draw_fields(trainer, pl_module)):
                writer.add_image(f"val/field_{number}", picture, global_step=trainer.global_step)
        curve: Curve | None = getattr(pl_module.val_metrics, "curve", None)
        if writer is not None and curve is not None:
            writer.add_pr_curve_raw(
                "val/precision_recall", **curve_points(curve), global_step=trainer.global_step
            )
        if not trainer.sanity_checking:
            self.n_validations += 1

    def _draw_fields(self, trainer: Trainer, pl_module: LightningModule) -> Iterator[Tensor]:
        fields = trainer.datamodule.images("val")  # type: ignore[attr-defined]
        for number in range(min(self.n_fields, len(fields))):
            batch = default_collate([fields[number]])
            batch = pl_module.transfer_batch_to_device(batch, pl_module.device, 0)
            with torch.no_grad():
                scores = pl_module.predict_step(batch, 0)["scores"]
            yield draw_field(batch, scores.float()).cpu()

    def _writer(self, trainer: Trainer) -> Any:  # noqa: ANN401 - SummaryWriter is untyped
        if trainer.sanity_checking or self.n_validations % self.every:
            return None
        loggers = (x for x in trainer.loggers if isinstance(x, TensorBoardLogger))
        first = next(loggers, None)
        return first.experiment if first is not None and trainer.is_global_zero else None


def draw_field(batch: dict[str, Any], scores: Tensor) -> Tensor:
    """Draw a field twice side by side: true cells in green, predicted ones in red.

    Args:
        batch: `images`, `background`, `sigma` and `membership` of one field; leading axis 1.
        scores: Probability per cell (1, ny, nx); drawn as the strength of the colour.

    Returns:
        Picture (3, H', W') in [0, 1].
    """
    sky = _colour(compress(normalize(batch["images"], batch["background"], batch["sigma"])))
    true = _tint(sky, batch["membership"].float(), GREEN)
    predicted = _tint(sky, scores, RED)
    gap = sky.new_ones(3, sky.shape[1], GAP_PX)
    return torch.cat((true, gap, predicted), dim=2)


def curve_points(curve: Curve) -> dict[str, Any]:
    """Return what TensorBoard needs for a precision-recall curve.

    The points lie at evenly spaced bins of the logit from low to high, not of the probability.
    """
    edges = torch.linspace(0, N_BINS, CURVE_POINTS, device=curve.positive.device).long()
    true_positive, false_positive = curve.true_positive[edges], curve.false_positive[edges]
    counts = {
        "true_positive_counts": true_positive,
        "false_positive_counts": false_positive,
        "true_negative_counts": curve.n_negative - false_positive,
        "false_negative_counts": curve.n_positive - true_positive,
        "precision": curve.precision[edges],
        "recall": curve.recall[edges],
    }
    return {key: value.cpu() for key, value in counts.items()} | {"num_thresholds": CURVE_POINTS}


def _colour(normalised: Tensor) -> Tensor:
    """Return (3, H', W') in [0, 1]: reddest band red, middle green, bluest blue."""
    step = -(-max(normalised.shape[-2:]) // MAX_SIDE_PX)
    small = torch.nn.functional.avg_pool2d(normalised, step, ceil_mode=True)[0]
    n_bands = len(small)
    return (small[[n_bands - 1, n_bands // 2, 0]] / WHITE).clamp(0.0, 1.0)


def _tint(sky: Tensor, strength: Tensor, colour: tuple[float, float, float]) -> Tensor:
    """Mix a colour into cells, half-way where the strength is 1."""
    mix = 0.5 * interpolate(strength[:, None], size=tuple(sky.shape[-2:]))[0]
    paint = sky.new_tensor(colour)[:, None, None]
    return sky * (1.0 - mix) + paint * mix
