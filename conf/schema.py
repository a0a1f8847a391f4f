"""The root keys of each entry point; a key that is not listed here is refused.

Groups that carry a `_target_` stay open (`Any`): the signature of the target is their schema.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from datagen.errors import ConfigError


@dataclass
class PathsConfig:
    """Folders that every entry point shares."""

    data_dir: str = MISSING
    log_dir: str = MISSING
    output_dir: str = MISSING


@dataclass
class DatagenConfig:
    """Root of `datagen.yaml`."""

    task_name: str = MISSING
    paths: PathsConfig = MISSING
    survey: Any = None
    lens: Any = None
    halo: Any = None
    galaxy: Any = None
    suites: Any = None
    data_gen: Any = MISSING


@dataclass
class TrainConfig:
    """Root of `train.yaml`."""

    task_name: str = MISSING
    paths: PathsConfig = MISSING
    lens: Any = None
    data: Any = MISSING
    model: Any = MISSING
    callbacks: Any = None
    logger: Any = None
    trainer: Any = MISSING
    seed: int = MISSING
    test: bool = MISSING
    ckpt_path: str | None = None
    init_from: str | None = None


@dataclass
class PredictConfig:
    """Root of `predict.yaml`."""

    task_name: str = MISSING
    paths: PathsConfig = MISSING
    survey: Any = None
    predict: Any = MISSING
    logger: Any = None


@dataclass
class EvaluateConfig:
    """Root of `evaluate.yaml`."""

    task_name: str = MISSING
    paths: PathsConfig = MISSING
    evaluate: Any = MISSING


def register() -> None:
    """Make the root schemas known to Hydra under the names that the primary configs use."""
    store = ConfigStore.instance()
    store.store(name="datagen_schema", node=DatagenConfig)
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="predict_schema", node=PredictConfig)
    store.store(name="evaluate_schema", node=EvaluateConfig)


def check_root(cfg: DictConfig) -> None:
    """Refuse root keys that `+key=value` added; Hydra itself refuses all others.

    Raises:
        ConfigError: A root key is unknown.
    """
    root: Any = OmegaConf.get_type(cfg)
    known = [field.name for field in fields(root)]
    for key in cfg:
        if key not in known:
            raise ConfigError(
                f"unknown key {key!r}; the keys here are {', '.join(known)}", key, known
            )
