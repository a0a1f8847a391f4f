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

from conf.running import JOBS_FAILED
from datagen.errors import CheckpointError, ConfigError, DataNotFoundError
from datagen.files import read_json, save_torch
from encoders.checkpoint import load_checkpoint
from encoders.halos.collection import halo_numbers
from encoders.halos.likelihood import interval
from encoders.halos.reference import VIEWS
from inference.engine import predict_halos
from inference.halos.settings import HaloSettings
from inference.halos.table import read_result
from tests.encoders.halos.conftest import write_set

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
    places = interval(judge.likelihood.log_posterior(z[is_c, 0].astype(float)), judge.shift)
    names = ("CROSS_SECTION_LOW", "CROSS_SECTION", "CROSS_SECTION_HIGH")
    found = np.stack([table[name] for name in names], axis=1)
    np.testing.assert_allclose(found[is_c], 10.0 ** (2.0 * places - 2.0), rtol=1e-12)
    assert (np.diff(found, axis=1) >= 0).all()
    index = np.arange(120)
    assert table["INDEX"][is_c].tolist() == index.tolist()
    assert table["CLUSTER"][is_c].tolist() == (index // 6).tolist()
    halos = halo_numbers(np.array([f"1/{number}" for number in index // 6]))
    assert table["HALO"][is_c].tolist() == halos.tolist()
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


def test_lost_and_damaged_parts_are_made_again(
    world: Path, tmp_path: Path, predict: Predict
) -> None:
    predict()
    out = tmp_path / "out"
    before = contents(out)
    predict(num_workers=2, output_dir=str(tmp_path / "workers"))
    assert contents(tmp_path / "workers") == before
    times = {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    (out / "parts/c-halos_000001.fits").unlink()
    damaged = out / "parts/noise-halos_000000.fits"
    damaged.write_bytes(damaged.read_bytes()[:5760])
    (out / "parts/.partial-xyz-c-halos_000001.fits").write_text("killed while writing")
    assert predict() == 0
    assert contents(out) == before
    kept = sorted(path.name for path, time in times.items() if path.stat().st_mtime_ns == time)
    assert kept == ["c-halos_000000.fits", "noise-halos_000001.fits"]
    with pytest.raises(ConfigError, match=r"predict\.batch_size = 32, now 31.*overwrite=true"):
        predict(batch_size=31)
    with pytest.raises(ConfigError, match=r"checkpoint = .*, now "):
        predict(ensemble=[str(world / "two/best.ckpt")])


def test_bad_maps_and_files_are_failures(tmp_path: Path, settings: HaloSettings) -> None:
    folder = tmp_path / "data/d"
    write_set(folder, n_clusters=6, n_files=3, SEED=2)
    first, second, third = sorted((folder / "maps").iterdir())
    maps = np.load(first)
    maps[3, 0, 2:4, 5] = np.nan
    maps[4, 0, 0, 0] = -1.0
    maps[5, 1, 0, 0] = -1.0  # stars, which the encoder does not see
    np.save(first, maps)
    second.write_bytes(second.read_bytes()[:500])
    (folder / "truth" / f"{third.stem}.fits").unlink()
    one = dataclasses.replace(settings, cached_data_path=str(folder), sets=None)
    assert predict_halos(one) == JOBS_FAILED
    failed = Table.read(tmp_path / "out/failed.ecsv")
    assert failed["id"].tolist() == [
        "d/maps/halos_000000.npy[3]",
        "d/maps/halos_000000.npy[4]",
        "d/maps/halos_000001.npy",
        "d/maps/halos_000002.npy",
    ]
    assert failed["reason"][0] == "2 of 256 values are NaN or infinite"
    assert failed["reason"][1] == "negative pixels, which data.transform = log10 refuses"
    assert "halos_000001.npy" in failed["reason"][2]
    assert "halos_000002.fits does not exist" in failed["reason"][3]
    assert len(read_result(tmp_path / "out/predictions.fits").predictions) == 10


def test_an_ensemble_is_the_mean_of_its_members(
    world: Path, tmp_path: Path, predict: Predict
) -> None:
    names = ["one", "two"]
    for name in names:
        path = str(world / name / "best.ckpt")
        predict(sets=["c"], weight_save_path=path, output_dir=str(tmp_path / name))
    both = str(tmp_path / "both")
    predict(sets=["c"], ensemble=[str(world / "two/best.ckpt")], output_dir=both, summarise=True)
    one, two, found = (
        read_result(tmp_path / name / "predictions.fits").predictions for name in (*names, "both")
    )
    assert not np.allclose(one["P_0"], two["P_0"], atol=1e-3)
    for column in ("P_0", "P_1", "OOD"):
        np.testing.assert_allclose(found[column], (one[column] + two[column]) / 2, rtol=1e-5)
    np.testing.assert_array_equal(found["Z_1"], one["Z_1"])
    np.testing.assert_array_equal(found["Z_0_OF_2"], two["Z_0"])
    # The mean of logarithms of normal likelihoods lies between them, and is not narrower.
    width, widths = (
        np.log10(t["CROSS_SECTION_HIGH"] / t["CROSS_SECTION_LOW"]).mean() for t in (found, one)
    )
    assert width > 0.5 * widths
    middles = np.stack([np.log10(t["CROSS_SECTION"]) for t in (one, two)])
    together = np.log10(found["CROSS_SECTION"])
    assert ((together >= middles.min(axis=0) - 0.2) & (together <= middles.max(axis=0) + 0.2)).all()


def test_an_encoder_without_classes_tells_cross_sections(
    world: Path, tmp_path: Path, predict: Predict
) -> None:
    path = str(world / "regressor/best.ckpt")
    assert predict(sets=["c"], weight_save_path=path, summarise=True, evaluate=True) == 0
    table = read_result(tmp_path / "out/predictions.fits").predictions
    assert [name for name in table.columns if name.startswith(("P_", "Z_"))] == ["Z_0"]
    assert set(table["CLASS"]) == {""}
    found = read_json(tmp_path / "out/evaluation.json")["sets"]["c"]
    assert found["rmse_dex"] < 0.4
    assert found["accuracy"] is None
    assert np.isnan(Table.read(tmp_path / "out/sets.ecsv")["OVERLAP_a"]).all()


def test_halos_that_trained_are_told_from_new_ones(
    world: Path, tmp_path: Path, predict: Predict
) -> None:
    card = load_checkpoint(world / "one/best.ckpt", "halos").card
    assert predict(sets=["a"], split="test") == 0
    table = read_result(tmp_path / "out/predictions.fits").predictions
    assert set(table["SPLIT"]) == {"test"}
    assert sorted({f"0/{number}" for number in table["CLUSTER"]}) == sorted(card["ids"]["test"])
    assert predict(output_dir=str(tmp_path / "other"), sets=["c"], split="test") == 0
    assert len(read_result(tmp_path / "other/predictions.fits").predictions) == 0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("channels", ["xray"], r"with channels = xray, but set c .* has channels = mass,stars; "),
        ("pixel_scale", 10.0, r"with pixel_scale \[kpc/px\] = 10\.0, but .* = 20\.0"),
        ("units", ["Msun pc-2"], r"with unit of mass = Msun pc-2, but .* = Msun kpc-2"),
    ],
)
def test_an_encoder_of_other_maps_is_refused(
    world: Path, tmp_path: Path, predict: Predict, key: str, value: object, message: str
) -> None:
    content = torch.load(world / "one/best.ckpt", weights_only=True)
    content["hyper_parameters"]["card"][key] = value
    save_torch(tmp_path / "other.ckpt", content)
    with pytest.raises(CheckpointError, match=message):
        predict(weight_save_path=str(tmp_path / "other.ckpt"), sets=["c"])
    if key != "channels":  # its weights would be asked for first
        with pytest.raises(CheckpointError, match=rf"expected {key} = .* in all .*other\.ckpt has"):
            predict(ensemble=[str(tmp_path / "other.ckpt")])


def test_maps_of_another_side_are_refused(tmp_path: Path, predict: Predict) -> None:
    write_set(tmp_path / "data/d", n_clusters=1, n_files=1, side=20)
    message = r"with side \[px\] = 16, but set d in .* has side \[px\] = 20; choose the encoder"
    with pytest.raises(CheckpointError, match=message):
        predict(cached_data_path=str(tmp_path / "data"), sets=["d"])


def test_sets_that_are_missing_are_named(world: Path, tmp_path: Path, predict: Predict) -> None:
    with pytest.raises(DataNotFoundError, match=r"some of a, c, noise, .* but got b; .*halo=b"):
        predict(sets=["c", "b"])
    with pytest.raises(DataNotFoundError, match=r"to hold sets of maps, but .* holds none; .*halo"):
        predict(cached_data_path=str(tmp_path))


def test_a_checkpoint_without_validation_is_refused(
    world: Path, tmp_path: Path, predict: Predict
) -> None:
    content = torch.load(world / "one/best.ckpt", weights_only=True)
    state = content["state_dict"]
    for name in ("numbers", "values"):
        state[f"reference.{name}"] = state[f"reference.{name}"][:0]
    save_torch(tmp_path / "early.ckpt", content)
    with pytest.raises(CheckpointError, match=r"written before a validation.*compact_reduced"):
        predict(weight_save_path=str(tmp_path / "early.ckpt"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "predict.batch_size to be a number >= 1, but got .* = 0"),
        ({"split": "best"}, r"predict.split to be null \| train \| val \| test, but got .* = best"),
        ({"sets": []}, r"predict.sets to be null or names of sets, but got predict.sets = \[\]"),
        ({"ensemble": ["a", "a"]}, "predict.ensemble to be checkpoints that are not named twice"),
        ({"n_permutations": 0}, "predict.n_permutations to be a number >= 1"),
        ({"n_compared": 3}, "predict.n_compared to be a number >= 4"),
    ],
)
def test_halo_settings_are_checked(
    settings: HaloSettings, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(settings, **change)
