"""Fields of stamps learned on top of an encoder: a linear probe, or all of it fine-tuned."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MeanMetric

from datagen.errors import CheckpointError
from datagen.seeds import stream_seed
from encoders.cards import rules_of
from encoders.checkpoint import load_with_sha256
from encoders.factory import build_part
from encoders.galaxies.backbones import Backbone
from encoders.galaxies.data import TASK, Batch, about
from encoders.galaxies.fields import Fields
from encoders.galaxies.heads import Head
from encoders.galaxies.metrics import Rows
from encoders.galaxies.module import build_views, packed
from encoders.galaxies.probes import Gallery
from encoders.galaxies.views import warn_of_hidden
from encoders.optimizers import decay_groups
from encoders.schedules import build_optimizers

log = logging.getLogger(__name__)

PROBE_TASK = "galaxy_fields"
# What of an encoder's card its probe keeps.
ENCODER = ("model", "suites", "data_hash", "splits", "split_seed")


class ProbeModule(LightningModule):
    """Fields of stamps from their embeddings.

    All arguments are plain values, so that a checkpoint loads alone.

    Args:
        card: As of `encoders.galaxies.module.GalaxyModule`; its labels are what is learned.
        network: `_target_` and options of the backbone.
        views: See `encoders.galaxies.module.GalaxyModule`.
        widths: Of the hidden layers of the head; none make it linear.
        classes: Number of classes of those fields that are numbers of classes.
        is_frozen: Whether the backbone stays as it is, with what its normalisations have seen.
        augment: Whether training stamps become views, or are seen as they are.
        optimizer: `_target_` and options of the optimiser.
        scheduler: `_target_` and options of a schedule; None keeps the learning rate.
    """

    def __init__(
        self,
        card: dict[str, Any],
        network: dict[str, Any],
        views: dict[str, Any],
        widths: list[int],
        classes: dict[str, int],
        is_frozen: bool,
        augment: bool,
        optimizer: dict[str, Any],
        scheduler: dict[str, Any] | None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.card = dict(card) | {"task": PROBE_TASK}
        self.hparams["card"] = self.card
        self.views, self.augment = build_views(card, views, n_views=1), augment
        shape = {"in_channels": len(card["bands"]), "side": int(card["train_px"])}
        self.network = build_part(network, Backbone, **shape)
        self.is_frozen = is_frozen
        self.network.requires_grad_(not is_frozen)
        self.fields = Fields(card["labels"], classes)
        self.head = Head(self.network.n_features, [*widths, self.fields.n_outputs])
        self.val_answers, self.test_answers = (Gallery(len(self.fields.names)) for _ in range(2))
        self.train_losses = MeanMetric(nan_strategy="disable")
        self.validated: Rows | None = None
        self.tested: Rows | None = None
        self.train()

    @classmethod
    def on_top(
        cls,
        card: dict[str, Any],
        checkpoint: str | None,
        network: dict[str, Any],
        views: dict[str, Any],
        **options: Any,  # noqa: ANN401 - of the constructor
    ) -> ProbeModule:
        """Build a probe of an encoder.

        Args:
            card: Of the data.
            checkpoint: Of the encoder, which brings its backbone, views and stretch; None begins
                with random weights.
            network: Backbone where there is no checkpoint.
            views: Views where there is no checkpoint.
            **options: Others of the constructor.

        Raises:
            DataNotFoundError: The checkpoint is missing.
            CheckpointError: It is damaged, or of other bands, pixels or units.
        """
        if checkpoint is None:
            return cls(card=card, network=network, views=views, **options)
        encoder: Any
        encoder, sha256 = load_with_sha256(Path(checkpoint), TASK)
        check_alike(Path(checkpoint), encoder.card, card)
        warn_of_splits(Path(checkpoint), encoder.card, card)
        warn_of_hidden(encoder.views, card["labels"])
        own = {key: encoder.hparams[key] for key in ("network", "views")}
        about = {key: encoder.card.get(key) for key in ENCODER} | {"sha256": sha256}
        more = {"softening": encoder.card["softening"], "encoder": about}
        probe = cls(card=card | more, **own, **options)
        probe.network.load_state_dict(encoder.encoder.state_dict())
        log.info("on top of %s, trained on %s", checkpoint, ", ".join(encoder.card["suites"]))
        return probe

    def forward(self, stamps: Tensor) -> Tensor:
        """Return outputs (B, n_outputs), float32, of stamps (B, bands, side, side) [unit]."""
        return self._outputs(self.views.plain(stamps))

    def train(self, mode: bool = True) -> ProbeModule:
        """Set the mode of all parts but a frozen backbone, which stays in that of evaluation."""
        super().train(mode)
        self.network.train(mode and not self.is_frozen)
        return self

    def on_train_epoch_start(self) -> None:
        """Begin the random numbers of the network anew, so that a resumed training has the same."""
        seed = stream_seed(self.views.seed, self.current_epoch, f"network/{self.global_rank}")
        torch.manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        stamps = batch["stamps"]
        if self.augment:
            seen = self.views(stamps, about(batch), batch["index"], self.current_epoch)[0]
        else:
            seen = self.views.plain(stamps)
        loss = self.fields.loss(self._outputs(seen), batch["labels"])
        self.train_losses.update(loss.detach(), len(stamps))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(stamps))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the stamps of the epoch before."""
        self.val_answers.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the answers to a batch."""
        self._collect(self.val_answers, batch)

    def on_validation_epoch_end(self) -> None:
        """Log the figures."""
        self.validated = self.val_answers.compute()
        values = self._figures("val", self.validated)
        if self.train_losses.update_called:
            values["train/epoch_loss"] = self.train_losses.compute()
            # Not at the start of an epoch: a validation may come after half of one, or after two.
            self.train_losses.reset()
        self.log_dict(values, sync_dist=True)

    def on_test_epoch_start(self) -> None:
        """Forget the stamps of a test before."""
        self.test_answers.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the answers to a batch."""
        self._collect(self.test_answers, batch)

    def on_test_epoch_end(self) -> None:
        """Log the figures."""
        self.tested = self.test_answers.compute()
        self.log_dict(self._figures("test", self.tested), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimiser and its schedule from the hyper-parameters."""
        return build_optimizers(
            self.hparams, decay_groups(self), lambda: self.trainer.estimated_stepping_batches
        )

    def _outputs(self, seen: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.network(packed(seen)))
        return outputs.float()

    def _collect(self, answers: Gallery, batch: Batch) -> None:
        counts = batch["weight"] > 0
        known = (batch[key][counts] for key in ("object", "index", "labels"))
        answers.update(self(batch["stamps"])[counts], *known)

    def _figures(self, split: str, rows: Rows) -> dict[str, Tensor]:
        found = self.fields.figures(rows.embeddings, rows.labels)
        is_any = bool(rows.labels.isfinite().any())
        loss = self.fields.loss(rows.embeddings, rows.labels)
        # Without labels nothing is best.
        found["loss"] = float(loss) if is_any else math.nan
        return {f"{split}/{name}": torch.tensor(value, dtype=torch.float32, device=self.device)
                for name, value in found.items()}  # fmt: skip


def check_alike(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` where data do not look like those of an encoder."""
    for key, is_same in rules_of(TASK).is_same.items():
        if not is_same(before[key], now[key]):
            raise CheckpointError(
                f"expected stamps with {key} = {before[key]}, with which {path} was trained, but "
                f"got {key} = {now[key]}; extract them alike, or choose another model.checkpoint",
                now[key],
                before[key],
            )


def warn_of_splits(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Log a warning where objects that trained an encoder may test its probe."""
    keys, shared = ("splits", "split_seed"), set(before["suites"]) & set(now["suites"])
    if shared and any(before.get(key) != now.get(key) for key in keys):
        log.warning(
            "%s was trained on other splits of %s (seed %s, now %s): objects that trained it may "
            "test this probe, whose figures are then too good",
            path,
            ", ".join(sorted(shared)),
            before.get("split_seed"),
            now.get("split_seed"),
        )
