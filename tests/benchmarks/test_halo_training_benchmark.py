"""The rows of the benchmark of encoders of halos, with next to no budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import halo_training as benchmark
from benchmarks.halo_training import Budget, figures_of


def test_figures_of_an_evaluation() -> None:
    figures = {"accuracy": 0.6, "rmse_dex": 0.3, "coverage": 0.7}
    found = {
        "sets": {"unseen": figures, "agn_plus": {**figures, "rmse_dex": 0.4}},
        "novelty": {"noise": {"auroc": 0.9}, "unseen": {"flagged": 0.05, "auroc": 0.5}},
        "cross_sections": [
            {"set": "between", "cross_section": 0.2, "bias_dex": 0.1},
            {"set": "between", "cross_section": 0.5, "bias_dex": 0.2},
        ],
    }
    expected = (0.6, 0.3, 0.7, 0.1, 0.4, 0.9, np.nan, 0.05, np.nan)
    assert list(figures_of(found)) == list(benchmark.COLUMNS)
    np.testing.assert_allclose(list(figures_of(found).values()), expected)


def test_folders_of_runs_are_plain_words() -> None:
    assert benchmark.slug("reference, our CPU time") == "reference_our_CPU_time"


def test_what_is_done_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(
        tmp_path, 1, 24, epochs=1, reference_epochs=1, seeds=1, ablation_seeds=1, n_jobs=1
    )
    calls: list[str] = []
    monkeypatch.setattr(
        benchmark, "train", lambda folder, *_: (calls.append("train"), folder.mkdir())
    )
    monkeypatch.setattr(
        benchmark, "predict", lambda *_: {"sets": {}, "novelty": {}, "cross_sections": []}
    )
    found = [benchmark.once(tmp_path / "run", [], 1, 0, budget) for _ in range(2)]
    assert calls == ["train"]
    assert list(found[0][1]) == list(found[1][1]) == list(benchmark.COLUMNS)


def test_the_last_choice_of_a_key_counts() -> None:
    for changes in benchmark.WITHOUT.values():
        made = benchmark._last_of_each([*benchmark.OURS, *changes])
        assert len({one.split("=")[0] for one in made}) == len(made)
        assert set(changes) <= set(made)


@pytest.mark.slow
def test_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suites = {name: (*benchmark.SUITES[name][:2], 1) for name in ("a", "unseen", "noise")}
    monkeypatch.setattr(benchmark, "SUITES", suites)
    budget = Budget(
        tmp_path, 1, 24, epochs=1, reference_epochs=1, seeds=1, ablation_seeds=1, n_jobs=1
    )
    benchmark.simulate(budget)
    assert 0.0 <= benchmark.lda(budget)[0] <= 1.0
    assert benchmark.measure("ours", benchmark.OURS, 1, budget) > 0.0
    words = capsys.readouterr().out.split()
    assert words[:2] == ["ours", "1"]
    figures = np.array([float(word) for word in words[5::3]])
    # Neither 0.2 cm2/g, other feedback nor suite b is there.
    missing = [False, False, False, True, True, False, True, False, True]
    assert np.isnan(figures).tolist() == missing
