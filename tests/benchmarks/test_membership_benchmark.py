"""The numeric parts of the comparison of encoder, baseline and oracle."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import membership
from benchmarks.membership import (
    Field,
    average_precision,
    density_scores,
    encoder_scores,
    read_fields,
    summarise,
)
from datagen.errors import ConfigError, DataNotFoundError
from datagen.fields.dummy import write_dummy_file_data
from datagen.fields.format import file_data_path, read_file_data, write_file_data
from encoders.checkpoint import load_checkpoint
from encoders.fields.data import FieldsDataset, MapCache, index_file
from encoders.fields.red_sequence import GRID, DensitySettings


def make_fields(n_fields: int, rate: float, seed: int = 0, n_cells: int = 6) -> list[Field]:
    rng = np.random.default_rng(seed)
    shape = (n_fields, n_cells, n_cells)
    labels, counted = rng.random(shape) < rate, rng.random(shape) < 0.9
    return [
        Field(labels[k : k + 1].astype(np.float32), {}, labels[k], counted[k], k)
        for k in range(n_fields)
    ]


def step_by_step(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision by its definition: sum over thresholds of (R_n - R_{n-1}) P_n."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        n_true = int(labels[chosen].sum())
        new = n_true / int(labels.sum())
        total += (new - recall) * n_true / int(chosen.sum())
        recall = new
    return total


@pytest.mark.parametrize("decimals", [1, 9])
@pytest.mark.parametrize("shift", [-800.0, 0.0, 60.0])
def test_average_precision_is_the_sum_over_thresholds(decimals: int, shift: float) -> None:
    """With ties (one decimal), and for scores of any range."""
    fields = make_fields(4, 0.3)
    rng = np.random.default_rng(1)
    scores = [np.round(rng.normal(f.membership, 1.0), decimals) + shift for f in fields]
    values = np.concatenate([s[f.is_counted] for s, f in zip(scores, fields, strict=True)])
    labels = np.concatenate([f.membership[f.is_counted] for f in fields])
    found = average_precision(scores, fields)
    assert found == pytest.approx(step_by_step(values, labels), abs=1e-6)


def test_a_field_drawn_twice_counts_twice() -> None:
    fields = make_fields(3, 0.4)
    rng = np.random.default_rng(3)
    scores = [rng.normal(f.membership, 1.0) for f in fields]
    twice = average_precision([scores[k] for k in (0, 0, 2)], [fields[k] for k in (0, 0, 2)])
    assert average_precision(scores, fields, np.array([2, 0, 1])) == pytest.approx(twice)


def test_cells_without_weight_do_not_count() -> None:
    fields = make_fields(2, 0.4)
    scores = [f.membership.astype(float) for f in fields]
    worse = [np.where(f.is_counted, s, 1.0 - s) for s, f in zip(scores, fields, strict=True)]
    assert average_precision(worse, fields) == average_precision(scores, fields) == 1.0


def test_the_bootstrap_repeats_and_resamples_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "N_BOOTSTRAP", 60)
    fields = make_fields(8, 0.3)
    rng = np.random.default_rng(2)
    spread = {"encoder": 0.5, "baseline": 1.5, "oracle": 0.0}
    scores = {
        name: [f.membership + s * rng.normal(size=f.membership.shape) for f in fields]
        for name, s in spread.items()
    }
    once, again = summarise(scores, fields), summarise(scores, fields)
    assert once == again
    assert once["oracle"] == {"AP": 1.0, "interval": [1.0, 1.0]}
    assert once["n_fields"] == 8
    assert once["n_cells"] == sum(int(f.is_counted.sum()) for f in fields)
    for name in ("encoder", "baseline"):
        low, high = once[name]["interval"]
        assert low < once[name]["AP"] < high
    gain = once["encoder - baseline"]
    assert gain["AP"] == pytest.approx(once["encoder"]["AP"] - once["baseline"]["AP"])
    assert 0 < gain["interval"][0] < gain["AP"] < gain["interval"][1]


def test_settings_are_chosen_on_the_validation_fields_only() -> None:
    """The images show the labels under one setting; test labels have no say."""
    val, test = make_fields(3, 0.3, seed=3), make_fields(2, 0.3, seed=4)
    good = GRID[len(GRID) // 2]
    asked: list[int] = []

    def count(field: Field, settings: DensitySettings) -> np.ndarray:
        asked.append(field.index)
        if settings.colour_width == good.colour_width:
            return 5.0 * field.images.astype(float)
        return np.random.default_rng(field.index).random((1, *field.membership.shape))

    blind = [Field(f.images, f.meta, f.membership.copy(), f.is_counted, 9) for f in test]
    scores, chosen = density_scores(count, val, blind)
    assert chosen.colour_width == good.colour_width
    assert asked.count(9) == len(test)
    assert len(scores) == len(test)
    flipped = [Field(f.images, f.meta, ~f.membership, f.is_counted, 9) for f in test]
    again, same = density_scores(count, val, flipped)
    assert same == chosen
    np.testing.assert_array_equal(again, scores)


def test_fields_are_read_with_the_number_of_their_catalogue(tmp_path: Path) -> None:
    paths = write_dummy_file_data(tmp_path, 2, 64, 32, ["g", "r"], seed=1)
    pair = file_data_path(tmp_path, 3, 2)
    write_file_data(pair, [read_file_data(path)[0] for path in paths])
    fields = read_fields(tmp_path, [paths[1].name, pair.name])
    assert [field.index for field in fields] == [1, 6, 7]
    assert fields[0].images.shape == (2, 64, 64)
    assert fields[0].membership.shape == fields[0].is_counted.shape == (2, 2)
    for name in ("file_data_DES0000-1207-0_size_16.pt", "file_data_T-0_size_4.pt"):
        with pytest.raises(ConfigError, match=f"file data of data_gen=fields, .* but got {name}"):
            read_fields(tmp_path, [name])


class Recorder:
    """An encoder that notes the images it gets and answers with zeros."""

    def __init__(self) -> None:
        self.images = torch.empty(0)

    def __call__(self, images: Tensor, background: Tensor, sigma: Tensor) -> Tensor:
        self.images = images
        return torch.zeros(len(images), 2, 2)


def test_the_encoder_sees_its_own_bands_in_its_order() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 64, 64)).astype(np.float32)
    truth = np.ones((2, 2), bool)
    field = Field(images, {"bands": ["g", "r", "i"]}, truth, truth, 5)
    encoder = Recorder()
    assert encoder_scores(encoder, field, ["i", "g"]).shape == (2, 2)
    np.testing.assert_array_equal(encoder.images[0].numpy(), images[[2, 0]])
    with pytest.raises(ConfigError, match="with the bands g, z, but field 5 has g, r, i"):
        encoder_scores(encoder, field, ["g", "z"])


def test_the_baseline_finds_its_bands_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(5, 64, 64)).astype(np.float32)
    meta = {"bands": ["z", "Y", "i", "r", "g"], "psf_fwhm": [1.0, 2, 3, 4, 5], "pixel_scale": 1.0}
    truth = np.ones((2, 2), bool)
    field = Field(images, meta, truth, truth, 6)
    monkeypatch.setattr(membership, "_CACHE", {})
    monkeypatch.setattr(membership, "detect_sources", lambda *given: given)
    seen, fwhm = membership._detections(field)
    np.testing.assert_array_equal(seen, images[[4, 3, 2, 0]])
    assert fwhm.tolist() == [5, 4, 3, 1]


@pytest.fixture
def encoder(tmp_path: Path, checkpoint: Callable[..., Path]) -> Path:
    splits = {"train": 0.4, "val": 0.3, "test": 0.3}
    return checkpoint(tmp_path / "best.ckpt", ["g", "r"], 32, splits=splits, split_seed=1)


@pytest.mark.parametrize("has_clusters", [True, False])
def test_figures_before_and_after_the_calibration(
    tmp_path: Path, encoder: Path, has_clusters: bool
) -> None:
    paths = write_dummy_file_data(tmp_path, 12, 64, 32, ["g", "r"], seed=1)
    module = load_checkpoint(encoder, "membership")
    module.weights["cluster"] *= has_clusters
    # All scores become the share of cells with members, and errors ten times as large.
    fields = FieldsDataset([index_file(path) for path in paths], ["r", "g"], MapCache(1e9))
    share = torch.stack([fields[number]["membership"] for number in range(12)]).mean()
    module.calibration.copy_(torch.stack((torch.tensor(0.0), torch.logit(share))))
    module.error_scale.fill_(10.0)
    found = membership.figures(module, fields)
    assert found["after"]["calibration_error"] == pytest.approx(0.0, abs=2e-3)
    assert found["before"]["calibration_error"] > 0.01
    names = membership.FIGURES if has_clusters else ("calibration_error",)
    assert tuple(found["before"]) == tuple(found["after"]) == names
    if has_clusters:
        # The untrained encoder is wrong by little compared with its errors.
        assert found["after"]["redshift_within_error"] == 1.0
        for key in ("redshift_bias", "redshift_nmad", "richness_bias", "richness_scatter"):
            assert found["before"][key] == found["after"][key]
    row = {"AP": 0.5, "interval": [0.4, 0.6]}
    result = dict.fromkeys(("encoder", "baseline", "oracle", "encoder - baseline"), row)
    result |= {"encoder figures": found, "n_cells": 48, "n_fields": 12, "base rate": 0.2}
    lines = membership.table(result).splitlines()
    shown = [line.split()[-2:] for line in lines[-len(names) :]]
    expected = [[f"{found[k][name]:.3f}" for k in ("before", "after")] for name in names]
    assert shown == expected


def test_two_bands_are_too_few_for_the_baseline(tmp_path: Path, encoder: Path) -> None:
    write_dummy_file_data(tmp_path, 12, 64, 32, ["g", "r"], seed=1)
    with pytest.raises(ConfigError, match=r"with the bands g, r, i, z, but field \d+ has g, r; "):
        membership.compare(tmp_path, encoder)


def test_an_empty_folder_takes_one_line_and_status_2(
    tmp_path: Path,
    encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["membership.py", "--data-dir", str(tmp_path / "no"), "--checkpoint", str(encoder)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as caught:
        membership.main()
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("skyfold: expected file data (*.pt) in --data-dir = ")
    command = f"python datagen/run.py data_gen=fields data_gen.data_dir={tmp_path / 'no'}"
    assert said.endswith(f"{command}\n")


def test_without_a_checkpoint_the_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"python train\.py model=membership"):
        membership.compare(tmp_path, tmp_path / "best.ckpt")
