"""What a contrastive training writes, with a stand-in for the training."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from astropy.table import Table
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from datagen.errors import ConfigError
from encoders import pictures as shared
from encoders.galaxies import reports
from encoders.galaxies.draws import About
from encoders.galaxies.metrics import Rows
from encoders.galaxies.reports import GalaxyReports
from encoders.galaxies.views import Views

BANDS, SIDE, TRAIN_PX, N = ["g", "r"], 10, 8, 12
OPTIONS = {"n_sprites": 6, "n_queries": 3, "n_neighbours": 2}
VIEWS: dict[str, Any] = {
    "stretch": {"softening": 0.01},
    "geometry": {"turns": True, "flips": True, "jitter": 1.0, "size": [1.0, 1.0], "order": 1,
                 "hides": []},
    **dict.fromkeys(("exposure", "redshifting", "blur", "reddening", "noise")),
}  # fmt: skip


class Stamps:
    """Three projections of each of four objects; the place of a stamp is 11 - index / 10."""

    def read(self, places: Any) -> Tensor:  # noqa: ANN401
        levels = 0.001 * torch.from_numpy(np.asarray(places)).float()[:, None, None, None]
        return levels.expand(-1, len(BANDS), SIDE, SIDE)

    def places_of(self, index: Any) -> Any:  # noqa: ANN401
        return 11 - index // 10

    def names(self, places: Any) -> list[str]:  # noqa: ANN401
        return [f"{'ab'[place % 2]}/84/{place // 3}/{place % 3}" for place in places.tolist()]

    def about(self, places: Any) -> About:  # noqa: ANN401
        one = torch.ones(len(places))
        return About(one, one[:, None].expand(-1, len(BANDS)), one, one)


def collected() -> Rows:
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(N, 4, generator=generator).double()
    labels = torch.randn(N, 2, generator=generator).double()
    labels[3, 1] = torch.nan
    index = 10 * torch.arange(N)
    return Rows(index, (11 - index // 10) // 3, embeddings, labels)


def trained(folder: Path) -> tuple[Any, Any]:
    """A trainer after its first validation, and its module."""
    card = {
        "model": "simclr", "suites": ["a", "b"], "bands": BANDS, "train_px": TRAIN_PX,
        "pixel_scale": 0.3, "unit": "nanomaggy", "zero_point": 22.5, "softening": 0.01,
        "data_hash": "abc", "labels": {"z": {"unit": ""}, "sfr": {"unit": "Msun / yr"}},
    }  # fmt: skip
    module = SimpleNamespace(
        card=card,
        device=torch.device("cpu"),
        hparams={"network": {"width": 2}, "objective": {"temperature": 0.2}},
        views=Views(BANDS, SIDE, TRAIN_PX, 2, 1, **VIEWS),
        validated=collected(),
        tested=collected(),
    )
    figures = {"train/loss": 9.0, "train/epoch_loss": 2.0, "val/loss": 1.5, "val/knn_r2": 0.5,
               "test/knn_r2": 0.25, "test/rank_me": float("nan")}  # fmt: skip
    trainer = SimpleNamespace(
        default_root_dir=str(folder),
        datamodule=SimpleNamespace(dataset=lambda split: Stamps()),
        callback_metrics={name: torch.tensor(value) for name, value in figures.items()},
        is_global_zero=True,
        sanity_checking=False,
        state=SimpleNamespace(fn="fit"),
        fit_loop=SimpleNamespace(batch_idx=4),
        num_training_batches=5,
        current_epoch=0,
        global_step=5,
        loggers=[TensorBoardLogger(str(folder), name="", version="tensorboard")],
    )
    return trainer, module


def test_a_validation_is_shown_in_tensorboard(tmp_path: Path) -> None:
    trainer, module = trained(tmp_path)
    callback = GalaxyReports("results", 2, draws=True, **OPTIONS)
    callback.on_validation_end(trainer, module)
    # The second of two is not drawn: it would not find its stamps.
    module.validated = None
    callback.on_validation_end(trainer, module)
    trainer.loggers[0].experiment.flush()
    folder = tmp_path / "tensorboard"
    tags = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload().Tags()["images"]
    assert sorted(tags) == ["val/neighbours", "val/pca", "val/views"]
    history = Table.read(tmp_path / "results/history.ecsv", format="ascii.ecsv")
    assert history.colnames == ["epoch", "train/epoch_loss", "val/loss", "val/knn_r2"]
    assert history["val/loss"].tolist() == [1.5, 1.5]
    lines = [line.split("\t") for line in (folder / "stamps/metadata.tsv").read_text().splitlines()]
    assert lines[0] == ["name", "suite", "z", "sfr [Msun / yr]"]
    # Every other one or so, with the names and labels of these stamps.
    rows = collected()
    chosen = [0, 2, 4, 7, 9, 11]
    places = [11 - row for row in chosen]
    assert [line[0] for line in lines[1:]] == Stamps().names(np.array(places))
    found = [float(line[2]) for line in lines[1:]]
    np.testing.assert_allclose(found, rows.labels[chosen, 0], rtol=1e-6)


def test_results_of_a_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, module = trained(tmp_path)
    callback = GalaxyReports("results", 1, draws=True, **OPTIONS)
    row = {"epoch": 1.0, "train/epoch_loss": 2.0, "val/loss": 1.5}
    callback.history = [row | {"val/knn_r2": 0.5, "val/knn_r2_z": 0.4}]
    drawn: list[Any] = []
    draw = shared.draw_history
    monkeypatch.setattr(shared, "draw_history", lambda *args: drawn.append(args) or draw(*args))
    callback.on_fit_end(trainer, module)
    assert drawn == [([1.0], {"loss": {"train": [2.0], "val": [1.5]}, "knn_r2": {"val": [0.5]}})]
    callback.on_test_end(trainer, module)
    folder = tmp_path / "results"
    names = {"embeddings.npz", "history.png", "neighbours.png", "pca.png", "test.json", "views.png"}
    assert {path.name for path in folder.iterdir()} == names
    found = json.loads((folder / "test.json").read_text())
    assert found["knn_r2"] == 0.25
    assert found["rank_me"] is None
    assert (found["n_stamps"], found["n_objects"]) == (12, 4)
    assert (found["model"], found["objective"]) == ("simclr", {"temperature": 0.2})
    with np.load(folder / "embeddings.npz", allow_pickle=False) as arrays:
        rows = collected()
        for name in ("index", "embeddings", "labels"):
            np.testing.assert_allclose(arrays[name], getattr(rows, name), rtol=1e-6)
        assert arrays["object"].tolist() == rows.objects.tolist()
        assert arrays["label_names"].tolist() == ["z", "sfr"]
        assert arrays["suite"].tolist() == ["b", "a"] * 6
        assert arrays["name"][0] == "b/84/3/2"


def test_neighbours_are_the_nearest_of_other_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, module = trained(tmp_path)
    drawn: list[Any] = []
    monkeypatch.setattr(reports.pictures, "draw_strips", lambda *args: drawn.append(args))
    GalaxyReports("results", 1, draws=True, **OPTIONS).draw_validation(trainer, module)
    ((queries, neighbours, distances, titles),) = drawn
    rows = collected()
    x = (rows.embeddings - rows.embeddings.mean(0)) / rows.embeddings.std(0, correction=0)
    chosen = [0, 6, 9]  # first stamps of three of the four objects
    assert titles == Stamps().names(11 - np.array(chosen))
    for number, query in enumerate(chosen):
        apart = (x - x[query]).norm(dim=1)
        apart[rows.objects == rows.objects[query]] = torch.inf
        order = apart.argsort()[:2]
        np.testing.assert_allclose(distances[number], apart[order])
        # The colour of a stamp tells its place.
        places = torch.tensor([11 - query, *(11 - order).tolist()])
        seen = np.stack((queries[number], *neighbours[number]))
        plain = module.views.plain(Stamps().read(places)).numpy()
        np.testing.assert_allclose(seen, reports.pictures.rgb(plain, BANDS))


def test_a_network_that_has_diverged_is_not_drawn(tmp_path: Path) -> None:
    trainer, module = trained(tmp_path)
    module.validated.embeddings[1:] = torch.nan
    callback = GalaxyReports("results", 1, draws=True, **OPTIONS)
    # A single stamp has no neighbours, but no error either.
    assert set(callback.draw_validation(trainer, module)) == {"neighbours", "pca", "views"}
    module.validated.embeddings[0] = torch.inf
    assert callback.draw_validation(trainer, module) == {}
    callback.on_validation_end(trainer, module)
    assert not list(tmp_path.rglob("stamps"))


def test_tables_alone(tmp_path: Path) -> None:
    trainer, module = trained(tmp_path)
    callback = GalaxyReports("results", 1, draws=False, **OPTIONS)
    callback.on_validation_end(trainer, module)
    callback.on_fit_end(trainer, module)
    callback.on_test_end(trainer, module)
    names = {"embeddings.npz", "history.ecsv", "test.json"}
    assert {path.name for path in (tmp_path / "results").iterdir()} == names


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [("n_sprites", 65537, "0 <= n_sprites <= 65536"), ("n_queries", 0, "1 <= n_queries"),
     ("n_neighbours", -1, "1 <= n_neighbours")],
)  # fmt: skip
def test_numbers_out_of_range(name: str, value: int, allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"{allowed}.*{name} = {value}"):
        GalaxyReports("results", 1, draws=True, **OPTIONS | {name: value})
