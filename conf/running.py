"""What Hydra says of the run that is under way."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from datagen.files import output_error

USER_ERROR = 2
# Some survey tiles failed, the others are done.
JOBS_FAILED = 3


class RunFolder(Callback):
    """Makes the folder of a run before Hydra does, whose own attempt fails with a traceback."""

    def on_run_start(self, config: DictConfig, **kwargs: object) -> None:
        """Make the folder, or end with status 2 and one line."""
        _make(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Make the folder of a sweep; end with status 2 and one line where nothing can run it."""
        is_slurm = str(config.hydra.launcher.get("_target_")).endswith("SlurmLauncher")
        if is_slurm and shutil.which("srun") is None:
            _refuse(
                "expected launcher=slurm on a machine with SLURM, but there is no srun here; leave "
                "it out, or try it with hydra/launcher=submitit_local"
            )
        _make(Path(config.hydra.sweep.dir))


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


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _refuse(str(output_error(folder, error)))


def _refuse(message: str) -> NoReturn:
    """End with one line: Hydra turns callbacks' exceptions into warnings, but lets an exit pass."""
    sys.stderr.write(f"skyfold: {message}\n")
    sys.exit(USER_ERROR)
