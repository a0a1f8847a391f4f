"""What Hydra says of the run that is under way."""

from __future__ import annotations

import sys
from pathlib import Path

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
        """Make the folder of a sweep."""
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
        # Hydra turns exceptions of callbacks into warnings, but lets an exit pass.
        sys.stderr.write(f"skyfold: {output_error(folder, error)}\n")
        sys.exit(USER_ERROR)
