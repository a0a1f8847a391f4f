from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from omegaconf import DictConfig
from scipy import stats

from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.files import write_json, write_text
from inference import runs as finished
from inference.lenses.curve_settings import CurveSettings
from inference.lenses.learning_curve import compare, evaluate_curve

N_IMAGES = 400


def write_run(
    folder: Path,
    model: str,
    n_train: int | str,
    seed: int,
    shift: int = 0,
    **figures: object,
) -> Path:
    """Make up a run; accuracy rises with n_train, and e2cnn gets 40 more images right.

    Seeds share no images, and models get images of their own right.
    """
    run = folder / f"{model}_{n_train}_{seed}"
    config = f"task_name: {model}\nseed: {seed}\ndata:\n  n_train: {n_train}\n  seed: ${{seed}}\n"
    write_text(run / ".hydra" / "config.yaml", config)
    number = 200 if n_train == "null" else 100 + 40 * int(np.log10(int(n_train)))
    n_right = number + 10 * seed + 40 * (model == "e2cnn")
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, N_IMAGES)
    found = np.where(rng.permutation(N_IMAGES) < n_right, labels, (labels + 1) % 3)
    known = {"identity": "set", "splits": {"test": 0.2}, "network": {"group": "C8"}}
    write_json(run / "results" / "test.json", known | {"auroc": 0.5 + n_right / 1000} | figures)
    np.savez(
        run / "results" / "predictions.npz",
        index=np.arange(N_IMAGES) + N_IMAGES * seed + shift,
        labels=labels,
        probabilities=np.eye(3)[found],
    )
    return run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs" / "lens_learning_curve"
    for model in ("plain_cnn", "e2cnn"):
        for n_train in (100, 1000):
            for seed in range(3):
                write_run(folder, model, n_train, seed)
    return folder


@pytest.fixture
def settings(runs: Path, tmp_path: Path) -> CurveSettings:
    return CurveSettings(str(runs), str(tmp_path / "out"), "plain_cnn", 0.95)


def test_means_over_seeds_have_students_interval(settings: CurveSettings) -> None:
    curve, _ = compare(settings)
    assert curve["model"].tolist() == ["e2cnn", "e2cnn", "plain_cnn", "plain_cnn"]
    assert curve["n_train"].tolist() == [100, 1000] * 2
    expected = np.array([180, 190, 200]) / N_IMAGES
    row = curve[2]
    assert (row["n_seeds"], row["n_images"]) == (3, N_IMAGES)
    assert row["accuracy"] == pytest.approx(expected.mean())
    known = stats.ttest_1samp(expected, 0).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((known.low, known.high))
    assert row["auroc"] == pytest.approx(0.69)


def test_models_are_compared_seed_by_seed(settings: CurveSettings) -> None:
    _, pairs = compare(settings)
    assert pairs["model"].tolist() == ["e2cnn", "e2cnn"]
    # Every seed differs by the same number of images: the interval is a point.
    for row in pairs:
        assert tuple(row["difference", "low", "high"]) == pytest.approx((0.1, 0.1, 0.1))


def test_networks_of_one_model_are_models_of_their_own(settings: CurveSettings, runs: Path) -> None:
    for seed in range(3):
        write_run(runs / "c4", "e2cnn", 100, seed, network={"group": "C4"})
    curve, _ = compare(settings)
    assert curve["model"].tolist()[:3] == ["e2cnn group=C4", "e2cnn group=C8", "e2cnn group=C8"]
    write_run(runs / "again", "e2cnn", 100, 0)
    with pytest.raises(DataFormatError, match=r"model = e2cnn group=C8, n_train = 100, seed = 0"):
        compare(settings)


def test_a_reference_without_runs_is_named(
    settings: CurveSettings, caplog: pytest.LogCaptureFixture
) -> None:
    _, pairs = compare(replace(settings, reference="resnet18"))
    assert len(pairs) == 0
    assert "evaluate.reference = resnet18 is none of e2cnn, plain_cnn" in caplog.text


def test_runs_without_results_are_left_out(settings: CurveSettings, runs: Path) -> None:
    (runs / "e2cnn_100_0" / "results" / "test.json").unlink()
    curve, pairs = compare(settings)
    assert curve["n_seeds"].tolist() == [2, 3, 3, 3]
    assert pairs["n_seeds"].tolist() == [2, 3]


def test_runs_that_do_not_fit_are_named(settings: CurveSettings, runs: Path) -> None:
    shifted = write_run(runs, "e2cnn", 1000, 2, shift=1)
    with pytest.raises(DataFormatError, match=rf"expected {shifted} .* tested on the same images"):
        compare(settings)
    write_run(runs, "e2cnn", 1000, 2, identity="other")
    with pytest.raises(DataFormatError, match=rf"expected {shifted} .* tested on the same images"):
        compare(settings)
    write_json(shifted / "results" / "test.json", {"auroc": 0.9, "network": {}})
    with pytest.raises(
        DataFormatError, match=r"it lacks identity, splits, .* train and test again"
    ):
        compare(settings)
    write_run(runs, "e2cnn", 1000, 2)
    all_images = write_run(runs, "e2cnn", "null", 0)
    with pytest.raises(DataFormatError, match=rf"{all_images} is damaged or no training of lenses"):
        compare(settings)
    (all_images / "results" / "test.json").unlink()
    (shifted / "results" / "predictions.npz").write_bytes(b"")
    with pytest.raises(DataFormatError, match=rf"{shifted} is damaged"):
        compare(settings)
    write_run(runs / "more", "plain_cnn", 100, 0)
    write_run(runs, "e2cnn", 1000, 2)
    with pytest.raises(
        DataFormatError, match=r"model = plain_cnn, n_train = 100, seed = 0; remove"
    ):
        compare(settings)


def test_no_runs_and_a_wrong_confidence_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"train.py experiment=lens_learning_curve"):
        compare(CurveSettings(str(tmp_path), "out", None, 0.95))
    with pytest.raises(ConfigError, match=r"evaluate.confidence to be .* 0 and 1, but got .* = 95"):
        CurveSettings("runs", "out", None, 95)


def test_the_command_writes_tables_and_a_picture(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    composed: Callable[..., DictConfig],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert evaluate_curve(composed("evaluate", "evaluate=learning_curve")) == 0
    said = capsys.readouterr().out
    assert "wrote outputs/lens_learning_curve/learning_curve.png" in said
    out = tmp_path / "outputs" / "lens_learning_curve"
    table = Table.read(out / "learning_curve.ecsv")
    assert table.meta["confidence"] == 0.95
    assert table["accuracy"][0] == pytest.approx(230 / N_IMAGES)
    assert len(Table.read(out / "pairs.ecsv")) == 2
    assert (out / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert (
        evaluate_curve(composed("evaluate", "evaluate=learning_curve", "evaluate.reference=null"))
        == 0
    )
    assert len(Table.read(out / "pairs.ecsv")) == 0


def test_the_experiment_composes_a_run_of_the_sweep(composed: Callable[..., DictConfig]) -> None:
    cfg = composed(
        "train", "experiment=lens_learning_curve", "model=e2cnn", "data.n_train=100", "seed=2"
    )
    assert (cfg.task_name, cfg.data.n_train, cfg.data.seed) == ("e2cnn", 100, 2)
    assert cfg.callbacks.best.publish is None
    assert cfg.trainer.max_steps % cfg.trainer.val_check_interval == 0


def test_runs_without_results_are_named(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_text(runs / "resnet18_100_0" / ".hydra" / "config.yaml", "task_name: resnet18\n")
    assert len(finished.tested_runs(runs, "lens_learning_curve")) == 12
    assert f"1 of 13 runs have no test results: {runs / 'resnet18_100_0'}" in caplog.text
