"""Which maps count as those of the training, which halos are the same, what their classes are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from encoders.checkpoint import load_checkpoint
from encoders.halos.likelihood import LEVELS, Likelihood, grid, refits
from encoders.halos.population import per_cluster, posterior
from inference.halos.ensemble import Ensemble
from inference.halos.evaluation import evaluate, figures_of
from inference.halos.plots import novelty_of
from inference.halos.sets import WIDTHS, population


@pytest.fixture
def ensemble(world: Path) -> Ensemble:
    """Return an encoder to which 0.1 of set a was held out, that of b a class, d unlabelled."""
    module: Any = load_checkpoint(world / "one/best.ckpt", "halos")
    known = {"labels": "known", "cross_sections": [0.0, 1.0], "folder": None}
    out = {"labels": "held_out", "cross_sections": [0.1], "folder": "a"}
    other = {"labels": "class", "cross_sections": [0.1], "folder": "b"}
    sets = {"a": known, "a_01": out, "other": other, "d": {"labels": "none"}}
    module.card |= {"sets": sets, "classes": ["0", "1", "other"]}
    module.card["cross_sections"] = [0.0, 1.0, None]
    return Ensemble([module], ["one"])


def rows(**columns: Any) -> Table:  # noqa: ANN401
    """Return rows of a table of predictions whose intervals hold everything up to 0.5."""
    n = len(columns["SET"])
    usual = {"CROSS_SECTION_LOW": np.full(n, 1e-3), "CROSS_SECTION": np.full(n, 0.1)}
    usual |= {"CROSS_SECTION_HIGH": np.full(n, 0.5), "ABSTAIN": np.zeros(n, bool)}
    usual |= {"OOD": np.zeros(n), "CLASS": np.full(n, "0"), "CLUSTER": np.arange(n)}
    return Table(usual | {"HALO": np.arange(n)} | columns)


def test_a_folder_is_of_the_training_for_the_cross_sections_taken(ensemble: Ensemble) -> None:
    folders = np.array(["a", "a", "a", "a", "b", "b", "d", "a_01", "c"])
    truth = np.array([0.0, 0.1, 1.0, np.nan, 0.1, 1.0, np.nan, 0.1, 0.0])
    found = ensemble.trained_sets(folders, truth)
    assert found.tolist() == ["a", "", "a", "", "other", "", "d", "", ""]
    table = rows(SET=folders, TRUE_CROSS_SECTION=truth, OOD=np.where(truth == 0.1, 2.0, 0.0))
    figures = evaluate(table, ensemble)
    assert figures["of_training"]["n_maps"] == 4
    # Of set a 0.1 and the unknown one are other maps; three of four usual ones have OOD = 0.
    assert figures["novelty"]["a"]["auroc"] == pytest.approx((0.875 + 0.375) / 2)
    assert figures["novelty"]["d"]["auroc"] is None
    picture = novelty_of(table, ensemble)
    assert picture is not None
    legend = picture.axes[0].get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert [text.split(":")[0] for text in texts] == ["a", "a_01", "b", "c"]


def test_a_set_that_is_one_class_is_of_that_class(ensemble: Ensemble) -> None:
    said = np.array(["other", "other", "1", "0"])
    truth = np.array([0.1, 0.1, 1.0, 0.1])
    table = rows(SET=np.array(["b", "b", "b", "a"]), TRUE_CROSS_SECTION=truth, CLASS=said)
    assert figures_of(table, ensemble)["accuracy"] == 1.0
    assert figures_of(table[3:], ensemble)["accuracy"] is None


def test_halos_of_two_seeds_are_two_clusters(ensemble: Ensemble) -> None:
    """Half of the intervals miss; those of CLUSTER k in one suite hold, in the other they miss."""
    truth, cluster = np.repeat([0.0, 1.0], 8), np.tile(np.arange(8), 2)
    table = rows(SET=np.repeat(["a", "c"], 8), TRUE_CROSS_SECTION=truth, CLUSTER=cluster)
    found = figures_of(table, ensemble)
    assert found["coverage"] == 0.5
    assert found["coverage_error"] == pytest.approx((0.25 / 15) ** 0.5)


def test_a_population_has_the_error_of_its_calibration(world: Path) -> None:
    """60 clusters are asked, 8 were validated, of which each scatters by 0.15."""
    module: Any = load_checkpoint(world / "one/best.ckpt", "halos")
    ensemble, rng = Ensemble([module], ["one"]), np.random.default_rng(0)
    places, halo = np.tile([0.0, 0.5, 1.0], 8), np.repeat(np.arange(8), 3)
    first = places + 0.15 * rng.normal(size=24)
    likelihood = Likelihood.fit(first, places)
    others = refits(first, places, halo)
    ensemble.judges = [replace(ensemble.judges[0], likelihood=likelihood, refits=others)]
    z, new = rng.normal(0.5, 0.15, 60), np.arange(60)
    low, middle, high = np.log10(population(Table({"Z_0": z, "HALO": new}), ensemble)[:3])
    one = posterior(per_cluster(likelihood.log(z), new), grid(), WIDTHS)
    assert ensemble.scale is not None
    ends = np.log10(ensemble.scale.inverse(one.centre(LEVELS)))
    assert high - low > 1.5 * (ends[2] - ends[0])
    assert middle == pytest.approx(ends[1], abs=0.1)
