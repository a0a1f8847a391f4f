from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.table import Table
from lightning import LightningModule

from conf.running import JOBS_FAILED
from datagen.errors import CheckpointError, ConfigError, DataNotFoundError
from datagen.files import read_json, write_json
from datagen.lenses.format import read_settings
from encoders.data import assign_split
from encoders.lenses.data import LensesDataModule
from encoders.lenses.identity import identity_of
from inference.engine import run
from inference.lenses.run import LensRun
from inference.lenses.settings import LensSettings
from inference.lenses.table import read_result
from inference.lenses.training import training_of

Predict = Callable[..., int]
SHA = "a" * 64


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that must not depend on how the run went."""
    names = [*folder.glob("parts/*"), *folder.glob("*.fits"), *folder.glob("*.ecsv")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in [*names, folder / "run.json"]}


@pytest.fixture
def predict(settings: LensSettings, module: LightningModule) -> Predict:
    def call(sha: str = SHA, **changes: object) -> int:
        return run(LensRun(dataclasses.replace(settings, **changes), module, sha))

    return call


def test_the_table_holds_what_the_encoder_says(
    dataset: Path, tmp_path: Path, predict: Predict, module: LightningModule
) -> None:
    assert predict() == 0
    result = read_result(tmp_path / "out" / "predictions.fits")
    table = result.predictions
    assert len(table) == 30
    assert table["ID"][[0, 12]].tolist() == [
        "images/lenses_000000.npy[0]",
        "images/lenses_000001.npy[2]",
    ]
    images = np.concatenate([np.load(path) for path in sorted(dataset.glob("images/*"))])
    with torch.inference_mode():
        expected = module.probabilities(torch.from_numpy(images)).numpy()
    found = np.stack([table[name] for name in ("P_NO_SUB", "P_CDM", "P_VORTEX")], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    classes = np.array(["no_sub", "cdm", "vortex"])
    assert table["CLASS"].tolist() == classes[expected.argmax(axis=1)].tolist()
    assert table["UNSURE"].tolist() == (expected.max(axis=1) < 0.75).tolist()
    assert 0 < table["UNSURE"].sum() < 30
    assert table["TRUE_CLASS"].tolist() == classes[np.arange(30) % 3].tolist()
    index = np.arange(30)
    np.testing.assert_array_equal(table["DELTA_CHI2"], np.where(index % 3 > 0, index**2, 0))
    assert (result.meta["CKPTSHA"], result.meta["THRESH"]) == (SHA, 0.75)
    assert len(Table.read(tmp_path / "out" / "failed.ecsv")) == 0
    manifest = read_json(tmp_path / "out" / "manifest.json")
    assert manifest["checkpoint"] == SHA
    assert manifest["settings"]["predict.batch_size"] == 4
    assert [entry["n_images"] for entry in manifest["parts"]] == [10, 10, 10]
    assert "DATE" not in fits.getheader(tmp_path / "out" / "predictions.fits")


def test_workers_change_nothing_and_lost_parts_are_made_again(
    dataset: Path, tmp_path: Path, predict: Predict
) -> None:
    predict()
    out = tmp_path / "out"
    before = contents(out)
    predict(num_workers=2, output_dir=str(tmp_path / "workers"))
    assert contents(tmp_path / "workers") == before
    times = {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    (out / "parts" / "lenses_000001.fits").unlink()
    damaged = out / "parts" / "lenses_000002.fits"
    damaged.write_bytes(damaged.read_bytes()[:5760])
    (out / "parts" / ".partial-xyz-lenses_000001.fits").write_text("killed while writing")
    assert predict() == 0
    assert contents(out) == before
    kept = [path.name for path, time in times.items() if path.stat().st_mtime_ns == time]
    assert kept == ["lenses_000000.fits"]


def test_damage_that_leaves_the_size_is_found_and_made_again(
    dataset: Path, tmp_path: Path, predict: Predict
) -> None:
    predict()
    before = contents(tmp_path / "out")
    damaged = tmp_path / "out" / "parts" / "lenses_000001.fits"
    damaged.write_bytes(before["parts/lenses_000001.fits"].replace(b"P_CDM", b"P CDM"))
    assert predict() == JOBS_FAILED
    failed = Table.read(tmp_path / "out" / "failed.ecsv")
    assert failed["id"].tolist() == ["images/lenses_000001.npy"]
    assert (
        "lenses_000001.fits is damaged or no table of predictions: it lacks" in failed["reason"][0]
    )
    assert predict() == 0
    assert contents(tmp_path / "out") == before


def test_another_checkpoint_or_setting_is_refused_unless_overwritten(
    dataset: Path, tmp_path: Path, predict: Predict
) -> None:
    predict()
    with pytest.raises(ConfigError, match=r"checkpoint = aaaaaaaaaaaa, now bbb.*overwrite=true"):
        predict(sha="b" * 64)
    with pytest.raises(ConfigError, match=r"predict.unsure_threshold = 0.75, now 0.9"):
        predict(unsure_threshold=0.9)
    assert predict(unsure_threshold=0.9, overwrite=True) == 0
    assert read_result(tmp_path / "out/predictions.fits").predictions["UNSURE"].sum() > 10


def test_changed_images_of_equal_size_are_classified_again(
    dataset: Path, tmp_path: Path, predict: Predict, make_images: Callable[..., np.ndarray]
) -> None:
    predict()
    before = contents(tmp_path / "out")
    np.save(dataset / "images" / "lenses_000001.npy", make_images(10, 77))
    assert predict() == 0
    after = contents(tmp_path / "out")
    changed = [name for name in before if before[name] != after[name]]
    assert changed == ["parts/lenses_000001.fits", "predictions.fits"]


def test_a_repaired_truth_is_read_again(dataset: Path, tmp_path: Path, predict: Predict) -> None:
    path = dataset / "truth" / "lenses_000001.fits"
    size = path.stat().st_size
    predict()
    with fits.open(path, mode="update") as hdus:
        hdus["LENSES"].data["CLASS"] = 2
    assert path.stat().st_size == size
    assert predict() == 0
    table = read_result(tmp_path / "out" / "predictions.fits").predictions
    assert set(table["TRUE_CLASS"][10:20]) == {"vortex"}
    assert set(table["TRUE_CLASS"][20:]) == {"no_sub", "cdm", "vortex"}
    path.unlink()
    assert predict() == 0
    table = read_result(tmp_path / "out" / "predictions.fits").predictions
    assert set(table["TRUE_CLASS"][10:20]) == {""}


def test_damage_is_listed_and_repaired_images_are_done(
    dataset: Path, tmp_path: Path, predict: Predict
) -> None:
    predict(output_dir=str(tmp_path / "good"))
    first, second, third = sorted(dataset.glob("images/*.npy"))
    whole = {path: path.read_bytes() for path in (first, second, third)}
    images = np.load(first)
    images[4, 0, 2:4, 3] = np.nan
    np.save(first, images)
    second.write_bytes(whole[second][:500])
    np.save(third, np.zeros((10, 1, SIDE_OTHER, SIDE_OTHER), np.float32))
    assert predict() == JOBS_FAILED
    failed = Table.read(tmp_path / "out" / "failed.ecsv")
    assert failed["id"].tolist() == [
        "images/lenses_000000.npy[4]",
        "images/lenses_000001.npy",
        "images/lenses_000002.npy",
    ]
    assert failed["reason"][0] == "2 of 81 values are NaN or infinite"
    assert "lenses_000001.npy" in failed["reason"][1]
    assert "shape (1, 9, 9) (bands, side, side)" in failed["reason"][2]
    assert "but got (1, 11, 11)" in failed["reason"][2]
    table = read_result(tmp_path / "out/predictions.fits").predictions
    good = read_result(tmp_path / "good/predictions.fits").predictions
    # The others have the bits that they have beside a good image.
    keep = [n for n in range(10) if n != 4]
    for name in good.columns:
        np.testing.assert_array_equal(table[name], good[name][keep])
    for path, data in whole.items():
        path.write_bytes(data)
    assert predict() == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "good")


SIDE_OTHER = 11


def test_truth_that_does_not_fit_is_a_failure_and_none_is_unknown(
    dataset: Path, tmp_path: Path, predict: Predict
) -> None:
    truth = sorted(dataset.glob("truth/*.fits"))
    truth[0].unlink()
    with fits.open(truth[1]) as hdus:
        shorter = fits.BinTableHDU(hdus["LENSES"].data[:9], name="LENSES")
        fits.HDUList([hdus[0], shorter, hdus["SUBSTRUCTURE"]]).writeto(tmp_path / "cut.fits")
    (tmp_path / "cut.fits").rename(truth[1])
    assert predict() == JOBS_FAILED
    failed = Table.read(tmp_path / "out" / "failed.ecsv")
    assert failed["id"].tolist() == ["images/lenses_000001.npy"]
    assert "has 9 rows, but there are 10 images" in failed["reason"][0]
    table = read_result(tmp_path / "out/predictions.fits").predictions
    assert table["TRUE_CLASS"][:10].tolist() == [""] * 10
    assert np.isnan(table["DELTA_CHI2"][:10]).all()
    assert table["TRUE_CLASS"][10] == "vortex"


@pytest.mark.parametrize("suffix", ["", "val/"])
def test_single_images_are_dealt_into_parts(
    tmp_path: Path, predict: Predict, make_images: Callable[..., np.ndarray], suffix: str
) -> None:
    """A flat folder, and the layout of public sets; one file is damaged, one is no image."""
    folder = tmp_path / "images"
    names = ["no", "sphere", "vort"] if suffix else [""]
    for number, name in enumerate(names):
        (folder / suffix / name).mkdir(parents=True, exist_ok=True)
        for n, image in enumerate(make_images(10, number)):
            np.save(folder / suffix / name / f"{n:02d}.npy", image)
    first = folder / suffix / names[0]
    (first / "00.npy").write_bytes(b"no image")
    np.save(first / "03.npy", np.zeros((SIDE_OTHER, SIDE_OTHER)))
    assert predict(cached_data_path=str(folder)) == JOBS_FAILED
    table = read_result(tmp_path / "out" / "predictions.fits").predictions
    assert len(table) == (28 if suffix else 8)
    labels = ["no_sub"] * 8 + ["cdm"] * 10 + ["vortex"] * 10 if suffix else [""] * 8
    assert table["TRUE_CLASS"].tolist() == labels
    # Where there is no `test`, figures are published on `val`.
    assert set(table["SPLIT"]) == {"test" if suffix else ""}
    prefix = f"{suffix}{names[0]}/".lstrip("/") if suffix else ""
    failed = Table.read(tmp_path / "out" / "failed.ecsv")
    assert failed["id"].tolist() == [f"{prefix}00.npy", f"{prefix}03.npy"]
    parts = sorted(path.name for path in (tmp_path / "out" / "parts").iterdir())
    assert len(parts) == (5 if suffix else 2)
    with pytest.raises(DataNotFoundError, match=r"holds no images of split train"):
        predict(cached_data_path=str(folder), split="train")


SPLITS = {"train": 0.5, "val": 0.2, "test": 0.3}


def card_of(dataset: Path, n_train: int | None) -> dict[str, object]:
    """What a training on the images of a folder says of them."""
    stretch = {"kind": "linear", "softening": None, "scales": [], "steps": []}
    stretch |= {"threshold": 0.1, "n_images": 4}
    data = LensesDataModule(str(dataset), 4, 0, 4, SPLITS, n_train, None, stretch, False)
    card = data.card()
    return {key: card[key] for key in ("identity", "split_seed", "splits", "n_train", "data_hash")}


def test_images_that_trained_are_told_from_those_that_test(
    dataset: Path, tmp_path: Path, predict: Predict, module: LightningModule
) -> None:
    with pytest.raises(ConfigError, match=r"on which the encoder was not trained, .* = test"):
        predict(split="test")
    assert predict() == 0
    assert set(read_result(tmp_path / "out/predictions.fits").predictions["SPLIT"]) == {""}
    module.card |= card_of(dataset, n_train=None)
    assert predict() == 0
    table = read_result(tmp_path / "out/predictions.fits").predictions
    expected = [assign_split(f"lens_{number:09d}", 4, SPLITS) for number in range(30)]
    assert table["SPLIT"].tolist() == expected
    assert predict(split="test", output_dir=str(tmp_path / "test")) == 0
    tested = read_result(tmp_path / "test/predictions.fits").predictions
    assert tested["INDEX"].tolist() == [n for n in range(30) if expected[n] == "test"]
    kept = table[[name == "test" for name in expected]]
    assert tested["ID"].tolist() == kept["ID"].tolist()
    np.testing.assert_allclose(tested["P_CDM"], kept["P_CDM"], atol=1e-6)


def test_images_that_n_train_left_out_are_new(dataset: Path) -> None:
    stretch = {"kind": "linear", "softening": None, "scales": [], "steps": []}
    stretch |= {"threshold": 0.1, "n_images": 4}
    data = LensesDataModule(str(dataset), 4, 0, 4, SPLITS, 6, None, stretch, False)
    card, whole = data.card(), card_of(dataset, n_train=None)
    training = training_of(card, dataset)
    trained = [n for n in range(30) if training.split_of(n) == "train"]
    assert trained == data.numbers["train"].tolist()
    assert len(trained) == 6
    pool = [n for n in range(30) if training_of(whole, dataset).split_of(n) == "train"]
    assert set(trained) < set(pool)
    assert {training.split_of(n) for n in set(pool) - set(trained)} == {""}
    # Whichever truth is lost: an image that trained is never new.
    (dataset / "truth" / "lenses_000001.fits").unlink()
    less = training_of(card, dataset)
    assert all(less.split_of(n) == "train" for n in trained)
    write_json(dataset / "settings.json", read_settings(dataset) | {"seed": 1})
    assert not training_of(card, dataset).is_known


def test_images_of_a_training_that_simulated_them_go_by_their_numbers(dataset: Path) -> None:
    ranges = {"val": [0, 5], "test": [5, 10], "train": [10, 20]}
    card = {"identity": identity_of(read_settings(dataset)), "ranges": ranges}
    training = training_of(card, dataset)
    assert [training.split_of(n) for n in (4, 5, 19, 20)] == ["val", "test", "train", ""]


def test_pixel_scale_of_a_fits_image_is_checked(tmp_path: Path, predict: Predict) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, scale in enumerate((0.1, 0.05)):
        header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"})
        header.update({"CDELT1": -scale / 3600, "CDELT2": scale / 3600})
        fits.writeto(folder / f"{number}.fits", np.ones((9, 9), np.float32), header)
    fits.writeto(folder / "2.fits", np.ones((9, 9), np.float32))
    assert predict(cached_data_path=str(folder)) == JOBS_FAILED
    failed = Table.read(tmp_path / "out" / "failed.ecsv")
    assert failed["id"].tolist() == ["1.fits"]
    assert failed["reason"][0].startswith("expected pixels of 0.1 arcsec, with which the encoder")
    assert "but got 0.05 arcsec" in failed["reason"][0]


@pytest.mark.parametrize(
    "odd",
    [
        {"CUNIT1": "bogus", "CDELT1": 1.0},
        {"CTYPE1": "RA---XXX", "CTYPE2": "DEC--XXX"},
        {"CD1_1": 0.0, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.0},
        {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CD1_1": 1.0, "A_ORDER": 2},
        {"CTYPE1": "GLON-TAN"},
    ],
)
def test_an_odd_header_is_the_failure_of_one_image(
    tmp_path: Path, predict: Predict, odd: dict[str, object]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"})
    header.update(odd)
    fits.writeto(folder / "0.fits", np.ones((9, 9), np.float32), header)
    fits.writeto(folder / "1.fits", np.ones((9, 9), np.float32))
    assert predict(cached_data_path=str(folder)) == JOBS_FAILED
    failed = Table.read(tmp_path / "out" / "failed.ecsv")
    assert failed["id"].tolist() == ["0.fits"]
    assert "WCS" in failed["reason"][0] or "expected pixels" in failed["reason"][0]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("bands", ["g"], r"trained on images with bands = \['g'\], but .* has bands = \['i'\]"),
        ("image_side", 65, r"trained on images with side = 65, but .* has side = 9"),
        ("pixel_scale", 0.05, r"with pixel_scale = 0.05, but .* has pixel_scale = 0.1"),
    ],
)
def test_an_encoder_of_other_images_is_refused(
    dataset: Path, predict: Predict, module: LightningModule, key: str, value: object, message: str
) -> None:
    module.card[key] = value
    with pytest.raises(CheckpointError, match=message):
        predict()


def test_an_encoder_that_gives_nothing_finite_is_no_result(
    dataset: Path, tmp_path: Path, predict: Predict, module: LightningModule
) -> None:
    module.network.say.bias.data.fill_(torch.nan)
    assert predict() == JOBS_FAILED
    failed = Table.read(tmp_path / "out" / "failed.ecsv")
    assert len(failed) == 30
    assert set(failed["reason"]) == {"the encoder gave no finite probability"}
    assert len(read_result(tmp_path / "out" / "predictions.fits").predictions) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "predict.batch_size to be a number >= 1, but got .* = 0"),
        ({"split": "best"}, r"predict.split to be null \| train \| val \| test, but got .* = best"),
        ({"unsure_threshold": 1.5}, "predict.unsure_threshold to be null or a number from 0 to 1"),
        ({"delta_chi2_bins": [1.0, 1.0]}, "predict.delta_chi2_bins to be two or more rising edges"),
    ],
)
def test_lens_settings_are_checked(
    settings: LensSettings, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(settings, **change)
