"""What Hydra says of the run that is under way."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig


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
