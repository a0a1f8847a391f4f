"""Every YAML file composes, and every object that it describes is built."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from conf import schema
from conf.build import build, build_settings
from datagen.errors import ConfigError
from encoders.training import build_callbacks, build_loggers, build_trainer

CONF = Path(__file__).resolve().parents[2] / "conf"
PRIMARIES = sorted(path.stem for path in CONF.glob("*.yaml"))
GROUP_FILES = sorted(path for path in CONF.glob("*/*.yaml"))


def composed(primary: str, *overrides: str) -> DictConfig:
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(primary, overrides=list(overrides), return_hydra_config=True)


CARD = {
    "task": "membership",
    "bands": ["g", "r", "i", "z"],
    "pixel_scale": 0.263,
    "zero_point": 30.0,
    "cell_px": 128,
    "data_hash": "",
    "prevalence": 0.1,
}
LENS_CARD = {
    "task": "lenses",
    "classes": ["no_sub", "cdm", "vortex"],
    "bands": ["i"],
    "pixel_scale": 0.1,
    "side": 65,
    "stretch": {
        "kind": "asinh",
        "softening": [1.0],
        "scales": [],
        "mean": [0.0],
        "std": [1.0],
        "steps": [],
        "threshold": 0.1,
    },
}
HALO_CARD = {
    "task": "halos",
    "classes": ["0", "1"],
    "cross_sections": [0.0, 1.0],
    "target": {"low": -2.0, "high": 0.0, "zero": 0.01},
    "channels": ["mass"],
    "side": 100,
    "pixel_scale": 20.0,
    "inputs": {"kind": ["log10"], "scale": [1.0], "mean": [0.0], "std": [1.0]},
}
# 65 px: the equivariant backbone wants an odd side.
STAMP_CARD = {
    "task": "galaxies",
    "bands": ["g", "r", "i"],
    "side": 96,
    "train_px": 65,
    "softening": 0.004,
    "labels": {"redshift": {"mean": 0.2, "std": 0.1, "unit": ""}},
}
CARDS = {"fields": CARD, "lenses": LENS_CARD, "halos": HALO_CARD, "galaxies": STAMP_CARD}
# Groups that other groups include, with where they stand, after the choice of such a group.
INNER = {
    "prior": ("datagen", "prior@data_gen.prior"),
    "image": ("datagen", "image@data_gen.image"),
    "lens": ("datagen", "data_gen=lenses lens"),
    "halo": ("datagen", "data_gen=halos halo"),
    "galaxy": ("datagen", "data_gen=galaxies galaxy"),
    "suite": ("datagen", "data_gen=stamps suite"),
    "survey": ("predict", "survey"),
    "schedule": ("train", "model=compact_reduced schedule@model.scheduler"),
    "backbone": ("train", "model=simclr backbone@model.network"),
    "recipe": ("train", "model=compact_reduced recipe"),
    "sets": ("train", "experiment=halos_matrix sets"),
}


@functools.cache
def groups_of(primary: str) -> list[str]:
    """Return the groups that a primary config uses."""
    defaults = OmegaConf.load(CONF / f"{primary}.yaml")["defaults"]
    names = [str(next(iter(item))) for item in defaults if not isinstance(item, str)]
    return [name.removeprefix("override ").strip("/") for name in names]


def places_of(path: Path) -> list[tuple[str, str]]:
    """Return the primary configs that use the group of a file, and the override key."""
    group = path.parent.name
    if group in INNER:
        return [INNER[group]]
    primaries = ("datagen", "train", "predict", "evaluate")
    found = [(primary, group) for primary in primaries if group in groups_of(primary)]
    assert found, f"no primary config uses the group {group}"
    return found


def composed_with(path: Path) -> DictConfig:
    """Compose a file with the first primary config that uses its group.

    An experiment is written for one of the entry points; the others refuse its root keys.
    """
    *others, last = places_of(path) if path.parent.name == "experiment" else places_of(path)[:1]
    for primary, group in others:
        with contextlib.suppress(ConfigCompositionException):
            return composed(primary, f"{group}={path.stem}", "hydra.runtime.output_dir=run")
    choices = f"{last[1]}={path.stem}".split()
    return composed(last[0], *choices, "hydra.runtime.output_dir=run")


def targets(node: Any) -> list[DictConfig]:  # noqa: ANN401 - any part of a config
    """Return all nodes that carry a `_target_`, outermost first."""
    if not OmegaConf.is_config(node):
        return []
    found = [node] if OmegaConf.is_dict(node) and "_target_" in node else []
    children = node if OmegaConf.is_list(node) else node.values()
    return found + [inner for child in children for inner in targets(child)]


@pytest.mark.parametrize("primary", PRIMARIES)
def test_every_primary_config_composes(primary: str) -> None:
    cfg = composed(primary, "hydra.runtime.output_dir=run")
    assert cfg.task_name
    assert cfg.paths.data_dir == "data"


def assert_targets_exist(cfg: DictConfig) -> None:
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra")
    OmegaConf.resolve(cfg)
    for node in targets(cfg):
        assert callable(get_object(node["_target_"])), node["_target_"]


@pytest.mark.parametrize("path", GROUP_FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_group_file_composes_and_is_instantiated(path: Path, tmp_path: Path) -> None:
    cfg = composed_with(path)
    assert_targets_exist(copy.deepcopy(cfg))
    for name in ("data_gen", "predict", "survey", "evaluate"):
        if cfg.get(name) is not None:
            assert dataclasses.is_dataclass(build_settings(cfg[name], name))
    if "trainer" not in cfg:
        return
    # A machine without GPU refuses the accelerator, not the other settings.
    trainer = build_trainer(cfg.trainer, accelerator="cpu", devices=1, logger=False)
    assert trainer.num_devices == 1
    assert build(cfg.data).options.batch_size == cfg.data.batch_size
    if "checkpoint" in cfg.model:
        cfg.model.checkpoint = None  # that of another training
    model = build(cfg.model, card=CARDS[cfg.model["_target_"].split(".")[1]])
    assert sum(p.numel() for p in model.parameters()) > 0
    loggers = build_loggers(cfg, tmp_path)
    assert len(loggers) == len(cfg.logger or {})
    # Rates are monitored only where they can be logged.
    names = [name for name in cfg.callbacks or {} if loggers or name != "learning_rate"]
    assert len(build_callbacks(cfg, loggers)) == len(names)


def test_a_survey_is_chosen_where_survey_tiles_are_read() -> None:
    bands = ["survey.bands=[g,r,z]", "data_gen.reference_band=r"]
    cfg = composed("datagen", "data_gen=tiles", "survey=legacy_surveys", *bands)
    settings = build_settings(cfg.data_gen, "data_gen")
    assert settings.survey_settings.name == "legacy_surveys"
    assert settings.content()["survey"]["bands"] == ["g", "r", "z"]
    with pytest.raises(ConfigCompositionException, match="Could not override 'survey'"):
        composed("datagen", "data_gen=fields", "survey=generic")
    assert composed("predict", "survey=generic").survey.name == "generic"
    assert composed("predict", "predict=lenses").survey is None
    with pytest.raises(ConfigCompositionException, match="Could not override 'survey'"):
        composed("predict", "predict=lenses", "survey=generic")


@pytest.mark.parametrize(
    "name", ["fields", "survey", "tiles", "lenses", "halos", "galaxies", "stamps"]
)
def test_simulator_settings_build(name: str) -> None:
    cfg = composed("datagen", f"data_gen={name}", "data_gen.nfiles=3")
    settings = build_settings(cfg.data_gen, "data_gen")
    assert dataclasses.is_dataclass(settings)
    assert settings.nfiles == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.nfiles = 4


def test_build_names_an_unknown_argument() -> None:
    node = OmegaConf.create({"_target_": "datagen.pipeline.Phase", "name": "a", "colour": 1})
    with pytest.raises(ConfigError, match=r"cannot build datagen\.pipeline\.Phase.*colour"):
        build(node)


def test_every_value_of_a_group_is_explained() -> None:
    """Each group file says in comments what its keys mean."""
    for path in GROUP_FILES:
        assert "#" in path.read_text(), path
