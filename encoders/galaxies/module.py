"""Training and evaluation of encoders of stamps from two views of each."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric

from datagen.errors import ConfigError
from datagen.seeds import stream_seed
from encoders.factory import build_part
from encoders.galaxies.backbones import Backbone
from encoders.galaxies.data import Batch, about
from encoders.galaxies.figures import Probes, build_figures, readable
from encoders.galaxies.heads import Head, MovingAverage, momentum_at
from encoders.galaxies.metrics import Alignment, Rows
from encoders.galaxies.objectives import Objective, View
from encoders.galaxies.views import Views, warn_of_unknown
from encoders.optimizers import decay_groups
from encoders.schedules import build_optimizers, planned_steps

log = logging.getLogger(__name__)

N_VIEWS = 2
# Of stamps whose pixels are fluxes, in which noise is drawn.
FLUX_UNIT = "nanomaggy"


class GalaxyModule(LightningModule):
    """Embeddings of stamps, trained so that two views of a stamp say the same, others do not.

    `network(views.plain(stamps))` gives embeddings, or its moving average where that is wanted;
    `projector` and `predictor` serve the loss alone.

    All arguments are plain values, so that a checkpoint loads alone.

    Args:
        card: What the network is for: task, suites, bands, side and train_px [px], pixel_scale
            [arcsec/px], unit, zero_point [mag], softening [unit], labels, data_hash.
        network: `_target_` and options of the backbone.
        heads: `projector` and `predictor`: widths of their layers; a predictor is None where the
            objective needs none.
        objective: `_target_` and options of the loss.
        average: Momentum of a moving average of backbone and projector; None: no average. Where the
            objective compares with it, it rises to 1 at the horizon of the schedule; elsewhere it
            stays, and the average gives the embeddings.
        optimizer: `_target_` and options of the optimiser.
        scheduler: `_target_` and options of a schedule; None keeps the learning rate.
        views: `seed`, and the options of the steps of `Views`.
        probes: See `Probes`.

    Raises:
        ConfigError: A setting is wrong, or the objective needs a predictor or an average.
    """

    def __init__(
        self,
        card: dict[str, Any],
        network: dict[str, Any],
        heads: dict[str, Any],
        objective: dict[str, Any],
        average: float | None,
        optimizer: dict[str, Any],
        scheduler: dict[str, Any] | None,
        views: dict[str, Any],
        probes: dict[str, Any],
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.card = dict(card)
        self.views = build_views(card, views)
        shape = {"in_channels": len(card["bands"]), "side": int(card["train_px"])}
        self.network = build_part(network, Backbone, **shape)
        n_features = self.network.n_features
        self.projector, self.predictor = build_heads(n_features, **heads)
        self.objective = build_part(objective, Objective)
        self.momentum = average
        self.average = None
        if average is not None:
            self.average = MovingAverage(nn.Sequential(self.network, self.projector))
        check_parts(self.objective, self.projector, self.predictor, average)
        self.probes = Probes(**probes)
        names = list(card["labels"])
        self.val_figures = build_figures(self.probes, names, n_features)
        self.test_figures = build_figures(self.probes, names, n_features)
        self.alignment = Alignment()
        self.losses, self.train_losses = (MeanMetric(nan_strategy="disable") for _ in range(2))
        self.validated: Rows | None = None
        self.tested: Rows | None = None
        self._n_steps, self._horizon = 0, math.inf

    @property
    def is_averaged(self) -> bool:
        """Whether the moving average gives the embeddings, rather than serve as a target."""
        return self.average is not None and not self.objective.needs_target

    @property
    def encoder(self) -> nn.Module:
        """The network that answers: stamps that are stretched -> embeddings."""
        return self._answering()[0]

    def forward(self, stamps: Tensor) -> Tensor:
        """Return embeddings (B, n_features), float32, of stamps (B, bands, side, side) [unit]."""
        embeddings: Tensor = self.encoder(packed(self.views.plain(stamps)))
        return embeddings.float()

    def on_fit_start(self) -> None:
        """Say for which stamps steps of the views do nothing."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.trainer.is_global_zero:
            warn_of_unknown(self.views, data.dataset("train").unknown())

    def on_train_start(self) -> None:
        """Count steps from here."""
        self._n_steps = self.global_step
        self._horizon = planned_steps(
            self.hparams["scheduler"], lambda: self.trainer.estimated_stepping_batches
        )

    def on_train_epoch_start(self) -> None:
        """Begin the random numbers of the network anew, so that a resumed training has the same."""
        seed = stream_seed(self.views.seed, self.current_epoch, f"network/{self.global_rank}")
        torch.manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        a, b = self._both(self._drawn(batch, self.current_epoch))
        loss: Tensor = self.objective(a, b, batch["object"])
        self.train_losses.update(loss.detach(), len(batch["object"]))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["object"]))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Let the average follow after each step of the optimiser."""
        if self.average is None or self.momentum is None or self.global_step == self._n_steps:
            return
        self._n_steps = self.global_step
        momentum = self.momentum
        if self.objective.needs_target and math.isfinite(self._horizon):
            momentum = momentum_at(self.global_step, int(self._horizon), momentum)
        self.average.update(nn.Sequential(self.network, self.projector), momentum)

    def on_validation_epoch_start(self) -> None:
        """Forget the stamps of the epoch before."""
        self._forget(self.val_figures)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the embeddings of a batch, and its loss."""
        self._collect(self.val_figures, "val", batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the figures, and warn of a collapse."""
        self.validated, figures = self._found(self.val_figures)
        if figures["is_collapsed"] and not self.trainer.sanity_checking:
            log.warning(
                "embeddings have collapsed, these weights are of no use: mean standard deviation "
                "%.3g, rank %.3g, mean cosine %.3g; try a lower model.optimizer.lr, larger "
                "batches, or another objective",
                *(figures[name] for name in ("std", "rank", "cosine")),
            )
        values = {f"val/{name}": value for name, value in figures.items()}
        if self.train_losses.update_called:
            values["train/epoch_loss"] = float(self.train_losses.compute())
            # Not at the start of an epoch: a validation may come after half of one, or after two.
            self.train_losses.reset()
        self._log(values)

    def on_test_epoch_start(self) -> None:
        """Forget the stamps of a test before."""
        self._forget(self.test_figures)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the embeddings of a batch, and its loss."""
        self._collect(self.test_figures, "test", batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the figures."""
        self.tested, figures = self._found(self.test_figures)
        self._log({f"test/{name}": value for name, value in figures.items()})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimiser and its schedule from the hyper-parameters."""
        return build_optimizers(
            self.hparams, decay_groups(self), lambda: self.trainer.estimated_stepping_batches
        )

    def _drawn(self, batch: Batch, epoch: int) -> Tensor:
        """Return the views of a batch (2, B, bands, train_px, train_px)."""
        drawn: Tensor = self.views(batch["stamps"], about(batch), batch["index"], epoch)
        return drawn

    def _answering(self) -> tuple[nn.Module, nn.Module]:
        """Return the backbone that answers, and its projector."""
        if not self.is_averaged:
            return self.network, self.projector
        assert self.average is not None
        backbone, head = self.average.network.children()
        return backbone, head

    def _both(self, drawn: Tensor) -> tuple[View, View]:
        """Return what networks say of both views, which go through them as one batch."""
        flat = packed(drawn.flatten(0, 1))
        backbone, head = (self.network, self.projector) if self.training else self._answering()
        projected = head(backbone(flat))
        predicted = None if self.predictor is None else self.predictor(projected)
        is_asked = self.average is not None and self.objective.needs_target
        target = self.average(flat) if is_asked else None  # type: ignore[misc]
        halves = [(None, None) if part is None else part.chunk(N_VIEWS)
                  for part in (projected, predicted, target)]  # fmt: skip
        a, b = (View(*parts) for parts in zip(*halves, strict=True))
        return a, b

    def _forget(self, figures: nn.Module) -> None:
        figures.reset()  # type: ignore[operator] # of torchmetrics
        self.alignment.reset()
        self.losses.reset()

    def _collect(self, figures: nn.Module, split: str, batch: Batch, batch_idx: int) -> None:
        counts = batch["weight"] > 0
        embeddings = self(batch["stamps"])
        known = {key: batch[key][counts] for key in ("index", "labels")}
        figures.update(embeddings=embeddings[counts], objects=batch["object"][counts], **known)  # type: ignore[operator] # of torchmetrics
        # A loss depends on how many stamps are compared: all processes leave out the same batches.
        if batch_idx < self.trainer.datamodule.n_whole(split):  # type: ignore[attr-defined]
            drawn = self._drawn(batch, 0)
            a, b = self._both(drawn)
            self.losses.update(self.objective(a, b, batch["object"]), len(drawn[0]))
            seen = [self.encoder(packed(view)) for view in drawn]
            self.alignment.update(*(x[counts] for x in seen))

    def _found(self, figures: nn.Module) -> tuple[Rows, dict[str, float]]:
        """Return all embeddings, and the figures by name."""
        rows, found = readable(figures.compute())  # type: ignore[operator] # of torchmetrics
        found["alignment"] = float(self.alignment.compute())
        found["loss"] = float(self.losses.compute())
        return rows, found

    def _log(self, values: Mapping[str, float]) -> None:
        """Log what is the same in all processes."""
        self.log_dict(
            {
                name: torch.tensor(value, dtype=torch.float32, device=self.device)
                for name, value in values.items()
            },
            sync_dist=True,
        )


def build_views(
    card: Mapping[str, Any], options: Mapping[str, Any], n_views: int = N_VIEWS
) -> Views:
    """Return what draws views of stamps like those of a card.

    Raises:
        ConfigError: An option is wrong, or the noise is in another unit than the stamps.
    """
    unit = card.get("unit", FLUX_UNIT)
    if options.get("noise") is not None and unit != FLUX_UNIT:
        raise ConfigError(
            f"expected stamps in {FLUX_UNIT} for model.views.noise, but got unit = {unit}; leave "
            "the step out with model.views.noise=null",
            unit,
            FLUX_UNIT,
        )
    size = (list(card["bands"]), int(card["side"]), int(card["train_px"]))
    try:
        return Views(*size, n_views, stretch={"softening": card["softening"]}, **options)
    except TypeError as error:
        raise ConfigError(f"cannot build model.views: {error}", dict(options)) from error


def build_heads(
    n_features: int, projector: list[int], predictor: list[int] | None
) -> tuple[Head, Head | None]:
    """Return projector and predictor."""
    head = Head(n_features, projector)
    return head, None if predictor is None else Head(head.n_out, predictor)


def check_parts(
    objective: Objective, projector: Head, predictor: Head | None, average: float | None
) -> None:
    """Raise `ConfigError` where an objective lacks a part, or parts do not fit each other."""
    name, width = type(objective).__name__, projector.n_out
    if (predictor is not None) != objective.needs_predictor:
        words = ("widths", "null") if objective.needs_predictor else ("null", "widths")
        raise ConfigError(
            f"expected model.heads.predictor to be {words[0]} for the objective {name}, but got "
            f"{words[1]}",
            words[1],
        )
    queue = getattr(objective, "queue", None)
    widths = {
        "the last of model.heads.predictor": width if predictor is None else predictor.n_out,
        "model.objective.n_dimensions": width if queue is None else queue.kept.shape[1],
    }
    for key, value in widths.items():
        if value != width:
            raise ConfigError(
                f"expected {key} to be {width}, the last of model.heads.projector, but got {value}",
                value,
                width,
            )
    if objective.needs_target and average is None:
        raise ConfigError(
            f"expected model.average to be a momentum for the objective {name}, but got null",
            average,
        )
    if average is not None and not 0.0 <= average < 1.0:
        raise ConfigError(
            f"expected model.average to be null or in [0, 1), but got average = {average}", average
        )


def packed(stamps: Tensor) -> Tensor:
    """Return stamps with the channels of a pixel side by side, which convolutions like best."""
    return stamps.contiguous(memory_format=torch.channels_last)
