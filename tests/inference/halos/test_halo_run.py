"""Predictions on maps of halos: the table, resuming, failures, what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.table import Table

from datagen.files import read_json
from encoders.checkpoint import load_checkpoint
from encoders.halos.likelihood import interval
from encoders.halos.reference import VIEWS
from inference.engine import predict_halos
from inference.halos.settings import HaloSettings
from inference.halos.table import read_result

Predict = Callable[..., int]


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that must not depend on how the run went."""
    names = [*folder.glob("parts/*"), *folder.glob("*.fits"), *folder.glob("*.ecsv")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in [*names, folder / "run.json"]}


@pytest.fixture
def predict(settings: HaloSettings) -> Predict:
    def call(**changes: object) -> int:
        return predict_halos(dataclasses.replace(settings, **changes))

    return call


def test_the_table_holds_what_the_encoder_says(
    world: Path, tmp_path: Path, predict: Predict
) -> None:
    assert predict() == 0
    path = tmp_path / "out/predictions.fits"
    table = read_result(path).predictions
    assert len(table) == 240
    assert table["ID"][[0, 61]].tolist() == [
        "c/maps/halos_000000.npy[0]",
        "c/maps/halos_000001.npy[1]",
    ]
    module = load_checkpoint(world / "one/best.ckpt", "halos")
    maps = np.concatenate([np.load(p) for p in sorted((world / "data/c/maps").iterdir())])
    seen = module.inputs(torch.from_numpy(maps[:, :1]))
    outputs = module.network(seen)
    judge = module.judge()
    is_c = np.asarray(table["SET"]) == "c"
    z = np.stack([table[f"Z_{k}"] for k in range(3)], axis=1)
    np.testing.assert_allclose(z[is_c], outputs.z.numpy(), atol=1e-5)
    p = np.stack([table[f"P_{name}"] for name in ("0", "0.1", "1")], axis=1)
    np.testing.assert_allclose(p[is_c], module.probabilities(outputs).numpy(), atol=1e-5)
    assert table["CLASS"].tolist() == np.array(["0", "0.1", "1"])[p.argmax(axis=1)].tolist()
    views = dict(zip(VIEWS, (outputs.z.double(), *module.views(outputs, seen)), strict=True))
    score = judge.score({name: view.double() for name, view in views.items()})
    np.testing.assert_allclose(table["OOD"][is_c], score.numpy(), atol=1e-3)
    # Quantiles are in cm2/g, with 0 at 0.01: the axis is -2 to 0 in its logarithm.
    places = interval(judge.likelihood.log(z[is_c, 0].astype(float)), judge.shift)
    names = ("CROSS_SECTION_LOW", "CROSS_SECTION", "CROSS_SECTION_HIGH")
    found = np.stack([table[name] for name in names], axis=1)
    np.testing.assert_allclose(found[is_c], 10.0 ** (2.0 * places - 2.0), rtol=1e-12)
    assert (np.diff(found, axis=1) >= 0).all()
    index = np.arange(120)
    assert table["INDEX"][is_c].tolist() == index.tolist()
    assert table["CLUSTER"][is_c].tolist() == (index // 6).tolist()
    assert table["TRUE_CROSS_SECTION"][is_c].tolist() == [0.0, 0.0, 0.1, 0.1, 1.0, 1.0] * 20
    assert np.isnan(table["TRUE_CROSS_SECTION"][~is_c]).all()
    header = fits.getheader(path, 1)
    units = {header[f"TTYPE{k}"]: header.get(f"TUNIT{k}") for k in range(1, header["TFIELDS"] + 1)}
    assert {units[name] for name in (*names, "TRUE_CROSS_SECTION")} == {"cm2 g-1"}
    assert units["OOD"] is None
    assert fits.getheader(path)["THRESH"] == pytest.approx(judge.threshold)


def test_noise_is_flagged_and_halos_are_not(tmp_path: Path, predict: Predict) -> None:
    predict()
    table = read_result(tmp_path / "out/predictions.fits").predictions
    is_noise = np.asarray(table["SET"]) == "noise"
    assert np.mean(table["ABSTAIN"][is_noise]) > 0.95
    assert np.mean(table["ABSTAIN"][~is_noise]) < 0.15


def test_set_as_a_whole_and_evaluation(tmp_path: Path, predict: Predict) -> None:
    assert predict(sets=None, summarise=True, evaluate=True) == 0
    sets = Table.read(tmp_path / "out/sets.ecsv")
    assert sets["SET"].tolist() == ["a"] * 3 + ["c"] * 3 + ["noise"]
    assert str(sets["CROSS_SECTION"].unit) == "cm2 / g"
    for row in sets[:6]:
        truth = max(row["TRUE_CROSS_SECTION"], 0.01)
        assert abs(np.log10(row["CROSS_SECTION"] / truth)) < 0.25
        low, high = row["CROSS_SECTION_LOW"], row["CROSS_SECTION_HIGH"]
        assert low < row["CROSS_SECTION"] < high < 3.0 * low
        assert row["OVERLAP_a"] > 0.3
    assert np.isfinite(np.array(sets["MMD_P_a"])[:6]).all()
    assert sets["C2ST_P_a"][6] == pytest.approx(1 / 21)
    assert sets["ABSTAINED"][6] > 0.95
    found = read_json(tmp_path / "out/evaluation.json")
    assert found["of_training"]["n_maps"] == found["sets"]["a"]["n_maps"] < 240
    assert found["sets"]["c"]["accuracy"] > 0.8
    assert found["sets"]["c"]["rmse_dex"] < 0.4
    assert 0.5 < found["sets"]["c"]["coverage"] < 0.95
    assert found["sets"]["noise"]["coverage"] is None
    assert found["novelty"]["noise"]["auroc"] > 0.95
    assert found["novelty"]["a"]["auroc"] is None
    pictures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert pictures == ["coverage.png", "cross_sections.png", "novelty.png"]
