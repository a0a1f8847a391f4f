"""The suite of the documentation composes from a folder of its user, and runs on such files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from conf.build import build_settings
from datagen import pipeline
from datagen.stamps import format as files
from tests.datagen.stamps.raw import planes_of, write_image


def test_the_example_of_the_documentation_runs_as_it_stands(
    composed: Callable[..., DictConfig], root: Path, tmp_path: Path
) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (root / "docs/stamps.md").read_text(), re.DOTALL)
    (tmp_path / "configs" / "suite").mkdir(parents=True)
    (tmp_path / "configs" / "suite" / "mine.yaml").write_text(text)
    for number in (1, 2, 30):
        planes = {band.upper(): plane for band, plane in planes_of(number, 64).items()}
        write_image(tmp_path / f"mine/images/gal_{number:04d}.fits", planes, MAGZERO=27.0)
    table = "ID,Z_SPEC,MASS\n1,0.1,1e10\n2,0.9,1e11\n30,0.2,1e12\n"
    (tmp_path / "mine" / "catalogue.csv").write_text(table)
    cfg = composed(
        "datagen",
        "data_gen=stamps",
        "suite=[mine]",
        f"hydra.searchpath=[file://{tmp_path / 'configs'}]",
        f"paths.data_dir={tmp_path}",
    )
    assert pipeline.run(build_settings(cfg.data_gen, "data_gen")) == {"made": 2, "skipped": 0}
    found = files.read_labels(tmp_path / "stamps" / "mine")
    # The second one has a redshift out of range.
    assert found["OBJECT"].tolist() == [1, 30]
    assert found["log_mass"].tolist() == pytest.approx([10, 12])
    assert found["FWHM_I"].tolist() == [0.6, 0.6]
    # r90 of an exponential disc of half-light radius 3 px; a stamp shows four times as much.
    assert found["R90"].tolist() == pytest.approx([2.279 * 3 * 0.168] * 2, rel=0.05)
    assert found["SCALE"].tolist() == pytest.approx([27 * 0.168 / 96] * 2, rel=0.05)
