"""Prepared stamps as batches."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.stamps import format as stamps
from encoders.galaxies.data import GalaxiesDataModule, GalaxiesDataset, about
from tests.galaxy_stamps import BANDS, SIDE, SIGMA, Compose, prepare, write_suite

Options = dict[str, Any]


def test_batches_hold_what_files_hold(data_options: Options) -> None:
    data = GalaxiesDataModule(
        **data_options,
    )
    assert (data.stamps.suites, data.stamps.bands) == (["a", "b"], list(BANDS))
    for in_memory in (False, True):
        dataset = GalaxiesDataModule(**data_options | {"in_memory": in_memory}).dataset("val")
        batch = dataset.with_stamps(dataset.__getitems__([3, 0, -1]))
        assert batch["weight"].tolist() == [1.0, 1.0, 0.0]
        for k, place in enumerate((3, 0)):
            row = data.stamps.table[int(dataset.numbers[place])]
            folder = Path(data_options["stamps_dir"]) / str(row["SUITE"])
            path = stamps.stamps_path(folder, int(row["FILE_NUMBER"]))
            truth = stamps.read_table(stamps.truth_of(path))[int(row["ROW"])]
            assert (truth["OBJECT"], truth["PROJECTION"]) == (row["OBJECT"], row["PROJECTION"])
            assert torch.equal(
                batch["stamps"][k], torch.tensor(stamps.read_stamps(path)[int(row["ROW"])])
            )
            labels = dict(zip(data.stamps.labels, batch["labels"][k].tolist(), strict=True))
            assert labels["colour"] == pytest.approx(truth["colour"])
        known = about(batch)
        assert known.sigma.shape == (3, 3)
        assert torch.equal(known.sigma, torch.full((3, 3), SIGMA))
        assert torch.equal(known.fwhm, torch.full((3,), 0.7))


def test_splits_are_those_of_the_preparation(data_options: Options) -> None:
    data = GalaxiesDataModule(**data_options)
    table, objects = data.stamps.table, data.stamps.objects
    seen: set[int] = set()
    for split in ("train", "val", "test"):
        numbers = data.dataset(split).numbers
        assert set(table["SPLIT"][numbers]) == {split}
        mine = set(objects[numbers].tolist())
        assert mine
        assert not mine & seen
        seen |= mine
    assert len(seen) == 40


def test_numbers_of_stamps_do_not_depend_on_others(data_options: Options) -> None:
    both = GalaxiesDataModule(**data_options).stamps
    alone = GalaxiesDataModule(**data_options | {"suites": ["a"]}).stamps
    is_a = np.asarray(both.table["SUITE"], str) == "a"
    assert both.index[is_a].tolist() == alone.index.tolist()
    assert len(set(both.index.tolist())) == len(both)


def test_fewer_training_stamps_are_among_more(data_options: Options) -> None:
    chosen = [GalaxiesDataModule(**data_options | {"n_train": n}) for n in (8, 16, 16)]
    few, more, again = (set(d.dataset("train").numbers.tolist()) for d in chosen)
    assert (len(few), len(more)) == (8, 16)
    assert few < more
    assert more == again
    other = GalaxiesDataModule(**data_options | {"n_train": 16, "seed": 2})
    assert more != set(other.dataset("train").numbers.tolist())


def test_validation_mixes_suites_and_can_be_limited(data_options: Options) -> None:
    data = GalaxiesDataModule(**data_options)
    order = data.stamps.suite[data.dataset("val").numbers].tolist()
    assert set(order) == {"a", "b"}
    assert order != sorted(order)
    few = GalaxiesDataModule(**data_options | {"n_val": 4, "n_test": 3})
    assert few.dataset("val").numbers.tolist() == data.dataset("val").numbers[:4].tolist()
    assert len(few.dataset("test")) == 3


def test_the_widest_psf_of_the_bands_counts(data_options: Options, tmp_path: Path) -> None:
    data = GalaxiesDataModule(**data_options)
    n = len(data.stamps)
    table = data.stamps.table.copy()
    table["FWHM_G"], table["FWHM_R"] = np.full(n, 1.3), np.where(np.arange(n) == 0, np.nan, 0.9)
    for bands, expected in ((["r"], 0.9), (["g", "r"], 1.3), (["i"], np.nan)):
        stamps = dataclasses.replace(data.stamps, table=table, bands=bands)
        np.testing.assert_allclose(stamps.fwhm[1:], expected, rtol=1e-6)
    assert dataclasses.replace(data.stamps, table=table, bands=["g", "r"]).fwhm[0] == np.float32(
        1.3
    )
    dataset = GalaxiesDataset(stamps, data.stamps.numbers("train"), in_memory=False)
    assert dataset.unknown() == {s: {"fwhm": 1.0, "sigma": 0.0} for s in ("a", "b")}


def test_bands_can_be_chosen(data_options: Options) -> None:
    whole, part = (
        GalaxiesDataModule(**data_options | {"bands": bands}).dataset("val")
        for bands in (None, ["i", "g"])
    )
    a, b = (dataset.read(np.arange(4)) for dataset in (whole, part))
    assert torch.equal(a[:, [2, 0]], b)


def test_card_and_hash(data_options: Options) -> None:
    data = GalaxiesDataModule(**data_options)
    card = data.card()
    assert (card["side"], card["train_px"], card["unit"]) == (SIDE, 12, "nanomaggy")
    assert card["softening"] == pytest.approx(2 * SIGMA)
    assert set(card["labels"]) == {"redshift", "width", "colour", "is_red"}
    assert card["data_hash"] == data.data_hash(card["split_seed"], card["splits"])
    assert card["data_hash"] != data.data_hash(card["split_seed"] + 1, card["splits"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suites": ["x"]}, r"suites that were prepared \(a, b\), but got suites = \['x'\]"),
        ({"bands": ["g", "z"]}, r"bands of suite a, which has g, r, i, but got bands = \['g', 'z'"),
        ({"labels": ["age"]}, r"fields of the stamps \(.*redshift.*\), but got age"),
        ({"n_train": 1000}, r"expected data\.n_train <= \d+, the number of training stamps"),
        ({"n_train": 0}, r"expected data\.n_train >= 1 or null"),
        ({"train_px": 21}, r"expected data\.train_px <= 20, the side of the stamps"),
        ({"batch_size": 500}, r"expected at least 500 training stamps"),
    ],
)
def test_wrong_settings(data_options: Options, change: Options, message: str) -> None:
    def opened() -> None:
        data = GalaxiesDataModule(**data_options | change)
        data.card()
        data.train_dataloader()

    with pytest.raises(ConfigError, match=message):
        opened()


def test_missing_and_changed_files(
    data_options: Options, galaxies_dir: Path, composed: Compose, tmp_path: Path
) -> None:
    gone = data_options | {"data_dir": str(tmp_path)}
    with pytest.raises(DataNotFoundError, match="data_gen=prepared"):
        GalaxiesDataModule(**gone).card()
    shutil.copytree(galaxies_dir / "stamps", tmp_path / "stamps")
    prepare(tmp_path, composed)
    moved = data_options | {"data_dir": str(tmp_path / "prepared"),
                            "stamps_dir": str(tmp_path / "stamps")}  # fmt: skip
    assert GalaxiesDataModule(**moved).card()["n_train"] > 0
    shutil.rmtree(tmp_path / "stamps" / "a")
    write_suite(tmp_path / "stamps" / "a", 30, CONFHASH="4567")
    with pytest.raises(DataFormatError, match=r"suite a have changed since .* run again"):
        GalaxiesDataModule(**moved).card()
    shutil.rmtree(tmp_path / "stamps" / "a")
    write_suite(tmp_path / "stamps" / "a", 30, first=1)
    with pytest.raises(DataFormatError, match=r"suite a have changed since .* run again"):
        GalaxiesDataModule(**moved).card()


def test_pixels_that_are_not_finite(
    data_options: Options, galaxies_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(galaxies_dir / "stamps", tmp_path / "stamps")
    path = stamps.stamps_path(tmp_path / "stamps" / "a", 0)
    pixels = np.array(stamps.read_stamps(path))
    pixels[:, 1, 3, 4] = np.nan
    stamps.write_stamps(path, pixels)
    data = GalaxiesDataModule(**data_options | {"stamps_dir": str(tmp_path / "stamps")})
    with pytest.raises(DataFormatError, match=r"stamp a/84/\d+/\d has NaN"):
        data.dataset("train").read(np.arange(len(data.dataset("train"))))


def test_a_composed_configuration_has_all_arguments(compose_galaxies: Compose) -> None:
    cfg: DictConfig = compose_galaxies()
    assert cfg.data["_target_"] == "encoders.galaxies.data.GalaxiesDataModule"
    assert set(cfg.data) - {"_target_"} == set(GalaxiesDataModule.__init__.__annotations__) - {
        "return"
    }
