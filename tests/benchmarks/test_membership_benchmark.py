"""The numeric parts of the comparison of encoder, baseline and oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import membership
from benchmarks.membership import Field, average_precision, density_scores, read_fields, summarise
from datagen.errors import DataNotFoundError
from datagen.fields.dummy import write_dummy_file_data
from datagen.fields.format import file_data_path, read_file_data, write_file_data
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


def test_without_a_checkpoint_the_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"python train\.py model=membership"):
        membership.compare(tmp_path, tmp_path / "best.ckpt")
