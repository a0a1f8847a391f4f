"""Training, evaluation and prediction of lens classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as loss_of

from datagen.errors import ConfigError
from encoders.augment import (
    N_SYMMETRIES,
    apply_symmetries,
    random_symmetries,
    randomly_turned,
)
from encoders.calibration import cross_entropy, fit_temperature
from encoders.factory import build_part
from encoders.lenses.calibration import check_coverage, unsure_threshold
from encoders.lenses.metrics import Answers, Predictions, Running, auroc_ovo, auroc_ovr
from encoders.lenses.stretch import Stretch
from encoders.metrics import accuracy, calibration_error
from encoders.residual import RunningNorm
from encoders.schedules import build_optimizers

Batch = dict[str, Any]
TURNS = ("none", "quarter", "any")
# Numbers of symmetries by what is allowed: turns, flips (see `encoders.augment.apply_symmetry`).
SYMMETRIES = {
    ("none", False): (0,),
    ("quarter", False): (0, 1, 2, 3),
    ("none", True): (0, 4),
    ("quarter", True): tuple(range(N_SYMMETRIES)),
}
# Images of a validation on which invariance is measured, each in eight positions.
N_TURNED = 16
TINY = 1e-12


class LensModule(LightningModule):
    """Probability of each class of substructure: `softmax(network(stretch(images)) / temperature)`.

    The temperature, and the confidence below which an image is unsure, are fitted on the validation
    images and travel with the weights to test and prediction.

    All arguments are plain values, so that a checkpoint loads alone.

    Args:
        card: What the network is for: task, classes, bands, pixel_scale [arcsec/px], side of its
            images [px], image_side [px] before they are cut or continued, stretch, data_hash.
        network: `_target_` and options of the network.
        loss: `label_smoothing`, 0 to 1.
        optimizer: `_target_` and options of the optimiser.
        scheduler: `_target_` and options of a schedule by steps; None keeps the learning rate.
        augment: Of training images: `turns`, by which angles (none, quarter, any), `flips`, whether
            half of them are mirrored, and `seed`.
        calibration: `coverage`, the share of validation images that are not unsure.
        freeze_norm: Keep the statistics of batch normalisation as they are: for weights that were
            trained on many images and go on with few.
    """

    temperature: Tensor
    unsure_threshold: Tensor

    def __init__(
        self,
        card: dict[str, Any],
        network: dict[str, Any],
        loss: dict[str, Any],
        optimizer: dict[str, Any],
        scheduler: dict[str, Any] | None,
        augment: dict[str, Any],
        calibration: dict[str, Any],
        freeze_norm: bool,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.card = dict(card)
        self.coverage = check_coverage(**calibration)
        self.label_smoothing = check_smoothing(**loss)
        self.augment = check_augment(**augment)
        self.freeze_norm = freeze_norm
        self.stretched = Stretch(side=int(card["side"]), **card["stretch"])
        sizes = {"in_channels": self.stretched.n_channels, "n_classes": len(card["classes"])}
        self.network = build_part(network, nn.Module, side=int(card["side"]), **sizes)
        self.validated: Answers | None = None
        self.tested: Answers | None = None
        self.running, self.val_answers, self.test_answers = Running(), Predictions(), Predictions()
        self.register_buffer("temperature", torch.tensor(1.0))
        self.register_buffer("unsure_threshold", torch.tensor(0.0))
        # Lightning takes modules as they are: what is frozen must be so from the beginning.
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, n_classes), not calibrated, for images (B, C, H, H) [counts]."""
        logits: Tensor = self.network(self.stretched(images))
        return logits

    def probabilities(self, images: Tensor) -> Tensor:
        """Return calibrated probabilities (B, n_classes), float32, for images (B, C, H, H)."""
        return torch.softmax(self(images).float() / self.temperature, dim=1)

    def train(self, mode: bool = True) -> LensModule:
        """Switch to training; batch normalisation stays as it is if it is frozen."""
        super().train(mode)
        if mode and self.freeze_norm:
            for part in self.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm | RunningNorm):
                    part.eval()
        return self

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        images, labels = self._augmented(self.stretched(batch["images"]), batch), batch["labels"]
        logits = self.network(images)
        loss = loss_of(logits, labels, label_smoothing=self.label_smoothing)
        self.running.update(loss, (logits.argmax(dim=1) == labels).sum(), len(labels))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(labels))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the images of the epoch before."""
        self.val_answers.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the answers to a batch; measure on the first one whether turns change them."""
        images = self.stretched(batch["images"])
        logits = self.network(images)
        self.val_answers.update(logits, batch)
        if batch_idx == 0:
            errors = self._invariance_errors(images[:N_TURNED], logits[:N_TURNED])
            self.log_dict(errors, sync_dist=True, batch_size=len(images))

    def on_validation_epoch_end(self) -> None:
        """Fit temperature and threshold, and log the figures."""
        answers = self.validated = Answers.from_rows(self.val_answers.compute())
        if not self.trainer.sanity_checking:
            self._calibrate(answers)
        values: dict[str, float | Tensor] = {
            f"val/{name}": value for name, value in self.figures(answers).items()
        }
        if self.running.update_called:
            values |= {f"train/{name}": value for name, value in self.running.compute().items()}
            # Not at the start of an epoch: a validation may come after half of one, or after two.
            self.running.reset()
        self._log(values | {"val/temperature": float(self.temperature)})

    def on_test_epoch_start(self) -> None:
        """Forget the images of a test before."""
        self.test_answers.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the answers to a batch."""
        self.test_answers.update(self(batch["images"]), batch)

    def on_test_epoch_end(self) -> None:
        """Log the figures at the temperature and threshold of the validation images."""
        answers = self.tested = Answers.from_rows(self.test_answers.compute())
        self._log({f"test/{name}": value for name, value in self.figures(answers).items()})

    def figures(self, answers: Answers) -> dict[str, float]:
        """Return the figures of some answers by name.

        `loss`, `auroc` (one class against the rest), `auroc_ovo` (class against class), `ece`, and
        `accuracy_kept` and `unsure` (accuracy of the images that are not unsure, and the share of
        those that are) hold for calibrated probabilities; `loss_raw` and `ece_raw` for T = 1.
        """
        labels, raw = answers.labels, answers.probabilities()
        temperature = float(self.temperature)
        p = answers.probabilities(temperature)
        is_kept = p.amax(dim=1) >= float(self.unsure_threshold)
        return {
            "loss": cross_entropy(answers.logits / temperature, labels),
            "loss_raw": cross_entropy(answers.logits, labels),
            "accuracy": accuracy(p, labels),
            "auroc": auroc_ovr(p, labels),
            "auroc_ovo": auroc_ovo(p, labels),
            "ece": calibration_error(p, labels),
            "ece_raw": calibration_error(raw, labels),
            "accuracy_kept": accuracy(p[is_kept], labels[is_kept]),
            "unsure": 1.0 - float(is_kept.double().mean()),
        }

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimiser and its schedule from the hyper-parameters."""
        return build_optimizers(
            self.hparams,
            self.network.parameters(),
            lambda: self.trainer.estimated_stepping_batches,
        )

    def _augmented(self, images: Tensor, batch: Batch) -> Tensor:
        turns, flips, seed = (self.augment[key] for key in ("turns", "flips", "seed"))
        if turns == "any":
            kinds = {"turns": True, "flips": flips}
            return randomly_turned(images, seed, self.current_epoch, batch["index"], **kinds)
        numbers = torch.tensor(SYMMETRIES[turns, flips], device=images.device)
        if len(numbers) == 1:
            return images
        drawn = random_symmetries(seed, self.current_epoch, batch["index"], len(numbers))
        return apply_symmetries(images, numbers[drawn])

    def _invariance_errors(self, images: Tensor, logits: Tensor) -> dict[str, Tensor]:
        """Return how much turns and flips change the logits, relative to their spread (rms)."""
        spread = (logits - logits.mean()).float().square().mean()

        def error(symmetries: range) -> Tensor:
            turned = [torch.full((len(images),), s, device=images.device) for s in symmetries]
            changes = [self.network(apply_symmetries(images, s)) - logits for s in turned]
            change = torch.stack(changes).float().square().mean()
            return (change / spread.clamp_min(TINY)).sqrt()

        return {"val/turn_error": error(range(1, 4)), "val/flip_error": error(range(4, 8))}

    def _calibrate(self, answers: Answers) -> None:
        temperature = fit_temperature(answers.logits, answers.labels)
        self.temperature.fill_(temperature)
        # Prediction compares in single precision, with this very number.
        confidence = answers.probabilities(float(self.temperature)).amax(dim=1)
        self.unsure_threshold.fill_(unsure_threshold(confidence, self.coverage))

    def _log(self, values: Mapping[str, float | Tensor]) -> None:
        """Log what is the same in all processes."""
        tensors = {
            name: torch.as_tensor(value, dtype=torch.float32, device=self.device)
            for name, value in values.items()
        }
        self.log_dict(tensors, sync_dist=True)


def check_smoothing(label_smoothing: float) -> float:
    """Return the share of a label that is spread over all classes.

    Raises:
        ConfigError: It is not in [0, 1).
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ConfigError(
            "expected 0 <= model.loss.label_smoothing < 1, but got label_smoothing = "
            f"{label_smoothing}",
            label_smoothing,
        )
    return float(label_smoothing)


def check_augment(turns: str, flips: bool, seed: int) -> dict[str, Any]:
    """Return the options of the augmentation.

    Raises:
        ConfigError: There are no such turns.
    """
    if turns not in TURNS:
        raise ConfigError(
            f"expected model.augment.turns to be one of {', '.join(TURNS)}, but got {turns}",
            turns,
            TURNS,
        )
    return {"turns": turns, "flips": bool(flips), "seed": int(seed)}
