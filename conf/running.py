"""What Hydra says of the run that is under way."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from datagen.files import output_error

USER_ERROR = 2
# Some survey tiles failed, the others are done.
JOBS_FAILED = 3
# Numbers of a process among those that torchrun or a cluster starts together.
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


class RunFolder(Callback):
    """Makes the folder of a run before Hydra does, whose own attempt fails with a traceback.

    A folder that is named after the time is new: two runs that start in the same second would write
    to the same files. One with a fixed name is shared, as its user wants it.
    """

    def on_run_start(self, config: DictConfig, **kwargs: object) -> None:
        """Make the folder, or end with status 2 and one line."""
        _make_own(config, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Make the folder of a sweep; end with status 2 and one line where nothing can run it."""
        is_slurm = str(config.hydra.launcher.get("_target_")).endswith("SlurmLauncher")
        if is_slurm and shutil.which("srun") is None:
            _refuse(
                "expected launcher=slurm on a machine with SLURM, but there is no srun here; leave "
                "it out, or try it with hydra/launcher=submitit_local"
            )
        _make_own(config, "hydra.sweep.dir")


def run_folder(cfg: DictConfig) -> Path:
    """Return the folder of this run: Hydra's, or without Hydra the one named `manual`."""
    if HydraConfig.initialized():
        return Path(HydraConfig.get().runtime.output_dir)
    return Path(str(cfg.paths.log_dir)) / str(cfg.task_name) / "runs" / "manual"


def sweeps_here() -> bool:
    """Tell whether this process runs the jobs of a sweep (on a cluster they are on their own)."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return False
    return "submitit" not in str(HydraConfig.get().launcher.get("_target_"))


def _make_own(config: DictConfig, key: str) -> None:
    """Make the folder that `key` names; while there is one, its time gets a number: _1, _2, ..."""
    fixed = Path(OmegaConf.select(config, key))
    # What `${now:}` stands for in this configuration, and in those of the jobs of a sweep.
    times = OmegaConf.get_cache(config)["now"]
    first = dict(times)
    is_follower = any(os.environ.get(name, "0") != "0" for name in RANKS)
    folder = fixed
    for number in itertools.count(1):
        if is_follower or _make(folder, is_shared=False):
            break
        times.update({form: f"{time}_{number}" for form, time in first.items()})
        folder = Path(OmegaConf.select(config, key))
        if folder == fixed:
            break
    _make(folder, is_shared=True)


def _make(folder: Path, is_shared: bool) -> bool:
    """Make a folder and its parents; tell whether it can be used: a new one, or any if shared."""
    try:
        folder.mkdir(parents=True, exist_ok=is_shared)
    except FileExistsError as error:
        if is_shared:
            _refuse(str(output_error(folder, error)))
        return False
    except OSError as error:
        _refuse(str(output_error(folder, error)))
    return True


def _refuse(message: str) -> NoReturn:
    """End with one line: Hydra turns callbacks' exceptions into warnings, but lets an exit pass."""
    sys.stderr.write(f"skyfold: {message}\n")
    sys.exit(USER_ERROR)
