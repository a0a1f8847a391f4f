"""Folders of runs: each its own, unless they are shared on purpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from conf import schema
from conf.running import RANKS, RunFolder

Compose = Callable[..., DictConfig]
FORM = "%Y-%m-%d_%H-%M-%S"


@pytest.fixture
def compose_at_noon(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compose:
    """Return a function that composes a training of this very second, as Hydra does it."""
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)

    def composed(*overrides: str) -> DictConfig:
        schema.register()
        GlobalHydra.instance().clear()
        paths = [f"paths.log_dir={tmp_path}", "model=plain_cnn", *overrides]
        with initialize_config_dir(str(root / "conf"), version_base="1.3"):
            cfg = compose("train", overrides=paths, return_hydra_config=True)
        OmegaConf.get_cache(cfg)["now"][(FORM,)] = "noon"
        return cfg

    return composed


def test_runs_of_one_second_have_folders_of_their_own(
    compose_at_noon: Compose, tmp_path: Path
) -> None:
    folders = []
    for _ in range(3):
        cfg = compose_at_noon()
        RunFolder().on_run_start(cfg)
        folders.append(Path(cfg.hydra.run.dir))
    expected = [tmp_path / "plain_cnn/runs" / name for name in ("noon", "noon_1", "noon_2")]
    assert folders == expected
    assert all(folder.is_dir() for folder in folders)


def test_sweeps_of_one_second_have_folders_of_their_own(
    compose_at_noon: Compose, tmp_path: Path
) -> None:
    for name in ("noon", "noon_1"):
        cfg = compose_at_noon()
        RunFolder().on_multirun_start(cfg)
        # Hydra gives the jobs of a sweep what the sweep knows of the time.
        job = compose_at_noon("model=resnet18")
        OmegaConf.copy_cache(from_config=cfg, to_config=job)
        assert Path(job.hydra.sweep.dir) == tmp_path / "resnet18/multiruns" / name
        assert (tmp_path / "plain_cnn/multiruns" / name).is_dir()


def test_folders_are_shared_on_purpose(
    compose_at_noon: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By processes of a distributed training, and where a fixed folder is asked for."""
    RunFolder().on_run_start(compose_at_noon())
    child = compose_at_noon(f"hydra.run.dir={tmp_path}/plain_cnn/runs/noon")
    for cfg, rank in ((child, "0"), (compose_at_noon(), "1")):
        monkeypatch.setenv("SLURM_PROCID", rank)
        RunFolder().on_run_start(cfg)
        assert Path(cfg.hydra.run.dir).name == "noon"
    monkeypatch.setenv("SLURM_PROCID", "0")
    for _ in range(2):
        cfg = compose_at_noon("experiment=lens_learning_curve")
        RunFolder().on_multirun_start(cfg)
        assert Path(cfg.hydra.sweep.dir) == tmp_path / "lens_learning_curve"
