"""Devices: how many are asked for, what a sweep may use, and what Lightning need not say."""

from __future__ import annotations

import logging
import warnings

import torch

from conf.running import sweeps_here
from datagen.errors import ConfigError

# Strategies that start this program again for every further device.
RESTARTING = ("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")
# Remarks that come in every run and that no user can act on.
REMARKS = (
    r".*LeafSpec.*",
    r".*smaller than the logging interval.*",
    r".*does not have many workers.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*callbacks used to create the checkpoint need to be provided.*",
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


def check_sweep(group: str, devices: object, strategy: str) -> None:
    """Refuse a sweep whose jobs would start the whole sweep again in every further process.

    Args:
        group: `trainer` or `predict`, for the message.
        devices: Number or list of devices.
        strategy: Lightning's word.

    Raises:
        ConfigError: Multirun with several devices under a strategy that restarts this program.
    """
    if not sweeps_here() or strategy not in RESTARTING or n_devices(devices) < 2:
        return
    raise ConfigError(
        f"expected {group}.devices = 1 in a multirun with {group}.strategy = {strategy}, which "
        f"would run the whole sweep again in each process, but got {group}.devices = {devices}; "
        f"use {group}.strategy=ddp_spawn, or hydra/launcher=submitit_slurm on a cluster",
        devices,
        1,
    )


def quiet_lightning() -> None:
    """Silence Lightning's progress reports of its own set-up, and remarks nobody can act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for remark in REMARKS:
        warnings.filterwarnings("ignore", message=remark)
