"""The rows of the benchmark of encoders of halos, with next to no budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import halo_training as benchmark
from benchmarks.halo_training import Budget, figures_of


def test_figures_of_a_test() -> None:
    row = {"bias_dex": 0.1, "rmse_dex": 0.2, "covered": 0.7, "auroc": None}
    groups = [
        {**row, "set": "a", "cross_section": 0.0},
        {**row, "set": "a", "cross_section": 0.1, "rmse_dex": 0.4},
        {**row, "set": "between", "cross_section": 0.2, "bias_dex": 0.3},
        {**row, "set": "between", "cross_section": 0.5},
        {**row, "set": "noise", "cross_section": None, "auroc": 0.9, "rmse_dex": None},
    ]
    found = figures_of({"accuracy": 0.6, "groups": groups})
    assert found.pop("accuracy") == 0.6
    assert list(found) == list(benchmark.COLUMNS)
    expected = (0.3, 0.7, 0.3, np.nan, 0.9, np.nan)
    np.testing.assert_allclose(list(found.values()), expected)


def test_the_last_choice_of_a_key_counts() -> None:
    for changes in benchmark.WITHOUT.values():
        made = benchmark._last_of_each([*benchmark.OURS, *changes])
        assert len({one.split("=")[0] for one in made}) == len(made)
        assert set(changes) <= set(made)


@pytest.mark.slow
def test_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suites = {name: benchmark.SUITES[name] for name in ("a", "noise")}
    monkeypatch.setattr(benchmark, "SUITES", suites)
    budget = Budget(tmp_path, n_files=1, side=24, epochs=1, reference_epochs=1, seeds=1, n_jobs=1)
    benchmark.simulate(budget)
    assert 0.0 <= benchmark.lda(budget)[0] <= 1.0
    assert benchmark.measure("ours", benchmark.OURS, 1, budget) > 0.0
    words = capsys.readouterr().out.split()
    assert words[:2] == ["ours", "1"]
    figures = np.array([float(word) for word in (words[3], *words[5:])])
    # Neither 0.2 cm2/g, other feedback nor suite b is there.
    assert np.isnan(figures).tolist() == [False, False, False, False, True, True, False, True]
