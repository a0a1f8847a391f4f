"""File data as batches, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.fields.dummy import SIGMA, write_dummy_file_data
from datagen.fields.format import read_file_data, write_file_data
from encoders.data import LoaderOptions, make_loader
from encoders.fields.data import FieldsDataModule, FieldsDataset, index_folder

SPLITS = {"train": 0.5, "val": 0.25, "test": 0.25}


def module(folder: Path, **changes: object) -> FieldsDataModule:
    settings: dict[str, Any] = {
        "batch_size": 2,
        "num_workers": 0,
        "seed": 0,
        "splits": SPLITS,
    } | changes
    return FieldsDataModule(
        str(folder), **({"bands": None, "augment": False, "cache_gb": None} | settings)
    )


def test_batch(fields_dir: Path) -> None:
    batch = next(iter(module(fields_dir).train_dataloader()))
    assert batch["images"].shape == (2, 2, 128, 128)
    assert batch["membership"].shape == batch["weight"].shape == (2, 4, 4)
    assert batch["background"].shape == batch["sigma"].shape == (2, 2)
    assert all(batch[key].dtype == torch.float32 for key in ("images", "membership", "weight"))
    assert batch["sigma"].mean() == pytest.approx(SIGMA, rel=0.15)
    assert all(re.fullmatch(r"file_data_\d+_size_1\.pt/0", name) for name in batch["field"])
    # The labels lie where the dummy's bright squares are.
    mean = torch.nn.functional.avg_pool2d(batch["images"][:, 0], 32)
    assert torch.equal(mean > 1.5, batch["membership"] > 0)
    for key, value in (("cluster_redshift", 0.4), ("cluster_richness", 30.0)):
        assert torch.equal(batch[key], torch.tensor(value) * batch["membership"])


def test_card_describes_the_training_files(fields_dir: Path) -> None:
    data = module(fields_dir)
    card = data.card()
    assert (card["task"], card["bands"], card["cell_px"]) == ("membership", ["g", "r"], 32)
    assert (card["pixel_scale"], card["zero_point"]) == (0.263, 30.0)
    labels = [item["membership"].mean() for item in data.dataset("train")]
    assert card["prevalence"] == pytest.approx(float(torch.stack(labels).mean()))
    assert card["data_hash"] != module(fields_dir, seed=1).card()["data_hash"]
    assert all(type(value) in (str, float, int, list, dict) for value in card.values())
    assert (card["splits"], card["split_seed"]) == (SPLITS, 0)


def test_fields_to_look_at_have_the_most_members_first(fields_dir: Path) -> None:
    fields = module(fields_dir, cache_gb=4.0).images("train")
    n_members = [int(fields[number]["membership"].sum()) for number in range(len(fields))]
    assert n_members == sorted(n_members, reverse=True)
    assert n_members[0] > n_members[-1]
    assert fields[0]["images"].shape == (2, 128, 128)


def test_fields_without_a_member_are_refused(tmp_path: Path) -> None:
    for path in write_dummy_file_data(tmp_path, 12, 64, 32, ["g", "r"], seed=0):
        data = read_file_data(path)
        data[0]["tile_catalog"]["membership"].zero_()
        path.unlink()  # the tensors are mapped from the file
        write_file_data(path, data)
    with pytest.raises(ConfigError, match=r"none of the \d+ cells in .* make more fields"):
        module(tmp_path).card()


def test_bands_in_another_order(fields_dir: Path) -> None:
    plain = next(iter(module(fields_dir).val_dataloader()))
    other = next(iter(module(fields_dir, bands=["r"]).val_dataloader()))
    assert torch.equal(other["images"], plain["images"][:, 1:])
    assert torch.equal(other["sigma"], plain["sigma"][:, 1:])
    with pytest.raises(ConfigError, match=r"a choice of \['g', 'r'\].*but got bands = \['x'\]"):
        module(fields_dir, bands=["x"]).card()


def test_every_field_counts_once_on_two_processes(fields_dir: Path) -> None:
    dataset = FieldsDataset(index_folder(fields_dir)[:5], ["g"])
    seen: list[str] = []
    for rank in range(2):
        loader = make_loader(dataset, LoaderOptions(2, 0, 0, rank, 2), shuffle=False)
        assert len(loader) == 2
        for batch in loader:
            counts = batch["weight"].amax((1, 2)) > 0
            seen += [name for name, yes in zip(batch["field"], counts, strict=True) if yes]
    assert len(seen) == len(set(seen)) == 5


def test_all_splits_share_the_memory_for_maps(fields_dir: Path) -> None:
    full = module(fields_dir, cache_gb=4.0)
    sizes = {split: len(full.dataset(split)) for split in ("train", "val", "test")}
    one = full.dataset("train")[0]["sources"]
    assert full.dataset("train")[0]["sources"] is one
    n_kept = sizes["train"] + 1
    small = module(fields_dir, cache_gb=n_kept * one.nbytes / 1e9)
    is_kept = []
    for split, size in sizes.items():
        fields = small.dataset(split)
        for number in range(size):
            first = fields[number]["sources"]
            assert torch.equal(first, full.dataset(split)[number]["sources"])
            is_kept.append(fields[number]["sources"] is first)
    assert is_kept == [True] * n_kept + [False] * (sum(sizes.values()) - n_kept)


def test_workers_load_the_same(fields_dir: Path) -> None:
    here, there = (module(fields_dir, num_workers=n).train_dataloader() for n in (0, 1))
    for mine, theirs in zip(here, there, strict=True):
        assert mine["field"] == theirs["field"]
        assert torch.equal(mine["images"], theirs["images"])


def test_files_without_weights_count_everywhere(tmp_path: Path) -> None:
    change(tmp_path, lambda datum: datum["tile_catalog"].pop("cell_weight"))
    dataset = FieldsDataset(index_folder(tmp_path), ["g"])
    assert bool((dataset[0]["weight"] == 1).all())


def change(folder: Path, edit: Callable[[dict[str, Any]], object], n_files: int = 2) -> Path:
    """Write file data and edit the second one."""
    paths = write_dummy_file_data(folder, n_files, 64, 32, ["g"], seed=0)
    data = read_file_data(paths[1])
    edit(data[0])
    paths[1].unlink()  # the tensors are mapped from the file
    write_file_data(paths[1], data)
    return paths[1]


def test_missing_data_names_the_command(tmp_path: Path) -> None:
    command = f"python datagen/run.py data_gen=fields data_gen.data_dir={tmp_path}"
    with pytest.raises(DataNotFoundError, match=re.escape(command)):
        index_folder(tmp_path)
    (tmp_path / "file_data").mkdir()
    with pytest.raises(DataNotFoundError, match="but found none"):
        index_folder(tmp_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.pop("images"), "images is missing"),
        (lambda d: d["meta"].pop("bands"), r"meta\.bands is missing"),
        (
            lambda d: d["meta"].update(format_version=2),
            r"meta\.format_version = 3, but got 2; .* data_gen\.overwrite=true",
        ),
        (lambda d: d["tile_catalog"].pop("membership"), r"tile_catalog\.membership is missing"),
        (
            lambda d: d["tile_catalog"].pop("cluster_richness"),
            r"tile_catalog\.cluster_richness is missing; .* run python datagen/run\.py again",
        ),
        (
            lambda d: d.update(images=torch.zeros(3, 64, 64)),
            r"images has shape \(3, 64, 64\) for 1",
        ),
        (lambda d: d.update(images=torch.zeros(1, 96, 64)), r"membership has \(2, 2\) cells"),
        (lambda d: d["meta"].update(cell_px=16), r"membership has \(2, 2\) cells"),
    ],
)
def test_damaged_fields_name_file_and_key(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = change(tmp_path, edit)
    with pytest.raises(DataFormatError, match=f"{re.escape(str(path))}, field 0: .*{message}"):
        index_folder(tmp_path)


def test_files_of_different_data_are_refused(tmp_path: Path) -> None:
    path = change(tmp_path, lambda datum: datum["meta"].update(pixel_scale=0.5))
    with pytest.raises(DataFormatError, match=f"got pixel_scale = 0.5 in {re.escape(str(path))}"):
        index_folder(tmp_path)


def test_truncated_and_empty_files_are_named(tmp_path: Path) -> None:
    path = change(tmp_path, lambda datum: None)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataFormatError, match=re.escape(path.name)):
        index_folder(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(DataFormatError, match=f"{re.escape(str(path))} is empty"):
        index_folder(tmp_path)


def test_too_few_files_give_the_counts(tmp_path: Path) -> None:
    write_dummy_file_data(tmp_path, 1, 64, 32, ["g"], seed=0)
    with pytest.raises(ConfigError, match="expected files in every split, but the 1 files give"):
        module(tmp_path).card()
