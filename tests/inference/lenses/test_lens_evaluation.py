from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from lightning import LightningModule
from scipy.stats import norm

from datagen.files import read_json
from inference.engine import run
from inference.lenses.evaluation import Sample, evaluate, sample_of, summary
from inference.lenses.plots import draw_delta_chi2
from inference.lenses.run import LensRun
from inference.lenses.settings import LensSettings
from inference.lenses.table import Truth, rows
from inference.survey.statistics import Fraction

CLASSES = ("no_sub", "cdm", "vortex")


def classified(n_images: int, seed: int = 0, sharpness: float = 1.5) -> Table:
    """Return predictions whose probabilities hold, by Bayes' rule for normal scores."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n_images)
    scores = rng.normal(size=(n_images, 3)) + sharpness * np.eye(3)[labels]
    likelihood = np.exp(sharpness * scores)
    p = (likelihood / likelihood.sum(axis=1, keepdims=True)).astype(np.float32)
    delta_chi2 = np.where(labels > 0, 10 ** rng.uniform(0, 4, n_images), 0)
    splits = np.where(np.arange(n_images) % 10 == 0, "train", "")
    truth = Truth(np.array(CLASSES)[labels], delta_chi2, np.arange(n_images), splits)
    return rows([str(n) for n in range(n_images)], p, CLASSES, 0.6, truth)


@pytest.fixture(scope="module")
def sample() -> Sample:
    return sample_of(classified(20000), CLASSES)


def test_images_that_trained_do_not_count(sample: Sample) -> None:
    assert len(sample) == 18000
    table = classified(30)
    table["TRUE_CLASS"][:20] = ""  # nine of the others are new
    assert len(sample_of(table, CLASSES)) == 9


def test_areas_are_those_of_normal_scores(sample: Sample) -> None:
    """One class against one: AUC = Phi(d / sqrt 2), d the distance along P_a among a and b."""
    found = evaluate(sample, [0, 1e9])
    p, labels = sample.probabilities.numpy(), sample.labels.numpy()
    areas = []
    for a, b in itertools.permutations(range(3), 2):
        first, second = p[labels == a, a][:1000], p[labels == b, a][:1000]
        areas.append((first[:, None] > second).mean() + (first[:, None] == second).mean() / 2)
    assert found.figures["auroc_ovo"] == pytest.approx(np.mean(areas), abs=0.01)
    rest = [(p[labels == k, k][:1000, None] > p[labels != k, k][:1000]).mean() for k in range(3)]
    assert found.figures["auroc"] == pytest.approx(np.mean(rest), abs=0.01)
    # log(P_a / P_b) separates two classes best: its distance is sqrt(2) x the sharpness.
    assert norm.cdf(1.5) > found.figures["auroc_ovo"] > 0.85


def test_probabilities_that_hold_are_called_calibrated(sample: Sample) -> None:
    found = evaluate(sample, [0, 1e9])
    assert found.figures["ece"] < 0.02
    p = sample.probabilities.numpy()
    kept = p.max(axis=1) >= np.float32(0.6)
    by_name = {f.quantity: f for f in found.fractions if f.variable == "all"}
    # Expected accuracy = mean confidence, of all and of those above the threshold.
    assert by_name["accuracy"].value == pytest.approx(p.max(axis=1).mean(), abs=0.01)
    assert by_name["accuracy_kept"].value == pytest.approx(p.max(axis=1)[kept].mean(), abs=0.01)
    assert by_name["accuracy_kept"].n == kept.sum()
    assert by_name["unsure"].value == pytest.approx(1 - kept.mean())
    assert found.confusion.sum() == 18000
    assert np.trace(found.confusion) == by_name["accuracy"].n_matched
    n_right = [by_name[f"accuracy_{name}"].n_matched for name in CLASSES]
    assert np.diag(found.confusion).tolist() == n_right


def test_accuracy_against_delta_chi2_is_that_of_each_class_with_substructure() -> None:
    table = classified(12)
    table["SPLIT"] = "test"
    table["TRUE_CLASS"] = ["no_sub", "cdm", "vortex", "cdm"] * 3
    table["CLASS"] = ["cdm", "cdm", "cdm", "no_sub"] * 3
    table["DELTA_CHI2"] = np.float32([0, 5, 50, 7] * 2 + [0, 500, np.nan, 10])
    found = evaluate(sample_of(table, CLASSES), [0, 10, 100, 1000])
    counts = {
        (f.quantity, f.low): (f.n_matched, f.n)
        for f in found.fractions
        if f.variable == "delta_chi2"
    }
    assert counts == {
        ("accuracy_cdm", 0): (2, 4),
        ("accuracy_cdm", 10): (0, 1),
        ("accuracy_cdm", 100): (1, 1),
        ("detected_cdm", 0): (2, 4),
        ("detected_cdm", 10): (0, 1),
        ("detected_cdm", 100): (1, 1),
        ("accuracy_vortex", 0): (0, 0),
        ("accuracy_vortex", 10): (0, 2),
        ("accuracy_vortex", 100): (0, 0),
        ("detected_vortex", 0): (0, 0),
        ("detected_vortex", 10): (2, 2),
        ("detected_vortex", 100): (0, 0),
    }
    table["DELTA_CHI2"] = np.float32(np.nan)
    found = evaluate(sample_of(table, CLASSES), [0, 10])
    assert not [f for f in found.fractions if f.variable == "delta_chi2"]


def test_the_picture_of_delta_chi2_leaves_empty_bins_out() -> None:
    spans = [(0.0, 10.0, 3, 4), (10.0, 100.0, 0, 0), (100.0, 1e9, 5, 5)]
    fractions = [
        Fraction(quantity, "delta_chi2", *span)
        for quantity in ("accuracy_cdm", "detected_cdm")
        for span in spans
    ]
    fractions.append(Fraction("accuracy_no_sub", "all", -np.inf, np.inf, 9, 10))
    axes = draw_delta_chi2(fractions, 3).axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0-10\n(4)", "> 100\n(5)"]
    assert len(axes.containers) == 2
    points, _, bars = axes.containers[0].lines
    assert points.get_ydata().tolist() == [0.75, 1.0]
    ends = np.array([segment[:, 1] for segment in bars[0].get_segments()])
    expected = np.array([fractions[0].interval, fractions[2].interval])
    np.testing.assert_allclose(ends, expected, atol=1e-9)
    heights = {line.get_label(): line.get_ydata()[0] for line in axes.lines}
    assert heights["class by chance"] == pytest.approx(1 / 3)
    assert heights["any found where there is none"] == pytest.approx(0.1)
    assert axes.get_ylim()[0] < 0
    legend = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert {"cdm: class found", "cdm: any substructure found"} <= set(legend)


def test_a_prediction_on_labelled_images_is_evaluated(
    dataset: Path,
    tmp_path: Path,
    settings: LensSettings,
    module: LightningModule,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out"
    assert run(LensRun(dataclasses.replace(settings, evaluate=True), module, "a" * 64)) == 0
    found = read_json(out / "evaluation.json")
    assert found["n_images"] == 30
    assert np.sum(found["confusion"]) == 30
    table = Table.read(out / "evaluation.ecsv")
    assert table["value"][0] == found["accuracy"]["value"]
    assert table["n_right"].sum() > 0
    low, high = found["accuracy"]["wilson"]
    assert low < found["accuracy"]["value"] < high
    pictures = sorted(path.stem for path in out.glob("*.png"))
    assert pictures == ["confusion", "delta_chi2", "examples", "reliability", "roc"]
    # Without labels nothing of an earlier evaluation stays.
    for path in dataset.glob("truth/*"):
        path.unlink()
    again = dataclasses.replace(settings, evaluate=True, overwrite=True)
    with caplog.at_level("INFO"):
        assert run(LensRun(again, module, "a" * 64)) == 0
    assert "there is no evaluation: it needs images whose class is known" in caplog.text
    assert not list(out.glob("*.png"))
    assert not (out / "evaluation.json").exists()


def test_the_summary_names_the_main_figures(sample: Sample) -> None:
    line = summary(evaluate(sample, [0, 1e9]))
    assert line.startswith("accuracy 0.7")
    assert "of 18000 images, ROC AUC 0." in line
