"""Composes and runs a training: the only place among the encoders that knows the Trainer."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, ListConfig, OmegaConf

from conf.build import build
from conf.running import run_folder
from datagen.errors import ConfigError, OutputError
from datagen.files import output_error
from encoders.callbacks import ProgressLines, ReportCallback
from encoders.checkpoint import check_resumable, check_same_training, load_initial_weights
from encoders.devices import check_sweep, one_device, quiet_lightning, trainer_words
from encoders.memory import keep_freed_memory

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> dict[str, float]:
    """Train the model of a composed `train.yaml`, then test its best checkpoint on one device.

    Args:
        cfg: `data`, `model`, `trainer`, `callbacks`, `logger`, `seed`, `ckpt_path`, `init_from`,
            `test`.

    Returns:
        Metrics by name: those of the last validation and of the test. Empty on all processes but
        the first.

    Raises:
        ConfigError: Settings are wrong or contradict one another.
        CheckpointError: The checkpoint to resume from is damaged or of another training.
        DataNotFoundError: The data or the checkpoint to resume from are missing.
        OutputError: The folder of the run cannot be written.
    """
    check_sweep("trainer", cfg.trainer.devices, cfg.trainer.strategy)
    _check_start(cfg)
    folder = run_folder(cfg)
    check_writable(folder)
    limits = {name: cfg.trainer.get(name) for name in ("max_steps", "max_epochs")}
    ckpt = cfg.ckpt_path
    resumed = None if ckpt is None else check_resumable(Path(ckpt), limits, cfg.model)
    _begin(cfg.seed)
    datamodule: LightningDataModule = build(cfg.data)
    if resumed is not None and hasattr(datamodule, "reuse_splits"):
        datamodule.reuse_splits(resumed.get("card") or {})
    card = {**datamodule.card(), "model": str(cfg.task_name)}  # type: ignore[attr-defined]
    model: LightningModule = build(cfg.model, card=card)
    if resumed is not None:
        check_same_training(Path(cfg.ckpt_path), resumed, model.hparams)
    elif cfg.init_from is not None:
        hash_of = datamodule.data_hash  # type: ignore[attr-defined]
        load_initial_weights(Path(cfg.init_from), model, hash_of)
    loggers = build_loggers(cfg, folder)
    trainer = build_trainer(
        cfg.trainer,
        callbacks=build_callbacks(cfg, loggers) + _lines(cfg),
        logger=loggers or False,
        default_root_dir=str(folder),
        enable_progress_bar=_shows_bar(cfg),
    )
    if trainer.is_global_zero:
        start = cfg.ckpt_path or cfg.init_from or OmegaConf.select(cfg, "model.checkpoint")
        log.info("training from %s in %s", start or "scratch", folder)
    trainer.fit(model, datamodule=datamodule, ckpt_path=cfg.ckpt_path, weights_only=True)
    metrics = _plain(trainer.callback_metrics)
    if trainer.is_global_zero:
        log.info("training done after %d steps", trainer.global_step)
    _leave_process_group()
    if not trainer.is_global_zero:
        return {}
    return metrics | (test(cfg, trainer, model, datamodule) if cfg.test else {})


def _begin(seed: int) -> None:
    """Prepare the process."""
    quiet_lightning()
    keep_freed_memory()
    # Workers are seeded by their loaders; the environment is left as it is.
    seed_everything(seed, verbose=False)


def _check_start(cfg: DictConfig) -> None:
    """Raise `ConfigError` if a training shall begin in two ways."""
    if cfg.ckpt_path is not None and cfg.init_from is not None:
        raise ConfigError(
            "expected either ckpt_path (go on with the same data) or init_from (begin with these "
            f"weights), but got ckpt_path = {cfg.ckpt_path} and init_from = {cfg.init_from}",
            cfg.init_from,
        )
    pretrained = OmegaConf.select(cfg, "callbacks.pretrained.path")
    if pretrained is not None and cfg.init_from is not None:
        raise ConfigError(
            "expected either init_from or callbacks.pretrained.path, but got init_from = "
            f"{cfg.init_from} and path = {pretrained}",
            pretrained,
        )


def test(
    cfg: DictConfig, trained: Trainer, model: LightningModule, datamodule: LightningDataModule
) -> dict[str, float]:
    """Test the best checkpoint of a training, or the weights as they are if none was kept.

    One device sees every sample once and in one order, so that the figures can be published.
    """
    if not datamodule.test_dataloader():
        log.info("there are no test data")
        return {}
    best = getattr(trained.checkpoint_callback, "best_model_path", "") or None
    trainer = build_trainer(
        OmegaConf.merge(cfg.trainer, {"strategy": "auto", "num_nodes": 1}),
        devices=one_device(cfg.trainer.devices),
        callbacks=[c for c in trained.callbacks if isinstance(c, ReportCallback)],  # type: ignore[attr-defined]
        logger=trained.loggers or False,
        default_root_dir=trained.default_root_dir,
        enable_checkpointing=False,
        enable_progress_bar=_shows_bar(cfg),
        # A cluster's environment would insist on as many devices as it has tasks.
        plugins=[LightningEnvironment()],
    )
    trainer.test(model, datamodule=datamodule, ckpt_path=best, verbose=False, weights_only=True)
    metrics = _plain(trainer.callback_metrics)
    figures = ", ".join(f"{name} {value:.4f}" for name, value in sorted(metrics.items()))
    log.info("tested %s: %s", best or "the last weights", figures)
    return metrics


def build_trainer(node: DictConfig | ListConfig, **kwargs: Any) -> Trainer:  # noqa: ANN401 - Lightning's own
    """Build a trainer.

    Raises:
        ConfigError: A setting is wrong, or the machine has no such accelerator.
    """
    with trainer_words("trainer"):
        trainer: Trainer = build(node, **kwargs)
    return trainer


def check_writable(folder: Path) -> None:
    """Raise `OutputError` unless files can be made in a folder, which is created if missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "permission is denied")
    except OutputError:
        raise
    except OSError as error:
        raise output_error(folder, error) from error


def build_callbacks(cfg: DictConfig, loggers: list[Logger]) -> list[Any]:
    """Build the callbacks that are not null; rates are only monitored where they can be logged."""
    callbacks = [build(node) for node in _entries(cfg.callbacks)]
    return [c for c in callbacks if loggers or not isinstance(c, LearningRateMonitor)]


def build_loggers(cfg: DictConfig, folder: Path) -> list[Logger]:
    """Build the loggers that are not null; they write to the folder of the run."""
    return [build(node, save_dir=str(folder)) for node in _entries(cfg.logger)]


def _entries(group: DictConfig | None) -> Iterable[DictConfig]:
    return [node for node in (group or {}).values() if node is not None]


def _shows_bar(cfg: DictConfig) -> bool:
    """Show a progress bar to people only: it would fill a log file."""
    return bool(cfg.trainer.enable_progress_bar) and sys.stdout.isatty()


def _lines(cfg: DictConfig) -> list[ProgressLines]:
    """Return what tells the progress where there is no bar."""
    return [] if _shows_bar(cfg) else [ProgressLines()]


def _plain(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _leave_process_group() -> None:
    """End the group of a distributed training; metrics of the test would wait for it."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
