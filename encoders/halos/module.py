"""Training and evaluation of encoders of halos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from datagen.errors import CheckpointError, ConfigError
from datagen.seeds import stream_seed
from encoders.augment import randomly_turned
from encoders.calibration import cross_entropy, fit_temperature
from encoders.cards import command_for
from encoders.factory import build_part
from encoders.halos.bottleneck import draw_kept
from encoders.halos.inputs import Inputs
from encoders.halos.judge import Judge, JudgeSettings
from encoders.halos.losses import distance
from encoders.halos.metrics import Answers, Collected, Means, rmse
from encoders.halos.network import Outputs
from encoders.halos.objective import Labels, Objective, loss_terms, weighted
from encoders.halos.reference import Reference
from encoders.halos.targets import LogScale
from encoders.halos.views import ring_view
from encoders.metrics import accuracy, calibration_error
from encoders.schedules import build_optimizers, step_plateau

Batch = dict[str, Tensor]
TASK = "halos"
SAMPLE, BATCH, NONE = "sample", "batch", "none"
# Losses that are computed batch by batch in a validation; the others need all answers.
BY_BATCH = ("reconstruction", "bound", "divergence")
# Sets and maps as one number: above any number of a map in its suite.
PER_SET = 1 << 40


class HaloModule(LightningModule):
    """Latents, class probabilities and cross-section of halos from their maps.

    `network(inputs(maps))` gives latents and logits. The temperature of the probabilities is fitted
    on the validation maps and travels with the weights, as do some of these maps, as the network
    sees them: how sure an answer is follows from them (see `judge`).

    All arguments are plain values, so that a checkpoint loads alone.

    Args:
        card: What the network is for: task, sets, classes, cross_sections [cm^2/g], target (scale
            of the logarithm), channels, units, side [px], pixel_scale [kpc/px], inputs (transform),
            ids (halos by split), data_hash.
        network: `_target_` and options of the network.
        loss: See `Objective`.
        optimizer: `_target_` and options of the optimiser.
        scheduler: `_target_` and options of a schedule; None keeps the learning rate.
        augment: `turns` (by any angle, or if `exact` by quarters) and `flips` of training maps, and
            `seed`, which also seeds the bottleneck and dropout.
        bottleneck: How many latents the head sees in training is drawn for each `sample`, each
            `batch`, or not at all (`none`).
        judge: See `JudgeSettings`.
    """

    temperature: Tensor
    class_targets: Tensor

    def __init__(
        self,
        card: dict[str, Any],
        network: dict[str, Any],
        loss: dict[str, Any],
        optimizer: dict[str, Any],
        scheduler: dict[str, Any] | None,
        augment: dict[str, Any],
        bottleneck: str,
        judge: dict[str, Any],
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.card = dict(card)
        self.objective = Objective(**loss)
        self.scale = LogScale(**card["target"]) if card["target"] else None
        self.objective.check(card["classes"], self.scale is not None)
        self.seed, self.kinds = _augmentation(**augment)
        self.bottleneck = _checked_bottleneck(bottleneck)
        self.judging = JudgeSettings(**judge)
        self.reference = Reference(self.judging.n_reference)
        self.inputs = Inputs(**card["inputs"])
        sizes = {"in_channels": len(card["channels"]), "n_classes": len(card["classes"])}
        self.network = build_part(network, nn.Module, side=int(card["side"]), **sizes)
        self.validated: Answers | None = None
        self.tested: Answers | None = None
        self.val_answers, self.test_answers = Collected(), Collected()
        names = list(self.objective.weights)
        self.train_means = Means(["loss", *names])
        self.batch_means = Means([name for name in names if name in BY_BATCH])
        self.register_buffer("temperature", torch.tensor(1.0))
        self.register_buffer("class_targets", self._class_targets(), persistent=False)

    def forward(self, maps: Tensor) -> Outputs:
        """Return latents and logits, not calibrated, for maps (B, C, H, H) in their units."""
        outputs: Outputs = self.network(self.inputs(maps))
        return outputs

    def probabilities(self, outputs: Outputs) -> Tensor:
        """Return calibrated probabilities of the classes (B, K), float32."""
        assert outputs.logits is not None
        return torch.softmax(outputs.logits.float() / self.temperature, dim=1)

    @property
    def has_axis(self) -> bool:
        """Whether the first latent is trained to be the scaled cross-section."""
        places = {"distance", "regression"} & self.objective.weights.keys()
        return self.scale is not None and bool(places)

    def judge(self) -> Judge:
        """Judge the encoder by the validation maps that travel with it.

        Raises:
            CheckpointError: There are none.
        """
        if not len(self.reference):
            raise CheckpointError(
                "the checkpoint was written before a validation, so that nothing tells how sure "
                f"answers are; train it again with: {command_for(TASK, self.card)}",
                0,
            )
        targets = self.class_targets.cpu().double().numpy() if self.has_axis else None
        return Judge.fit(self.reference, targets, self.judging)

    def views(self, outputs: Outputs, maps: Tensor) -> list[Tensor]:
        """Return what maps can be judged by besides latents: features and rings, each (B, V).

        Args:
            outputs: Of the network.
            maps: What it saw, transformed (B, C, H, H).
        """
        features = outputs.z[:, :0] if outputs.features is None else outputs.features
        return [features.float(), ring_view(maps)]

    def on_train_epoch_start(self) -> None:
        """Begin the random numbers of dropout anew, so that a resumed training has the same."""
        torch.manual_seed(stream_seed(self.seed, self.current_epoch, f"dropout/{self.global_rank}"))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        number = batch["index"] + PER_SET * batch["set"]
        maps = self.inputs(batch["maps"])
        maps = randomly_turned(maps, self.seed, self.current_epoch, number, **self.kinds)
        outputs = self.network(maps, self._kept(number))
        terms = loss_terms(self.objective, outputs, self._labels(batch, maps))
        loss = weighted(self.objective, terms)
        self.train_means.update(terms | {"loss": loss}, float(len(maps)))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(maps))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the maps of the epoch before."""
        self.val_answers.reset()
        self.batch_means.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the answers to a batch."""
        self._collect(batch, self.val_answers, has_views=True)

    def on_validation_epoch_end(self) -> None:
        """Fit the temperature, and log the figures."""
        answers = self.validated = self.val_answers.answers()
        if not self.trainer.sanity_checking:
            is_known = answers.is_labelled
            logits, classes = answers.logits[is_known], answers.classes[is_known]
            self.temperature.fill_(fit_temperature(logits, classes) if logits.shape[1] else 1.0)
            self.reference.keep(answers)
        figures = self.figures(answers, self._batch_means())
        if not self.trainer.sanity_checking:
            step_plateau(self.lr_schedulers(), figures["loss"])
        values: dict[str, float | Tensor] = {f"val/{k}": v for k, v in figures.items()}
        if self.train_means.update_called:
            means = self.train_means.compute()
            means["epoch_loss"] = means.pop("loss")
            values |= {f"train/{name}": value for name, value in means.items()}
            # Not at the start of an epoch: a validation may come after half of one, or after two.
            self.train_means.reset()
        self._log(values | {"val/temperature": float(self.temperature)})

    def on_test_epoch_start(self) -> None:
        """Forget the maps of a test before."""
        self.test_answers.reset()
        self.batch_means.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the answers to a batch."""
        self._collect(batch, self.test_answers, has_views=True)

    def on_test_epoch_end(self) -> None:
        """Log the figures."""
        answers = self.tested = self.test_answers.answers()
        figures = self.figures(answers, self._batch_means())
        self._log({f"test/{name}": value for name, value in figures.items()})

    def figures(self, answers: Answers, means: Mapping[str, float]) -> dict[str, float]:
        """Return the figures of some answers by name.

        `loss` is the weighted sum of `means` and of those of `classification` (with calibrated
        probabilities), `distance` and `regression` that are wanted; compactness has no part in it,
        which is no figure of a map. `rmse` is that of the first latent, `rmse_dex` the same in the
        logarithm of the cross-section.

        Args:
            answers: Of all maps.
            means: Losses that were computed by batch.
        """
        weights = self.objective.weights
        terms, found = dict(means), dict(means)
        if answers.logits.shape[1]:
            is_known = answers.is_labelled
            logits, classes = answers.logits[is_known], answers.classes[is_known]
            logits = logits / float(self.temperature)
            p = torch.softmax(logits, dim=1)
            terms["classification"] = cross_entropy(logits, classes)
            found["accuracy"] = accuracy(p, classes)
            found["ece"] = calibration_error(p, classes)
        if self.has_axis:
            assert self.scale is not None
            first, places = answers.z[:, 0], self.class_targets.cpu().double()
            terms["distance"] = float(distance(first, answers.classes, places))
            found["rmse"] = rmse(first, answers.targets)
            terms["regression"] = found["rmse"] ** 2
            found["rmse_dex"] = found["rmse"] * (self.scale.high - self.scale.low)
        loss = sum(weights[name] * value for name, value in terms.items() if name in weights)
        return found | {"loss": float(loss)}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimiser and its schedule from the hyper-parameters."""
        return build_optimizers(
            self.hparams,
            self.network.parameters(),
            lambda: self.trainer.estimated_stepping_batches,
        )

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:  # noqa: ANN401 - Lightning's
        """Advance a schedule by steps; see `step_plateau` for the others."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def _kept(self, number: Tensor) -> Tensor | None:
        """Return how many latents the head sees of each map (B,); None: all."""
        n_latent = int(getattr(self.network, "n_latent", 0))
        if self.bottleneck == NONE or not n_latent:
            return None
        if self.bottleneck == BATCH:
            number = torch.full_like(number, self.global_step)
        return draw_kept(self.seed, self.current_epoch, number, n_latent)

    def _labels(self, batch: Batch, maps: Tensor) -> Labels:
        return Labels(batch["class"], batch["target"], self.class_targets, maps)

    def _collect(self, batch: Batch, answers: Collected, has_views: bool = False) -> None:
        maps = self.inputs(batch["maps"])
        outputs: Outputs = self.network(maps)
        answers.update(outputs, batch, self.views(outputs, maps) if has_views else ())
        counts = batch["weight"] > 0
        if self.batch_means.names and counts.any():
            kept = Outputs(*(None if part is None else part[counts] for part in outputs))  # type: ignore[arg-type]
            labels = self._labels(batch, maps[counts])
            objective = self.objective.only(BY_BATCH)
            self.batch_means.update(loss_terms(objective, kept, labels), counts.sum())

    def _batch_means(self) -> dict[str, float]:
        if not self.batch_means.names:
            return {}
        return {name: float(value) for name, value in self.batch_means.compute().items()}

    def _class_targets(self) -> Tensor:
        """Return the place of each class on the first axis, NaN where unknown (K,)."""
        values = torch.tensor(
            [float("nan") if x is None else x for x in self.card["cross_sections"]]
        )
        if self.scale is None:
            return torch.full_like(values, float("nan"))
        return torch.from_numpy(self.scale.forward(values.double().numpy())).float()

    def _log(self, values: Mapping[str, float | Tensor]) -> None:
        """Log what is the same in all processes."""
        tensors = {
            name: torch.as_tensor(value, dtype=torch.float32, device=self.device)
            for name, value in values.items()
        }
        self.log_dict(tensors, sync_dist=True)


def _augmentation(turns: bool, flips: bool, exact: bool, seed: int) -> tuple[int, dict[str, bool]]:
    return int(seed), {"turns": bool(turns), "flips": bool(flips), "exact": bool(exact)}


def _checked_bottleneck(word: str) -> str:
    if word not in (SAMPLE, BATCH, NONE):
        raise ConfigError(
            f"expected model.bottleneck to be one of {SAMPLE}, {BATCH}, {NONE}, but got bottleneck "
            f"= {word}",
            word,
            (SAMPLE, BATCH, NONE),
        )
    return word
