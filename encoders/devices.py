"""Devices: how many are asked for, what a sweep may use, and what Lightning need not say."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from conf.running import sweeps_here
from datagen.errors import ConfigError, SkyfoldError

# Strategies that start this program again for every further device.
RESTARTING = ("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")
# Remarks that come in every run and that no user can act on.
REMARKS = (
    r".*LeafSpec.*",
    r".*module\(s\) in eval mode at the start of training.*",
    r".*smaller than the logging interval.*",
    r".*does not have many workers.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*callbacks used to create the checkpoint need to be provided.*",
)


def n_devices(devices: object) -> int:
    """Return how many devices a setting asks for; `auto` and -1 mean all GPUs, at least one.

    Raises:
        ConfigError: It is neither a number, nor a list of numbers, nor `auto`.
    """
    if devices in ("auto", "-1", -1):
        return max(1, torch.cuda.device_count())
    try:
        if isinstance(devices, str):
            numbers = [int(part) for part in devices.split(",") if part.strip()]
            return len(numbers) if "," in devices else numbers[0]
        return devices if isinstance(devices, int) else len(list(devices))  # type: ignore[call-overload]
    except (IndexError, TypeError, ValueError) as error:
        raise ConfigError(
            f"expected devices to be a number, a list of indices, or auto, but got devices = "
            f"{devices}",
            devices,
            "a number, a list of indices, auto",
        ) from error


@contextlib.contextmanager
def trainer_words(group: str) -> Iterator[None]:
    """Turn what Lightning says of a wrong word into one line.

    Args:
        group: `trainer` or `predict`, whose words the trainer is built from.

    Raises:
        ConfigError: A word is unknown, or the machine has no such devices.
    """
    try:
        yield
    except SkyfoldError:
        raise
    except (MisconfigurationException, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"cannot build the trainer from {group}.accelerator, .devices, .strategy, .precision: "
            f"{reason}",
            reason,
        ) from error


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
