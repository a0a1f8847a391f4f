"""Figures against direct formulas, torchmetrics and two processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics import Metric, MetricCollection
from torchmetrics.functional.retrieval import retrieval_precision

from encoders.galaxies import neighbours
from encoders.galaxies.collapse import Collapse, DimensionStd, RankMe
from encoders.galaxies.metrics import Alignment, RetrievalPrecision, Uniformity
from encoders.galaxies.probes import KNNProbe, RidgeProbe
from tests.two_processes import in_two_processes

N, D = 60, 5


def stamps() -> dict[str, Tensor]:
    """Three projections of each of twenty objects, and what is known of them."""
    generator = torch.Generator().manual_seed(8)
    objects = torch.arange(N) // 3
    x = torch.randn(N // 3, D, generator=generator)[objects]
    x = x + 0.6 * torch.randn(N, D, generator=generator) + 1.0
    labels = torch.stack(
        (x[:, 0] - 2.0 * x[:, 1], x[:, 2].square(), (x[:, 0] > 1.0).float()), dim=1
    )
    labels[::7, 1] = torch.nan
    order = torch.randperm(N, generator=generator)
    found = {"embeddings": x, "objects": objects, "index": torch.arange(N), "labels": labels}
    return {name: values[order] for name, values in found.items()}


def collection() -> MetricCollection:
    fields = ["log_mass", "r_eff", "is_quenched"]
    metrics: list[Metric] = [
        KNNProbe(fields, ["is_quenched"], 4),
        RidgeProbe(fields, D, 0.5, 2),
        RankMe(D),
        Collapse(D),
        DimensionStd(D),
        RetrievalPrecision(2),
        Uniformity(),
    ]
    return MetricCollection(metrics)


def figures(rows: slice) -> dict[str, Tensor]:
    """All figures of some stamps, in batches of seven."""
    metrics, alignment, given = collection(), Alignment(), stamps()
    places = torch.arange(N)[rows]
    for part in places.split(7):
        batch = {name: values[part] for name, values in given.items()}
        metrics.update(**batch)
        alignment.update(batch["embeddings"], batch["embeddings"].flip(1))
    found: dict[str, Tensor] = metrics.compute()
    return found | {"alignment": alignment.compute()}


def every_other(rank: int) -> dict[str, Tensor]:
    return figures(slice(rank, None, 2))


def test_figures_are_the_same_in_two_processes(tmp_path: Path) -> None:
    expected = figures(slice(None))
    assert len(expected) == 16
    assert all(values.isfinite().all() for values in expected.values())
    for found in in_two_processes(every_other, tmp_path):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_metrics_share_what_they_keep() -> None:
    metrics = collection()
    metrics.update(**stamps())
    groups = {frozenset(names) for names in metrics.compute_groups.values()}
    assert frozenset({"RetrievalPrecision", "Uniformity"}) in groups
    assert frozenset({"Collapse", "DimensionStd"}) in groups


def test_rank_is_that_of_singular_values() -> None:
    x = stamps()["embeddings"]
    singular = torch.linalg.svdvals(x.double())
    p = singular / singular.sum() + 1e-7
    metric = RankMe(D)
    metric.update(x)
    assert metric.compute().item() == pytest.approx(float((-(p * p.log()).sum()).exp()), rel=1e-6)
    # Rows of one direction only, and of all directions alike.
    for rows, expected in ((torch.ones(9, D), 1.0), (torch.eye(D).repeat(4, 1), D)):
        metric.reset()
        metric.update(rows)
        assert metric.compute().item() == pytest.approx(expected, rel=1e-4)


def test_spread_and_cosines_are_those_of_rows_of_length_one() -> None:
    x = stamps()["embeddings"]
    unit = normalize(x.double(), dim=1)
    deviations, collapse = DimensionStd(D), Collapse(D)
    deviations.update(x)
    collapse.update(x)
    std = unit.std(dim=0, correction=0)
    torch.testing.assert_close(deviations.compute(), (D**0.5 * std).float())
    found = collapse.compute()
    cosines = (unit @ unit.T)[~torch.eye(N, dtype=torch.bool)]
    assert found["std"].item() == pytest.approx(std.mean().item(), rel=1e-6)
    assert found["cosine"].item() == pytest.approx(cosines.mean().item(), rel=1e-6)
    assert found["is_collapsed"] == 0


def test_the_alarm_asks_for_three_signs() -> None:
    generator = torch.Generator().manual_seed(1)
    common = normalize(torch.randn(64, generator=generator), dim=0)
    noise = torch.randn(500, 64, generator=generator) / 8.0
    plane = torch.randn(500, 2, generator=generator) @ torch.randn(2, 64, generator=generator)
    rows = {
        "collapsed": common + 0.01 * plane / 8.0,
        "healthy": noise,
        # As an untrained network: alike, but with faint differences in all directions.
        "alike, of high rank": common + 0.09 * noise,
        # As a network that has found two numbers: of low rank, but different.
        "of low rank, different": plane,
    }
    alarms = {}
    for name, x in rows.items():
        metric = Collapse(64)
        metric.update(x)
        alarms[name] = bool(metric.compute()["is_collapsed"])
    assert alarms == {name: name == "collapsed" for name in rows}


def test_sums_keep_double_precision() -> None:
    """Of many faint differences on a bright level, as single precision would lose them."""
    rows = 100.0 + 1e-3 * torch.randn(4000, 3, generator=torch.Generator().manual_seed(2))
    metric = RankMe(3)
    for part in rows.split(100):
        metric.update(part)
    x = rows.double()
    torch.testing.assert_close(metric.totals()[0][:3, :3], x.T @ x, rtol=1e-13, atol=0.0)
    assert metric.sums.dtype == torch.float32


def test_alignment_and_uniformity_are_those_of_the_paper() -> None:
    x, y = stamps()["embeddings"], stamps()["embeddings"].roll(1, 1)
    alignment, uniformity = Alignment(), Uniformity()
    for part in torch.arange(N).split(13):
        alignment.update(x[part], y[part])
        uniformity.update(x[part], stamps()["objects"][part], stamps()["index"][part])
    expected = (normalize(x, dim=1) - normalize(y, dim=1)).norm(dim=1).pow(2).mean()
    assert alignment.compute().item() == pytest.approx(expected.item(), rel=1e-6)
    expected = torch.pdist(normalize(x.double(), dim=1)).pow(2).mul(-2).exp().mean().log()
    assert uniformity.compute().item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_retrieval_counts_projections_among_the_nearest(k: int) -> None:
    given = stamps()
    # Objects 0 and 1 lose their siblings, object 2 one of them.
    kept = ~torch.isin(given["index"], torch.tensor([0, 2, 4, 5, 8]))
    x, objects = given["embeddings"][kept], given["objects"][kept]
    metric = RetrievalPrecision(k)
    for part in torch.arange(len(x)).split(9):
        metric.update(x[part], objects[part], given["index"][kept][part])
    unit, precisions = normalize(x, dim=1), []
    for i in range(len(x)):
        others = torch.arange(len(x)) != i
        is_sibling = objects[others] == objects[i]
        if is_sibling.any():
            found = retrieval_precision(unit[others] @ unit[i], is_sibling, top_k=k)
            precisions.append(float(found) * k / min(k, int(is_sibling.sum())))
    assert len(precisions) == len(x) - 2
    assert metric.compute().item() == pytest.approx(sum(precisions) / len(precisions), rel=1e-6)


def test_each_stamp_counts_once() -> None:
    given = {name: values for name, values in stamps().items() if name != "labels"}
    once, twice = Uniformity(), Uniformity()
    once.update(**given)
    twice.update(**given)
    twice.update(**{name: values[:5] for name, values in given.items()})
    assert once.compute() == twice.compute()


def test_rows_come_by_rising_index() -> None:
    given, metric = stamps(), KNNProbe(["log_mass", "r_eff", "is_quenched"], [], 4)
    metric.update(**given)
    order, rows = given["index"].argsort(), metric.rows()
    torch.testing.assert_close(rows.index, torch.arange(N))
    torch.testing.assert_close(rows.objects, given["objects"][order])
    torch.testing.assert_close(rows.embeddings.float(), given["embeddings"][order])
    torch.testing.assert_close(rows.labels.float(), given["labels"][order], equal_nan=True)


def test_a_single_stamp_has_no_figures() -> None:
    for metric in (Uniformity(), RetrievalPrecision(3)):
        metric.update(torch.ones(1, D), torch.zeros(1).long(), torch.zeros(1).long())
        assert metric.compute().isnan()


def test_a_network_that_has_diverged_has_no_figures() -> None:
    metrics, given = collection(), stamps()
    given["embeddings"][3] = torch.nan
    metrics.update(**given)
    found = metrics.compute()
    assert found["RankMe"].isnan()
    assert found["Uniformity"].isnan()
    assert found["is_collapsed"] == 0
    assert all(found[f"ridge_r2_{name}"].isnan() for name in ("log_mass", "is_quenched"))


def test_search_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, objects = stamps()["embeddings"].double(), stamps()["objects"]
    expected = neighbours.nearest(x, objects, x[:40], objects[:40], 6)
    assert [len(torch.arange(N)[part]) for part in neighbours.pieces(N, 40, 1000)] == [25, 25, 10]
    parts = list(neighbours.pieces(N, 40, 1000))
    monkeypatch.setattr(neighbours, "pieces", lambda n, m: parts)
    found = neighbours.nearest(x, objects, x[:40], objects[:40], 6)
    torch.testing.assert_close(found, expected)
    assert not (objects[:40][expected[0]] == objects[:, None]).any()
