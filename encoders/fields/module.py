"""Training, evaluation and prediction of the membership encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.factory import build_part
from encoders.fields.losses import check_loss, membership_loss, redshift_loss
from encoders.fields.metrics import ClusterMembershipAccuracy, MeanLoss
from encoders.fields.network import logit_of
from encoders.fields.normalize import normalize
from encoders.fields.photometry import source_maps
from encoders.schedules import build_scheduler

Batch = dict[str, Any]
LABELS = ("membership", "weight")
PIXELS = ("images", "sources", "background", "sigma")


class MembershipModule(LightningModule):
    """Probability that a cell holds a cluster-member galaxy.

    `p = sigmoid(network((images - background) / sigma))`

    All arguments are plain values, so that a checkpoint loads alone.

    Args:
        card: What the network is for: task, bands, pixel_scale [arcsec/px], zero_point [mag],
            cell_px, data_hash, prevalence (fraction of training cells with a member).
        network: `_target_` and options of the network.
        loss: Options of `membership_loss`, and `redshift_weight`, the weight of `redshift_loss`
            in training (0 for networks that see images).
        optimizer: `_target_` and options of the optimiser.
        scheduler: `_target_` and options of a schedule by steps; None keeps the learning rate.
    """

    threshold: Tensor
    network: Any

    def __init__(
        self,
        card: dict[str, Any],
        network: dict[str, Any],
        loss: dict[str, Any],
        optimizer: dict[str, Any],
        scheduler: dict[str, Any] | None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.card = dict(card)
        check_loss(**loss)
        self.redshift_weight = float(loss["redshift_weight"])
        self.loss = {"pos_weight": float(loss["pos_weight"]), "focal_gamma": loss["focal_gamma"]}
        options = {"n_bands": len(card["bands"]), "cell_px": int(card["cell_px"])}
        self.network = build_part(network, nn.Module, **options)
        if self.redshift_weight > 0 and not hasattr(self.network, "score"):
            raise ConfigError(
                f"expected model.loss.redshift_weight = 0 for {network['_target_']}, which has no "
                f"redshift head, but got redshift_weight = {self.redshift_weight}",
                self.redshift_weight,
                0,
            )
        to_channels_last(self.network)
        self.network.start_from(logit_of(card["prevalence"], self.loss["pos_weight"]))
        self.val_metrics, self.val_loss = ClusterMembershipAccuracy(), MeanLoss()
        self.test_metrics, self.test_loss = ClusterMembershipAccuracy(), MeanLoss()
        # Tuned on the validation cells; travels with the weights to test and prediction.
        self.register_buffer("threshold", torch.tensor(0.5))

    def forward(self, images: Tensor, background: Tensor, sigma: Tensor) -> Tensor:
        """Return logits (B, ny, nx).

        Args:
            images: Counts (B, C, H, W); bad pixels hold the background.
            background: Per image and band (B, C) [counts].
            sigma: Noise per image and band (B, C) [counts].
        """
        pixels = normalize(images, background, sigma)
        logits: Tensor = self.network(pixels)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        if self.redshift_weight > 0:
            logits, redshift = self.network.score(self._sources(batch))
            extra = redshift_loss(redshift, batch["redshift_map"])
            self.log("train/redshift_loss", extra, batch_size=len(batch["weight"]))
            loss = self._loss(logits, batch) + self.redshift_weight * extra
        else:
            loss = self._loss(self._logits(batch), batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["weight"]))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the cells of the epoch before."""
        self.val_metrics.reset()
        self.val_loss.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the cells of a batch."""
        self._evaluate(batch, self.val_metrics, self.val_loss)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics and keep the threshold that they were tuned to."""
        values = {**self.val_metrics.compute(), "loss": self.val_loss.compute()}
        if not self.trainer.sanity_checking:
            self.threshold.copy_(values["threshold"])
        self.log_dict({f"val/{name}": value for name, value in values.items()}, sync_dist=True)

    def on_test_epoch_start(self) -> None:
        """Count at the threshold that was tuned on the validation cells."""
        self.test_metrics.reset()
        self.test_loss.reset()
        self.test_metrics.threshold = float(self.threshold)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the cells of a batch."""
        self._evaluate(batch, self.test_metrics, self.test_loss)

    def on_test_epoch_end(self) -> None:
        """Log the metrics at the tuned threshold."""
        values = {**self.test_metrics.compute(), "loss": self.test_loss.compute()}
        self.log_dict({f"test/{name}": value for name, value in values.items()}, sync_dist=True)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Batch:
        """Return the probability per cell and whatever else the batch carries.

        Args:
            batch: `images`, `background`, `sigma` (see `forward`), or `sources` alone; other
                entries say where the images come from.
            batch_idx: Not used.

        Returns:
            `scores` (B, ny, nx) float32 and the other entries.
        """
        scores = torch.sigmoid(self._logits(batch).float())
        return {"scores": scores} | {k: v for k, v in batch.items() if k not in PIXELS}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimiser and its schedule from the hyper-parameters."""
        optimizer = build_part(
            self.hparams["optimizer"], torch.optim.Optimizer, self.network.parameters()
        )
        spec: Mapping[str, Any] | None = self.hparams["scheduler"]
        if spec is None:
            return optimizer
        scheduler = build_scheduler(
            dict(spec), optimizer, lambda: self.trainer.estimated_stepping_batches
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _sources(self, batch: Batch) -> Tensor:
        if "sources" in batch:
            measured: Tensor = batch["sources"]
            return measured
        return source_maps(normalize(batch["images"], batch["background"], batch["sigma"]))

    def _logits(self, batch: Batch) -> Tensor:
        if "sources" in batch:
            scored: Tensor = self.network.score(batch["sources"])[0]
            return scored
        logits: Tensor = self(batch["images"], batch["background"], batch["sigma"])
        return logits

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return membership_loss(logits, *(batch[key] for key in LABELS), **self.loss)

    def _evaluate(self, batch: Batch, metrics: ClusterMembershipAccuracy, mean: MeanLoss) -> None:
        logits = self._logits(batch)
        metrics.update(logits, *(batch[key] for key in LABELS))
        mean.update(self._loss(logits, batch), batch["weight"])


def to_channels_last(network: nn.Module) -> None:
    """Store the weights of two-dimensional convolutions as their kernels like them best."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
