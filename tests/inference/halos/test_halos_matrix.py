from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from conf import schema
from datagen.errors import DataFormatError, DataNotFoundError
from datagen.files import write_json, write_text
from inference.halos.matrix import compare, evaluate_matrix, read_runs


def group(name: str, labels: str, sigma: float | None, median: float) -> dict[str, Any]:
    found = {"low": 0.5 * median, "median": median, "high": 2 * median, "rmse_dex": 0.2}
    found |= {"covered": 0.7, "bias_dex": math.log10(median / sigma) if sigma else None}
    found |= {"accuracy": None, "overlap": 0.3, "novel": 0.5, "auroc": 0.8}
    return {"set": name, "labels": labels, "cross_section": sigma, "n_maps": 10, **found}


def write_run(folder: Path, case: str, seed: int, median: float, **content: object) -> Path:
    """Make up a run that found `median` in set a and in noise."""
    run = folder / f"compact_reduced_{case}_{seed}"
    write_text(run / ".hydra" / "config.yaml", f"task_name: compact_reduced\nseed: {seed}\n")
    choices = f"hydra:\n  runtime:\n    choices:\n      sets: {case}\n"
    write_text(run / ".hydra" / "hydra.yaml", choices)
    groups = [group("noise", "held_out", None, median), group("a", "known", 0.1, median)]
    found = {"model": "compact_reduced", "sets": {"a": "known"}, "groups": groups}
    write_json(run / "results" / "test.json", found | content)
    return run


def test_means_over_runs(tmp_path: Path) -> None:
    for seed, median in enumerate((0.1, 0.4)):
        write_run(tmp_path, "known", seed, median)
    write_run(tmp_path, "held_out", 0, 0.3)
    table = compare(read_runs(tmp_path))
    keys = [tuple(row) for row in table["case", "set", "labels", "n_runs", "n_maps"]]
    assert keys == [
        ("held_out", "a", "known", 1, 10),
        ("held_out", "noise", "held_out", 1, 10),
        ("known", "a", "known", 2, 20),
        ("known", "noise", "held_out", 2, 20),
    ]
    known = table[2]
    # The mean of logarithms is the geometric mean.
    assert tuple(known["low", "median", "high"]) == pytest.approx((0.1, 0.2, 0.4))
    assert known["scatter_dex"] == pytest.approx(np.std(np.log10([0.1, 0.4]), ddof=1))
    assert known["bias_dex"] == pytest.approx(0.5 * math.log10(4))
    assert np.isnan([table["scatter_dex"][0], table["accuracy"][2]]).all()
    assert np.isnan([table["cross_section"][3], table["bias_dex"][3]]).all()
    assert str(table["median"].unit) == "cm2 / g"


def test_the_command_writes_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "runs", "known", 0, 0.1)
    values = {"_target_": "inference.halos.matrix.MatrixSettings"}
    values |= {"runs_dir": str(tmp_path / "runs"), "output_dir": str(tmp_path / "out")}
    assert evaluate_matrix(OmegaConf.create({"evaluate": values})) == 0
    table = Table.read(tmp_path / "out/halos_matrix.ecsv", format="ascii.ecsv")
    assert table["median"].tolist() == pytest.approx([0.1, 0.1])
    assert "bias_dex" in capsys.readouterr().out


def test_runs_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"experiment=halos_matrix"):
        read_runs(tmp_path)
    write_run(tmp_path, "known", 0, 0.1)
    write_run(tmp_path / "again", "known", 0, 0.1)
    with pytest.raises(DataFormatError, match=r"case = known, model = compact_reduced, seed = 0"):
        read_runs(tmp_path)
    run = write_run(tmp_path / "again", "known", 0, 0.1, groups=[{"set": "a"}])
    with pytest.raises(DataFormatError, match=rf"{run} is damaged or no training of exp.*: 'cross"):
        read_runs(tmp_path)
    (run / "results/test.json").unlink()
    write_run(tmp_path, "known", 1, 0.1, sets={"a": "none"})
    with pytest.raises(DataFormatError, match=r"to have the same data\.sets"):
        read_runs(tmp_path)


def test_the_experiment_names_its_runs_by_what_they_are_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.register()
    with initialize_config_dir(str(root / "conf"), version_base="1.3"):
        overrides = ["experiment=halos_matrix", "sets=interpolated", "seed=2"]
        cfg = compose("train", overrides=overrides, return_hydra_config=True)
    # As Hydra does where it runs; forgotten afterwards, since there is one for all tests.
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    HydraConfig.instance().set_config(cfg)
    assert cfg.hydra.sweep.subdir == "compact_reduced_interpolated_2"
    assert cfg.data.sets.a_03 == {"labels": "held_out", "folder": "a", "cross_sections": [0.3]}
    assert cfg.data.seed == 2
    with initialize_config_dir(str(root / "conf"), version_base="1.3"):
        for name in str(cfg.hydra.sweeper.params.sets).split(","):
            sets = compose("train", overrides=["experiment=halos_matrix", f"sets={name}"]).data.sets
            assert sets.noise == "held_out"
