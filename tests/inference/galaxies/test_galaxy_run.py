"""Predictions on stamps: the table, labels and splits, resuming, failures, what is refused."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.table import Table

from conf.running import JOBS_FAILED
from datagen.errors import CheckpointError, ConfigError, DataFormatError, DataNotFoundError
from datagen.files import read_json, save_torch
from datagen.prepared import format as prepared
from datagen.stamps import format as stamps
from encoders.checkpoint import load_checkpoint
from inference.galaxies.run import COMMAND, KNOWN
from inference.galaxies.settings import GalaxySettings
from inference.galaxies.training import Training
from inference.results import Form, read_result
from tests.galaxy_stamps import write_suite

Predict = Callable[..., int]
FORM = Form(COMMAND, KNOWN, {})


def table_of(folder: Path) -> Table:
    return read_result(folder / "predictions.fits", FORM).predictions


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that must not depend on how the run went."""
    names = [*folder.glob("parts/*"), *folder.glob("*.fits"), *folder.glob("*.ecsv")]
    names += [*folder.glob("*.json"), *folder.glob("*.png")]
    names = [path for path in names if path.name != "manifest.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


def pixels_of(folder: Path) -> Any:  # noqa: ANN401
    return np.concatenate([stamps.read_stamps(path) for path in stamps.stamp_files(folder)])


def changed_card(path: Path, copy: Path, **changes: object) -> str:
    """Write a checkpoint whose card differs; None removes an entry."""
    content = torch.load(path, weights_only=True)
    card = content["hyper_parameters"]["card"] | changes
    content["hyper_parameters"]["card"] = {k: v for k, v in card.items() if v is not None}
    save_torch(copy, content)
    return str(copy)


def test_the_table_holds_what_the_encoder_says(
    stamps_dir: Path, encoder: Path, whole: Path
) -> None:
    table = table_of(whole)
    assert table["SUITE"].tolist() == ["a"] * 60 + ["b"] * 20 + ["c"] * 24
    module = load_checkpoint(encoder, "galaxies")
    for suite, planes in (("a", [0, 1, 2]), ("c", [2, 3, 1])):
        found = table[table["SUITE"] == suite]
        seen = torch.from_numpy(pixels_of(stamps_dir / suite)[:, planes])
        assert found["EMBEDDING"].dtype == np.float32
        np.testing.assert_allclose(found["EMBEDDING"], module(seen).numpy(), rtol=1e-4, atol=1e-6)
        labels = stamps.read_labels(stamps_dir / suite)
        for name in ("SNAPSHOT", "OBJECT", "PROJECTION", "FILE", "FILE_NUMBER", "ROW", "width"):
            np.testing.assert_array_equal(found[name], labels[name], name)


def test_labels_that_a_suite_lacks_are_nan_or_empty(whole: Path) -> None:
    table = table_of(whole)
    is_c = np.asarray(table["SUITE"]) == "c"
    assert np.isnan(table["colour"][is_c]).all()
    assert np.isfinite(table["colour"][~is_c]).all()
    assert table["survey"].tolist() == [""] * 80 + ["deep"] * 24
    header = fits.getheader(whole / "predictions.fits", 1)
    units = {header[f"TTYPE{k}"]: header.get(f"TUNIT{k}") for k in range(1, header["TFIELDS"] + 1)}
    assert units["width"] == "pix"
    assert units["colour"] is None


def test_splits_are_those_of_the_training(galaxies_dir: Path, whole: Path) -> None:
    table = table_of(whole)
    assert set(table["SPLIT"][table["SUITE"] == "c"]) == {""}
    assert set(table["SPLIT"][table["SUITE"] == "a"]) == {"train", "val", "test"}
    keys = ("SUITE", "FILE_NUMBER", "ROW")
    before = prepared.read_prepared(galaxies_dir / "prepared")
    where = {tuple(str(row[key]) for key in keys): n for n, row in enumerate(table)}
    assert len(where) == len(table)
    for row in before:
        found = table[where[tuple(str(row[key]) for key in keys)]]
        assert found["SPLIT"] == row["SPLIT"]
        assert found["IDENTITY"] == row["IDENTITY"]


def test_splits_by_ids_that_link_objects() -> None:
    """Stamps of one id share what they were; one whose id is not known has no split."""
    table = Table({"OBJECT": np.arange(40), "root": np.repeat(np.arange(10.0), 4)})
    table["root"][3] = np.nan
    fractions = {"train": 0.5, "val": 0.2, "test": 0.3, "domain": 0.0}
    numbers, splits = Training(("a",), "root", 1, fractions).look_up("a", table)
    assert splits[3] == ""
    assert np.isin(np.delete(splits, 3), ["train", "val", "test"]).all()
    assert len(set(splits[:3])) == len(set(numbers[:3])) == 1
    assert len(set(numbers)) == 11
    assert set(splits[4:].reshape(9, 4)[:, 0]) > {"train"}
    assert (splits[4:].reshape(9, 4) == splits[4:].reshape(9, 4)[:, :1]).all()
    assert set(Training(("a",), "root", 1, fractions).look_up("b", table)[1]) == {""}
    for by in ("history", None):
        numbers, splits = Training(("a",), by, 1, fractions).look_up("a", table)
        assert set(splits) == {""}
        assert len(set(numbers)) == 40


def test_a_split_that_is_not_known_is_told(
    encoder: Path, tmp_path: Path, predict: Predict, caplog: pytest.LogCaptureFixture
) -> None:
    path = changed_card(encoder, tmp_path / "by.ckpt", split_by="root")
    with caplog.at_level(logging.WARNING):
        predict(suites=["a", "c"], weight_save_path=path)
    assert set(table_of(tmp_path / "out")["SPLIT"]) == {""}
    assert "which stamps of a trained the encoder, since objects were split by root" in caplog.text


def test_neighbours_tell_labels(whole: Path, encoder: Path) -> None:
    """The figure is that of a loop over stamps that did not train."""
    found = read_json(whole / "evaluation.json")["suites"]
    table = table_of(whole)
    new = table[~np.isin(table["SPLIT"], ["train", "val"])]
    assert found["a"]["n_stamps"] == (new["SUITE"] == "a").sum() < 60
    assert found["c"]["n_objects"] == 12
    assert found["c"]["knn_r2_colour"] is None
    assert (whole / "pca.png").is_file()
    some = new[new["SUITE"] == "c"]
    x = np.asarray(some["EMBEDDING"], float)
    x = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 1e-9, x.std(axis=0), 1.0)
    is_known = np.isfinite(some["width"])
    x, some = x[is_known], some[is_known]
    k = load_checkpoint(encoder, "galaxies").hparams["probes"]["n_neighbours"]
    guesses = []
    for one, obj in zip(x, some["OBJECT"], strict=True):
        apart = np.linalg.norm(x - one, axis=1)
        others = [n for n in np.argsort(apart) if some["OBJECT"][n] != obj][:k]
        guesses.append(np.mean(some["width"][others]))
    truth = np.asarray(some["width"])
    r2 = 1.0 - ((guesses - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    assert found["c"]["knn_r2_width"] == pytest.approx(r2, abs=1e-5)


def test_a_probe_finds_fields(
    stamps_dir: Path, probe: Path, tmp_path: Path, predict: Predict
) -> None:
    assert predict(weight_save_path=str(probe), evaluate=True) == 0
    table = table_of(tmp_path / "out")
    module: Any = load_checkpoint(probe, "galaxy_fields")
    outputs = module(torch.from_numpy(pixels_of(stamps_dir / "a")))
    a = table[table["SUITE"] == "a"]
    values = module.fields.values(outputs).numpy()
    np.testing.assert_allclose(a["FOUND_COLOUR"], values[:, 0], rtol=1e-4, atol=1e-5)
    assert a["FOUND_IS_RED"].tolist() == values[:, 1].tolist()
    assert a["FOUND_IS_RED"].tolist() == a["P_IS_RED"].argmax(axis=1).tolist()
    np.testing.assert_allclose(a["P_IS_RED"].sum(axis=1), 1.0, rtol=1e-6)
    assert "EMBEDDING" not in table.columns
    found = read_json(tmp_path / "out/evaluation.json")["suites"]
    new = a[a["SPLIT"] == "test"]
    error = np.mean((new["FOUND_COLOUR"] - new["colour"]) ** 2) / np.var(new["colour"])
    assert found["a"]["r2_colour"] == pytest.approx(1.0 - error, abs=1e-5)
    assert found["a"]["accuracy_is_red"] == np.mean(new["FOUND_IS_RED"] == new["is_red"])
    assert found["c"]["r2_colour"] is None
    assert (tmp_path / "out/fields.png").is_file()
    assert not (tmp_path / "out/pca.png").exists()


def test_lost_and_damaged_parts_are_made_again(tmp_path: Path, predict: Predict) -> None:
    predict(suites=["b", "c"])
    out = tmp_path / "out"
    before = contents(out)
    assert {"predictions.fits", "failed.ecsv", "run.json"} <= before.keys()
    times = {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    (out / "parts/c-stamps_000001.fits").unlink()
    damaged = out / "parts/b-stamps_000000.fits"
    damaged.write_bytes(damaged.read_bytes()[:2880])
    assert predict(suites=["b", "c"]) == 0
    assert contents(out) == before
    kept = [path for path, time in times.items() if path.stat().st_mtime_ns == time]
    assert len(kept) == 2
    with pytest.raises(ConfigError, match=r"predict\.batch_size = 16, now 15.*overwrite=true"):
        predict(batch_size=15)


def test_bad_stamps_and_files_are_failures(tmp_path: Path, predict: Predict) -> None:
    folder = tmp_path / "stamps/d"
    write_suite(folder, 6)
    first, second = stamps.stamp_files(folder)
    pixels = np.array(stamps.read_stamps(first))
    pixels[3, 0, 2:4, 5] = np.nan
    stamps.write_stamps(first, pixels)
    second.write_bytes(second.read_bytes()[:500])
    write_suite(tmp_path / "stamps/e", 2)
    stamps.truth_path(tmp_path / "stamps/e", 1).unlink()
    assert predict(cached_data_path=str(tmp_path / "stamps"), evaluate=True) == JOBS_FAILED
    failed = Table.read(tmp_path / "out/failed.ecsv")
    wanted = ["d/stamps/stamps_000000.npy[3]", "d/stamps/stamps_000001.npy"]
    assert failed["id"].tolist() == [*wanted, "e/stamps/stamps_000001.npy"]
    assert failed["reason"][0] == "2 of 1200 values are NaN or infinite"
    assert "stamps_000001.npy" in failed["reason"][1]
    assert "stamps_000001.fits does not exist" in failed["reason"][2]
    table = table_of(tmp_path / "out")
    assert table["ROW"].tolist() == [0, 1, 2, 4, 5, 0, 1]
    # A part without rows changes no type.
    assert table["OBJECT"].dtype == np.int64


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("bands", ["g", "r", "z"], r"bands = g,r,z, but suite a in .* has bands = g,r,i; extract"),
        (
            "pixel_scale",
            0.31,
            r"pixel_scale \[arcsec/px\] = 0\.31, but .* = 0\.3; .*tolerance=null",
        ),
        ("side", 24, r"side \[px\] = 24, but suite a in .* has side \[px\] = 20"),
    ],
)
def test_an_encoder_of_other_stamps_is_refused(
    encoder: Path, tmp_path: Path, predict: Predict, key: str, value: object, message: str
) -> None:
    path = changed_card(encoder, tmp_path / "other.ckpt", **{key: value})
    with pytest.raises(CheckpointError, match=rf"was trained on stamps with {message}"):
        predict(weight_save_path=path)
    if key == "pixel_scale":
        assert predict(weight_save_path=path, suites=["c"], scale_tolerance=None) == 0


def test_stamps_in_another_unit_are_refused(tmp_path: Path, predict: Predict) -> None:
    write_suite(tmp_path / "stamps/e", 4, UNIT="ct")
    with pytest.raises(CheckpointError, match=r"unit = nanomaggy, but suite e in .* unit = ct"):
        predict(cached_data_path=str(tmp_path / "stamps"))


def test_a_file_that_differs_from_the_first_fails_alone(tmp_path: Path, predict: Predict) -> None:
    write_suite(tmp_path / "stamps/d", 4)
    write_suite(tmp_path / "other/d", 4, UNIT="ct")
    path = stamps.truth_path(tmp_path / "stamps/d", 1)
    path.write_bytes(stamps.truth_path(tmp_path / "other/d", 1).read_bytes())
    # The folder of a single suite will do as well.
    assert predict(cached_data_path=str(tmp_path / "stamps/d")) == JOBS_FAILED
    failed = Table.read(tmp_path / "out/failed.ecsv")
    assert failed["reason"].tolist() == [
        "expected unit = nanomaggy in d/stamps/stamps_000001.npy, but got ct"
    ]


def test_units_must_agree(probe: Path, tmp_path: Path, predict: Predict) -> None:
    for name, unit in (("d", "pix"), ("e", "arcsec")):
        write_suite(tmp_path / "stamps" / name, 2)
        for path in (stamps.truth_path(tmp_path / "stamps" / name, k) for k in (0, 1)):
            table = stamps.read_table(path)
            columns = {key: np.asarray(table[key]) for key in table.colnames}
            units = {"width": unit, "colour": "mag"}
            stamps.write_labels(path, columns, units, table.meta)
    change = {"cached_data_path": str(tmp_path / "stamps")}
    with pytest.raises(DataFormatError, match=r"unit of width .* got pix in d, arcsec in e; conv"):
        predict(**change)
    with pytest.raises(DataFormatError, match=r"colour .* none in the training, mag in d"):
        predict(weight_save_path=str(probe), suites=["d"], **change)


def test_what_is_missing_is_named(tmp_path: Path, predict: Predict) -> None:
    with pytest.raises(DataNotFoundError, match=r"suites to name some of a, b, c, .* but got x; .*"
                       r"data_gen=stamps 'suite=\[x\]'"):  # fmt: skip
        predict(suites=["a", "x"])
    with pytest.raises(DataNotFoundError, match=r"suites of stamps, but .* holds none; make one"):
        predict(cached_data_path=str(tmp_path))
    with pytest.raises(DataNotFoundError, match=r"no\.ckpt does not exist; .*model=simclr"):
        predict(weight_save_path=str(tmp_path / "no.ckpt"))


def test_encoders_of_other_tasks_are_refused(
    checkpoint: Callable[..., Path], tmp_path: Path, predict: Predict
) -> None:
    path = checkpoint(tmp_path / "m.ckpt", ["g"], 32)
    with pytest.raises(CheckpointError, match=r"task = galaxies, but .* is for task = membership"):
        predict(weight_save_path=str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "predict.batch_size to be a number >= 1, but got .* = 0"),
        ({"n_evaluated": 1}, "predict.n_evaluated to be a number >= 2, but got .* = 1"),
        ({"suites": []}, r"predict.suites to be null or names of suites, but got .* = \[\]"),
        ({"scale_tolerance": 0.0}, "predict.scale_tolerance to be null or a number > 0, .* = 0.0"),
    ],
)
def test_galaxy_settings_are_checked(
    settings: GalaxySettings, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(settings, **change)
