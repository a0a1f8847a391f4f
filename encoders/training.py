"""Composes and runs a training: the only place among the encoders that knows the Trainer."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from conf.build import build
from datagen.errors import ConfigError, OutputError
from datagen.files import output_error
from encoders.checkpoint import check_resumable

log = logging.getLogger(__name__)

# Strategies that start this program again for every further device.
RESTARTING = ("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")

# Its own pytree module, small epochs, loading in the training process, resuming in the same folder,
# testing without callbacks.
REMARKS = (
    r".*LeafSpec.*",
    r".*smaller than the logging interval.*",
    r".*does not have many workers.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*callbacks used to create the checkpoint need to be provided.*",
)


def train(cfg: DictConfig) -> dict[str, float]:
    """Train the model of a composed `train.yaml`, then test its best checkpoint on one device.

    Args:
        cfg: `data`, `model`, `trainer`, `callbacks`, `logger`, `seed`, `ckpt_path`, `test`.

    Returns:
        Metrics by name: those of the last validation and of the test. Empty on all processes but
        the first.

    Raises:
        ConfigError: Settings are wrong or contradict one another.
        DataNotFoundError: The data or the checkpoint to resume from are missing.
        OutputError: The folder of the run cannot be written.
    """
    check_multirun(cfg)
    folder = run_folder(cfg)
    check_writable(folder)
    if cfg.ckpt_path is not None:
        check_resumable(Path(cfg.ckpt_path))
    quiet_lightning()
    # Workers are seeded by their loaders; the environment is left as it is.
    seed_everything(cfg.seed, verbose=False)
    datamodule: LightningDataModule = build(cfg.data)
    model: LightningModule = build(cfg.model, card=datamodule.card())  # type: ignore[attr-defined]
    loggers = build_loggers(cfg, folder)
    trainer: Trainer = build(
        cfg.trainer,
        callbacks=build_callbacks(cfg, loggers),
        logger=loggers or False,
        default_root_dir=str(folder),
    )
    log.info("training in %s", folder)
    trainer.fit(model, datamodule=datamodule, ckpt_path=cfg.ckpt_path, weights_only=True)
    metrics = _plain(trainer.callback_metrics)
    _leave_process_group()
    if not trainer.is_global_zero:
        return {}
    return metrics | (test(cfg, trainer, model, datamodule) if cfg.test else {})


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
    trainer: Trainer = build(
        OmegaConf.merge(cfg.trainer, {"strategy": "auto", "num_nodes": 1}),
        devices=one_device(cfg.trainer.devices),
        callbacks=[],
        logger=trained.loggers or False,
        default_root_dir=trained.default_root_dir,
        enable_checkpointing=False,
        # A cluster's environment would insist on as many devices as it has tasks.
        plugins=[LightningEnvironment()],
    )
    trainer.test(model, datamodule=datamodule, ckpt_path=best, verbose=False, weights_only=True)
    metrics = _plain(trainer.callback_metrics)
    figures = ", ".join(f"{name} {value:.4f}" for name, value in sorted(metrics.items()))
    log.info("tested %s: %s", best or "the last weights", figures)
    return metrics


def run_folder(cfg: DictConfig) -> Path:
    """Return the folder of this run: Hydra's, or without Hydra the one named `manual`."""
    if HydraConfig.initialized():
        return Path(HydraConfig.get().runtime.output_dir)
    return Path(str(cfg.paths.log_dir)) / str(cfg.task_name) / "runs" / "manual"


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


def check_multirun(cfg: DictConfig) -> None:
    """Refuse a sweep whose jobs would start the whole sweep again in every further process.

    Raises:
        ConfigError: Multirun with several devices under a strategy that restarts this program.
    """
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return
    is_cluster = "submitit" in str(HydraConfig.get().launcher.get("_target_"))
    strategy, devices = cfg.trainer.strategy, cfg.trainer.devices
    if is_cluster or strategy not in RESTARTING or n_devices(devices) < 2:
        return
    raise ConfigError(
        f"expected trainer.devices = 1 in a multirun with trainer.strategy = {strategy}, which "
        f"would run the whole sweep again in each process, but got trainer.devices = {devices}; "
        "use trainer.strategy=ddp_spawn, or hydra/launcher=submitit_slurm on a cluster",
        devices,
        1,
    )


def n_devices(devices: object) -> int:
    """Return how many devices a setting asks for; `auto` and -1 mean all GPUs, at least one."""
    if isinstance(devices, str) and devices not in ("auto", "-1"):
        numbers = [part for part in devices.split(",") if part.strip()]
        return int(numbers[0]) if "," not in devices else len(numbers)
    if devices in ("auto", "-1", -1):
        return max(1, torch.cuda.device_count())
    return devices if isinstance(devices, int) else len(list(devices))  # type: ignore[call-overload]


def one_device(devices: object) -> list[int] | int:
    """Return the first of several listed devices, or one of a number of them."""
    listed = not isinstance(devices, int | str)
    return [next(iter(devices))] if listed else 1  # type: ignore[call-overload]


def build_callbacks(cfg: DictConfig, loggers: list[Logger]) -> list[Any]:
    """Build the callbacks that are not null; rates are only monitored where they can be logged."""
    callbacks = [build(node) for node in _entries(cfg.callbacks)]
    return [c for c in callbacks if loggers or not isinstance(c, LearningRateMonitor)]


def build_loggers(cfg: DictConfig, folder: Path) -> list[Logger]:
    """Build the loggers that are not null; they write to the folder of the run."""
    return [build(node, save_dir=str(folder)) for node in _entries(cfg.logger)]


def quiet_lightning() -> None:
    """Silence remarks that Lightning repeats in every run and that no user can act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for remark in REMARKS:
        warnings.filterwarnings("ignore", message=remark)


def _entries(group: DictConfig | None) -> Iterable[DictConfig]:
    return [node for node in (group or {}).values() if node is not None]


def _plain(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _leave_process_group() -> None:
    """End the group of a distributed training; metrics of the test would wait for it."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
