"""Starts the entry points: composes the configuration, runs the task, reports errors in one line.

Tasks are imported when they run, so that `--help`, `--cfg job` and tab completion answer at once.
"""

from __future__ import annotations

import difflib
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from conf import schema
from conf.help import FLAGS, FOLDER, help_text
from conf.running import JOBS_FAILED, USER_ERROR
from datagen.errors import SkyfoldError

Task = Callable[[DictConfig], int]


def launch(config_name: str, task: Task) -> None:
    """Compose `config_name` from the command line and run `task` on it.

    Args:
        config_name: A primary config in `conf/`, without suffix.
        task: Does the work and returns the exit status.
    """
    if FLAGS & set(sys.argv[1:]):
        # Hydra's own help looks through all its groups, which takes longer than all the rest.
        sys.stdout.write(help_text(config_name, Path(sys.argv[0]).name))
        return
    schema.register()
    decorate = hydra.main(version_base="1.3", config_path=str(FOLDER), config_name=config_name)
    try:
        decorate(functools.partial(_guarded, task))()
    except SystemExit as end:
        # Hydra ends while it handles what it could not compose, and has printed it.
        if isinstance(end.__context__, ConfigCompositionException):
            sys.stderr.write(_alternatives(end.__context__.__cause__))
        raise


def _alternatives(error: BaseException | None) -> str:
    """Return a line with the keys that are most like one that does not exist, if that is why."""
    if not isinstance(error, ConfigAttributeError | ConfigKeyError):
        return ""
    if not isinstance(error.parent_node, DictConfig):
        return ""
    keys = [key for key in map(str, error.parent_node) if not key.startswith("_")]
    close = difflib.get_close_matches(str(error.key), keys)
    parent = str(error.full_key).rpartition(".")[0]
    names = [f"{parent}.{key}" if parent else key for key in close or sorted(keys)]
    return f"{'did you mean' if close else 'keys are'} {', '.join(names)}\n"


def datagen() -> None:
    """Compose `datagen.yaml` and simulate."""
    launch("datagen", _datagen)


def train() -> None:
    """Compose `train.yaml` and train."""
    launch("train", _train)


def predict() -> None:
    """Compose `predict.yaml` and predict survey tiles, or classify lenses."""
    launch("predict", _predict)


def evaluate() -> None:
    """Compose `evaluate.yaml` and score a catalogue, or compare trainings."""
    launch("evaluate", _evaluate)


def _datagen(cfg: DictConfig) -> int:
    from conf.build import build_settings
    from datagen import pipeline

    if cfg.survey is not None:
        # What data_gen holds as plain values is checked here, under the name that users know.
        build_settings(cfg.survey, "survey")
    counts = pipeline.run(build_settings(cfg.data_gen, "data_gen"))
    return JOBS_FAILED if counts.get("failed") else 0


def _train(cfg: DictConfig) -> int:
    # Huge pages make a training step on the CPU 13 % shorter; torch reads this when imported.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from encoders.training import train

    train(cfg)
    return 0


def _predict(cfg: DictConfig) -> int:
    from inference.engine import predict

    return predict(cfg)


def _evaluate(cfg: DictConfig) -> int:
    # Imported for the task: each brings its own libraries.
    if cfg.evaluate["_target_"].startswith("inference.lenses."):
        from inference.lenses.learning_curve import evaluate_curve

        return evaluate_curve(cfg)
    if cfg.evaluate["_target_"].startswith("inference.halos."):
        from inference.halos.matrix import evaluate_matrix

        return evaluate_matrix(cfg)
    from inference.survey.evaluation import evaluate

    return evaluate(cfg)


def _guarded(task: Task, cfg: DictConfig) -> None:
    """Run a task; a user's error becomes one line and exit status 2."""
    try:
        schema.check_root(cfg)
        status = task(cfg)
    except SkyfoldError as error:
        # In a sweep Hydra reports which job failed; HYDRA_FULL_ERROR is Hydra's own switch.
        if HydraConfig.get().mode == RunMode.MULTIRUN or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sys.stderr.write(f"skyfold: {error}\n")
        sys.exit(USER_ERROR)
    if status and HydraConfig.get().mode == RunMode.MULTIRUN:
        # An exit would end the whole sweep; launchers take it for a crash.
        raise SkyfoldError(f"the job ended with status {status}; its log says why", value=status)
    if status:
        sys.exit(status)
