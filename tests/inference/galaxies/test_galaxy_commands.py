"""The command as users type it: settings, ranks, errors in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from datagen.errors import SkyfoldError
from datagen.files import read_json
from inference.engine import predict
from tests.galaxy_stamps import write_suite

OURS = ["predict=galaxies", "predict.accelerator=cpu", "logger=none", "predict.batch_size=16"]


def test_the_command_finds_its_defaults(
    encoder: Path,
    stamps_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    composed: Callable[..., DictConfig],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, there in (("data/stamps", stamps_dir), ("outputs/simclr", encoder.parent)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(there)
    assert predict(composed("predict", *OURS, "predict.suites=[c]")) == 0
    found = read_json(tmp_path / "outputs/galaxies/evaluation.json")["suites"]
    assert found["c"]["n_stamps"] == 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "checkpoint outputs/simclr/best.ckpt does not exist"),
        (["predict.suites=a"], "predict.suites: "),
        (["predict.scale_tolerance=-1"], "expected predict.scale_tolerance to be null or a number"),
    ],
)
def test_wrong_keys_of_galaxies_are_explained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    composed: Callable[..., DictConfig],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SkyfoldError) as caught:
        predict(composed("predict", *OURS, *arguments))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_two_ranks_give_the_bytes_of_one_on_stamps(
    root: Path,
    trained_galaxies: tuple[DictConfig, dict[str, float]],
    tmp_path: Path,
    composed: Callable[..., DictConfig],
) -> None:
    """Two ranks share four parts, of which one is damaged; one rank does them alone."""
    best = f"{trained_galaxies[0].paths.output_dir}/simclr/best.ckpt"
    for first, name in enumerate("ad"):
        write_suite(tmp_path / "stamps" / name, 8, first=100 * first)
    (tmp_path / "stamps/d/stamps/stamps_000001.npy").write_bytes(b"")
    ours = [*OURS, f"predict.cached_data_path={tmp_path}/stamps"]
    ours += [f"predict.weight_save_path={best}"]
    # Launchers set these for their children; left over, they would make us one.
    clean = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "NODE_RANK")}
    words = [sys.executable, str(root / "inference/predict.py"), *ours, "predict.devices=2"]
    two = subprocess.run(
        [*words, "predict.output_dir=two"], cwd=tmp_path, env={**clean, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert two.returncode == 3, two.stderr
    one = f"predict.output_dir={tmp_path}/one"
    assert predict(composed("predict", *ours, one)) == 3
    names = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    names = [name for name in names if name.suffix in (".fits", ".ecsv", ".png")]
    assert {str(name) for name in names} >= {"predictions.fits", "failed.ecsv", "pca.png"}
    for name in [*names, Path("evaluation.json")]:
        both = [(tmp_path / folder / name).read_bytes() for folder in ("one", "two")]
        assert both[0] == both[1], name
    entries = read_json(tmp_path / "two/manifest.json")["parts"]
    assert [entry["rank"] for entry in entries] == [0, 1, 0, 1]
