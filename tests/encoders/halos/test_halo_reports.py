"""What a training writes to the folder of its run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from omegaconf import DictConfig

from encoders.checkpoint import load_checkpoint
from encoders.halos.likelihood import interval
from encoders.training import train

RESULTS = {
    "confusion.png", "corner.png", "coverage.png", "cross_sections.png", "history.ecsv",
    "history.png", "latents.png", "novelty.png", "overlaps.png", "predictions.npz",
    "saliency.png", "test.json",
}  # fmt: skip
Reported = tuple[Path, dict[str, float]]


# A whole training with all its pictures.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reported(compose_halos: Callable[..., DictConfig]) -> Reported:
    """Return the folder of a training that holds set c out, and its figures."""
    more = ["logger=tensorboard", "callbacks.reports.draws=true", "data.batch_size=64"]
    cfg = compose_halos("+data.sets={c: held_out}", *more)
    metrics = train(cfg)
    return Path(cfg.paths.log_dir) / str(cfg.task_name) / "runs/manual", metrics


def test_results_of_a_training(reported: Reported) -> None:
    folder, metrics = reported
    assert {path.name for path in (folder / "results").iterdir()} == RESULTS
    history = Table.read(folder / "results/history.ecsv", format="ascii.ecsv")
    assert history["epoch"].tolist() == [1.0, 2.0]
    names = ("train/cclp", "train/epoch_loss", "val/loss", "val/rmse_dex")
    assert [history[name][-1] for name in names] == pytest.approx([metrics[n] for n in names])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags = (
        EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0}).Reload().Tags()
    )
    pictures = {"latents", "corner", "confusion", "cross_sections", "saliency"}
    assert {f"val/{name}" for name in pictures} <= set(tags["images"])


def test_results_of_its_test(reported: Reported) -> None:
    folder, metrics = reported
    found = json.loads((folder / "results/test.json").read_text())
    assert found["accuracy"] == pytest.approx(metrics["test/accuracy"])
    groups = {(row["set"], row["cross_section"]): row for row in found["groups"]}
    sigmas = (0.0, 0.1, 1.0)
    assert list(groups) == [(name, sigma) for name in ("a", "c") for sigma in sigmas]
    # All halos of the other seed, and those of the test split of set a.
    assert [groups["c", sigma]["n_halos"] for sigma in sigmas] == [8, 8, 8]
    splits = Table.read(folder / "splits.ecsv", format="ascii.ecsv")
    assert groups["a", 0.0]["n_halos"] == (splits["split"] == "test").sum()
    assert len(splits) == 24
    for (name, sigma), row in groups.items():
        assert (row["auroc"] is not None) == (name == "c")
        # Also of maps that are held out: what a class is does not depend on what was told.
        assert 0.0 <= row["accuracy"] <= 1.0
        assert set(row["overlaps"]) == {"a 0", "a 0.1", "a 1"}
        assert row["low"] <= row["median"] <= row["high"]
        assert row["bias_dex"] == pytest.approx(np.log10(row["median"] / max(sigma, 0.01)))


def test_predictions_of_its_test(reported: Reported) -> None:
    folder, metrics = reported
    with np.load(folder / "results/predictions.npz", allow_pickle=False) as content:
        found: dict[str, Any] = dict(content)
    is_learned = found["set"] == "a"
    assert (found["class"][~is_learned] == -1).all()
    classes = np.searchsorted((0.0, 0.1, 1.0), found["true_cross_section"])
    assert (found["class"] == classes)[is_learned].all()
    is_right = found["probabilities"].argmax(axis=1) == classes
    assert is_right[is_learned].mean() == pytest.approx(metrics["test/accuracy"])
    # As predict=halos answers: from the judge that travels with the weights.
    module: Any = load_checkpoint(folder / "checkpoints/best.ckpt", "halos")
    judge = module.judge()
    places = interval(judge.likelihood.log_posterior(found["z"][:, 0]), judge.shift)
    ends = np.stack([found[name] for name in ("low", "cross_section", "high")], axis=1)
    np.testing.assert_allclose(ends, module.scale.inverse(places))
