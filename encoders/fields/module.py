"""Training, evaluation and prediction of the membership encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from datagen.errors import ConfigError
from encoders.factory import build_part
from encoders.fields.calibration import FieldAgreement, fit_logits, logit_gradients
from encoders.fields.clusters import PROPERTIES, ClusterErrors, ClusterEstimate, cluster_targets
from encoders.fields.losses import check_loss, cluster_loss, membership_loss, redshift_loss
from encoders.fields.metrics import (
    ClusterMembershipAccuracy,
    MeanLoss,
    bin_centres,
    edge_of_logit,
    probability_of,
)
from encoders.fields.network import logit_of
from encoders.fields.normalize import normalize
from encoders.schedules import build_optimizers

Batch = dict[str, Any]
LABELS = ("membership", "weight")
# Slope and offset of logits.
UNCHANGED = (1.0, 0.0)
# Losses beside that of membership, each with its head and its weight.
EXTRAS = ("redshift", "cluster")
PIXELS = ("images", "sources", "background", "sigma")


class MembershipModule(LightningModule):
    """Probability that a cell holds a cluster-member galaxy; redshift and richness of the cluster.

    `p = sigmoid(slope * (network((images - background) / sigma) - ln(pos_weight)) + offset)`

    Slope and offset, factors of the errors of redshift and richness, and the threshold are fitted
    on the validation cells and travel with the weights to test and prediction.

    All arguments are plain values, so that a checkpoint loads alone.

    Args:
        card: What the network is for: task, bands, pixel_scale [arcsec/px], zero_point [mag],
            cell_px, data_hash, prevalence (fraction of training cells with a member).
        network: `_target_` and options of the network.
        loss: Options of `membership_loss`, and the weights of `redshift_loss` and `cluster_loss`
            in training: `redshift_weight`, `cluster_weight` (0 for networks without these heads;
            with `cluster_weight` = 0 no redshift and richness are predicted).
        optimizer: `_target_` and options of the optimiser.
        scheduler: `_target_` and options of a schedule by steps; None keeps the learning rate.
    """

    threshold: Tensor
    calibration: Tensor
    error_scale: Tensor
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
        self.weights = {name: float(loss[f"{name}_weight"]) for name in EXTRAS}
        self.loss = {"pos_weight": float(loss["pos_weight"]), "focal_gamma": loss["focal_gamma"]}
        options = {"n_bands": len(card["bands"]), "cell_px": int(card["cell_px"])}
        self.network = build_part(network, nn.Module, **options)
        self.has_heads = hasattr(self.network, "score")
        self._check_heads(network["_target_"])
        to_channels_last(self.network)
        self.network.start_from(logit_of(card["prevalence"], self.loss["pos_weight"]))
        self.val_metrics, self.val_loss = ClusterMembershipAccuracy(), MeanLoss()
        self.test_metrics, self.test_loss = ClusterMembershipAccuracy(), MeanLoss()
        self.val_errors, self.test_errors = ClusterErrors(), ClusterErrors()
        self.val_agreement = FieldAgreement(len(UNCHANGED))
        self.register_buffer("threshold", torch.tensor(0.5))
        self.register_buffer("calibration", torch.tensor(UNCHANGED))
        self.register_buffer("error_scale", torch.ones(len(PROPERTIES)))

    def forward(self, images: Tensor, background: Tensor, sigma: Tensor) -> Tensor:
        """Return calibrated logits (B, ny, nx).

        Args:
            images: Counts (B, C, H, W); bad pixels hold the background.
            background: Per image and band (B, C) [counts].
            sigma: Noise per image and band (B, C) [counts].
        """
        return self.calibrated(self.network(normalize(images, background, sigma)))

    def calibrated(self, logits: Tensor) -> Tensor:
        """Return the logits of the probabilities that hold on the validation cells, float32."""
        slope, offset = self.calibration.unbind()
        return slope * self._unweighted(logits) + offset

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        n_fields = len(batch["weight"])
        if self.has_heads:
            scores = self.network.score(self._sources(batch))
            loss = self._loss(scores.membership, batch)
            mean, log_sigma = scores.cluster
            extras = {
                "redshift": redshift_loss(scores.redshift, batch["redshift_map"]),
                "cluster": cluster_loss(mean, log_sigma, *_cluster_labels(batch)),
            }
            for name, extra in extras.items():
                self.log(f"train/{name}_loss", extra, batch_size=n_fields)
                # Also with weight 0: DDP wants a gradient for every parameter.
                loss = loss + self.weights[name] * extra
        else:
            loss = self._loss(self._scored(batch)[0], batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=n_fields)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the cells of the epoch before."""
        for metric in (self.val_metrics, self.val_loss, self.val_errors, self.val_agreement):
            metric.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the cells of a batch, not calibrated."""
        logits, cluster = self._scored(batch)
        counted = (self._unweighted(logits), *(batch[key] for key in LABELS))
        self.val_metrics.update(*counted)
        self.val_agreement.update(logit_gradients(*counted))
        self.val_loss.update(self._loss(logits, batch), batch["weight"])
        if cluster is not None:
            self.val_errors.update(cluster, *_cluster_labels(batch))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics, and keep what makes them hold: calibration and threshold."""
        values = self._values(self.val_metrics, self.val_loss, self.val_errors)
        if not self.trainer.sanity_checking:
            values["calibration_kept"] = self._calibrate(values)
            values["threshold"] = self.threshold
        self.log_dict({f"val/{name}": value for name, value in values.items()}, sync_dist=True)

    def on_test_epoch_start(self) -> None:
        """Count at the threshold that was tuned on the validation cells."""
        for metric in (self.test_metrics, self.test_loss, self.test_errors):
            metric.reset()
        self.test_metrics.threshold = float(self.threshold)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the cells of a batch, calibrated."""
        logits, cluster = self._scored(batch)
        self.test_metrics.update(self.calibrated(logits), *(batch[key] for key in LABELS))
        self.test_loss.update(self._loss(logits, batch), batch["weight"])
        if cluster is not None:
            self.test_errors.update(self._scaled(cluster), *_cluster_labels(batch))

    def on_test_epoch_end(self) -> None:
        """Log the metrics at the tuned threshold."""
        values = self.test_values()
        self.log_dict({f"test/{name}": value for name, value in values.items()}, sync_dist=True)

    def test_values(self) -> dict[str, Tensor]:
        """Return the metrics of the cells that the test has counted."""
        return self._values(self.test_metrics, self.test_loss, self.test_errors)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Batch:
        """Return what is predicted per cell and whatever else the batch carries.

        Args:
            batch: `images`, `background`, `sigma` (see `forward`), or `sources` alone; other
                entries say where the images come from.
            batch_idx: Not used.

        Returns:
            `scores`, the calibrated probability, and with `cluster_weight` > 0 `redshift`,
            `redshift_error`, `richness` and `richness_error` of the cluster of which the cell
            would hold members, each (B, ny, nx) float32; and the other entries.
        """
        logits, cluster = self._scored(batch)
        found = {"scores": torch.sigmoid(self.calibrated(logits))}
        if cluster is not None:
            found |= self._scaled(cluster).in_units()
        return found | {k: v for k, v in batch.items() if k not in PIXELS}

    def compile_network(self) -> None:
        """Compile what prediction calls, once for each shape of images."""
        if self.has_heads:
            self.network.measure = torch.compile(self.network.measure)
            self.network.score = torch.compile(self.network.score)
        else:
            self.network.compile()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimiser and its schedule from the hyper-parameters."""
        return build_optimizers(
            self.hparams,
            self.network.parameters(),
            lambda: self.trainer.estimated_stepping_batches,
        )

    def _sources(self, batch: Batch) -> Tensor:
        if "sources" in batch:
            measured: Tensor = batch["sources"]
            return measured
        pixels = normalize(batch["images"], batch["background"], batch["sigma"])
        maps: Tensor = self.network.measure(pixels)
        return maps

    def _scored(self, batch: Batch) -> tuple[Tensor, ClusterEstimate | None]:
        """Return the network's own logits, and its estimates if it is trained for them."""
        if not self.has_heads:
            pixels = normalize(batch["images"], batch["background"], batch["sigma"])
            return self.network(pixels), None
        scores = self.network.score(self._sources(batch))
        return scores.membership, scores.cluster if self.weights["cluster"] > 0 else None

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return membership_loss(logits, *(batch[key] for key in LABELS), **self.loss)

    def _values(
        self, metrics: ClusterMembershipAccuracy, loss: MeanLoss, errors: ClusterErrors
    ) -> dict[str, Tensor]:
        values = {**metrics.compute(), "loss": loss.compute()}
        return values | (errors.compute() if self.weights["cluster"] > 0 else {})

    def _calibrate(self, values: Mapping[str, Tensor]) -> Tensor:
        """Fit slope, offset and factors to the validation cells, and move the threshold along.

        Returns:
            The share of the fitted slope and offset that is kept: see `share_to_keep`.
        """
        curve, share = self.val_metrics.curve, self.val_agreement.compute()
        assert curve is not None
        fitted = fit_logits(bin_centres(curve.positive), curve.positive, curve.negative)
        slope, offset = torch.lerp(torch.tensor(UNCHANGED).double(), fitted, share).tolist()
        self.calibration.copy_(torch.tensor([slope, offset]))
        tuned = float(torch.logit(values["threshold"].double()))
        self.threshold.fill_(probability_of(edge_of_logit(slope * tuned + offset)))
        if self.weights["cluster"] > 0:
            scales = [values[f"{name}_error_scale"] for name in PROPERTIES]
            self.error_scale.copy_(torch.stack(scales))
        return share.float().to(self.threshold.device)

    def _unweighted(self, logits: Tensor) -> Tensor:
        """Return logits without the shift by the weight of positives in the loss, float32."""
        return logits.float() - math.log(self.loss["pos_weight"])

    def _scaled(self, cluster: ClusterEstimate) -> ClusterEstimate:
        scale = self.error_scale.log()[:, None, None]
        return ClusterEstimate(cluster.mean, cluster.log_sigma + scale)

    def _check_heads(self, target: str) -> None:
        """Raise `ConfigError` if a loss has a weight, but the network no head for it."""
        for name, weight in self.weights.items():
            if weight > 0 and not self.has_heads:
                raise ConfigError(
                    f"expected model.loss.{name}_weight = 0 for {target}, which has no {name} "
                    f"head, but got {name}_weight = {weight}",
                    weight,
                    0,
                )


def _cluster_labels(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return targets (B, 2, ny, nx) and weights (B, ny, nx); 0 where no cluster is known."""
    redshift, richness = batch["cluster_redshift"], batch["cluster_richness"]
    is_known = (batch["membership"] > 0) & (richness > 0)
    return cluster_targets(redshift, richness), batch["weight"] * is_known


def to_channels_last(network: nn.Module) -> None:
    """Store the weights of two-dimensional convolutions as their kernels like them best."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
