"""Runs predictions on any number of devices; the only place in inference that knows `Trainer`."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from conf.build import build_settings
from conf.running import JOBS_FAILED, run_folder
from datagen.errors import ConfigError
from datagen.tiles.survey import SurveySettings
from encoders.checkpoint import load_with_sha256
from encoders.devices import check_sweep, n_devices, quiet_lightning, trainer_words
from encoders.training import build_loggers
from inference.galaxies.settings import GalaxySettings
from inference.halos.settings import HaloSettings
from inference.lenses.settings import LensSettings
from inference.ranks import Job
from inference.settings import RunSettings
from inference.survey.run import SurveyRun
from inference.survey.settings import PredictSettings

log = logging.getLogger(__name__)

# Ranks meet only at the start and at the end, and one may finish days before another.
_PATIENCE = datetime.timedelta(days=30)


def predict(cfg: DictConfig) -> int:
    """Run `predict.yaml`.

    Args:
        cfg: The composed configuration.

    Returns:
        Exit status: 0, or 3 if survey tiles, images, maps or stamps failed.
    """
    settings: RunSettings = build_settings(cfg.predict, "predict")
    check_sweep("predict", settings.devices, settings.strategy)
    _quiet()
    if isinstance(settings, LensSettings):
        return predict_lenses(settings, build_loggers(cfg, run_folder(cfg)))
    if isinstance(settings, HaloSettings):
        return predict_halos(settings, build_loggers(cfg, run_folder(cfg)))
    if isinstance(settings, GalaxySettings):
        return predict_galaxies(settings, build_loggers(cfg, run_folder(cfg)))
    assert isinstance(settings, PredictSettings)
    survey: SurveySettings = build_settings(cfg.survey, "survey")
    return predict_survey(settings, survey, build_loggers(cfg, run_folder(cfg)))


def predict_survey(
    settings: PredictSettings, survey: SurveySettings, loggers: Sequence[Logger] = ()
) -> int:
    """Predict on survey tiles with the checkpoint of the settings; return the exit status."""
    module, sha256 = load_with_sha256(Path(settings.weight_save_path), "membership")
    return run(SurveyRun(settings, survey, module, sha256), loggers)


def predict_lenses(settings: LensSettings, loggers: Sequence[Logger] = ()) -> int:
    """Classify images of lenses with the checkpoint of the settings; return the exit status."""
    from encoders.lenses.module import LensModule
    from encoders.lenses.program import save_program
    from inference.lenses.run import LensRun

    module, sha256 = load_with_sha256(Path(settings.weight_save_path), "lenses")
    assert isinstance(module, LensModule)
    if settings.export_path is not None and _is_first():
        save_program(module, Path(settings.export_path))
        log.info("wrote the classifier as a program to %s", settings.export_path)
    return run(LensRun(settings, module, sha256), loggers)


def predict_halos(settings: HaloSettings, loggers: Sequence[Logger] = ()) -> int:
    """Predict on maps of halos with the checkpoints of the settings; return the exit status."""
    from inference.halos.run import HaloRun, load_ensemble

    return run(HaloRun(settings, *load_ensemble(settings)), loggers)


def predict_galaxies(settings: GalaxySettings, loggers: Sequence[Logger] = ()) -> int:
    """Predict on stamps with the checkpoint of the settings; return the exit status."""
    from inference.galaxies.run import GalaxyRun

    module, sha256 = load_with_sha256(Path(settings.weight_save_path), "galaxies", "galaxy_fields")
    return run(GalaxyRun(settings, module, sha256), loggers)


def run(job: Job, loggers: Sequence[Logger] = ()) -> int:
    """Run a prediction that is ready to start; return the exit status."""
    n_pending = len(job.pending())
    n_done = len(job.units) - n_pending
    log.info("%d %s to predict, %d finished before", n_pending, job.noun, n_done)
    if n_pending:
        trainer = build_trainer(job, loggers)
        with _naming_memory(job.settings):
            # Predictions that are kept in memory would grow with the survey.
            trainer.predict(job.module, datamodule=job.data(), return_predictions=False)
    # Launchers take a child's status for a crash: only the first rank reports what failed.
    if not _is_first():
        return 0
    return JOBS_FAILED if job.finish() else 0


def build_trainer(job: Job, loggers: Sequence[Logger] = ()) -> Trainer:
    """Return a trainer for the devices of the settings.

    Raises:
        ConfigError: A word is unknown, or the machine has no such devices.
    """
    with trainer_words("predict"):
        trainer = _trainer(job, job.settings, loggers)
    check_tasks(trainer.world_size)
    return trainer


def check_tasks(world_size: int) -> None:
    """Make sure that tasks which a launcher started are the ranks of one prediction.

    Raises:
        ConfigError: There are more or fewer of them than ranks; each would predict everything.
    """
    for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        n_tasks = int(os.environ.get(name, world_size))
        if n_tasks not in (1, world_size):
            raise ConfigError(
                f"expected predict.devices x predict.num_nodes to be the {n_tasks} tasks that "
                f"were started ({name}), but got {world_size}; give both on the command line",
                value=world_size,
                allowed=n_tasks,
            )


def _trainer(job: Job, settings: RunSettings, loggers: Sequence[Logger]) -> Trainer:
    return Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=_strategy(settings),
        precision=settings.precision,  # type: ignore[arg-type] # Lightning checks the word
        callbacks=[job.writer()],
        logger=list(loggers) or False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=settings.output_dir,
    )


@contextlib.contextmanager
def _naming_memory(settings: RunSettings) -> Iterator[None]:
    """Say which settings decide how much memory of a GPU is needed."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"the GPU has too little memory for {settings.batch} in {settings.precision}; choose "
            "less, or predict.precision=bf16-mixed",
            value=settings.batch_size,
        ) from error


def _quiet() -> None:
    """Let only the first rank report what all ranks find, and Lightning nothing of its set-up."""
    quiet_lightning()
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    if not _is_first():
        logging.getLogger("inference").setLevel(logging.ERROR)


def _is_first() -> bool:
    """Tell whether this process is the first rank."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _strategy(settings: RunSettings) -> Any:  # noqa: ANN401 - a word or an object
    """Return Lightning's strategy; several ranks get time to wait for each other."""
    several = n_devices(settings.devices) * settings.num_nodes > 1
    if settings.strategy in ("auto", "ddp") and several:
        return DDPStrategy(timeout=_PATIENCE)
    if settings.strategy == "ddp_spawn":
        return DDPStrategy(start_method="spawn", timeout=_PATIENCE)
    return settings.strategy
