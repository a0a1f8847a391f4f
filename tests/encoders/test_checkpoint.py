"""Checkpoints are data: loading refuses what does not fit and never runs what they carry."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datagen.errors import CheckpointError, ConfigError, DataNotFoundError
from encoders.checkpoint import (
    check_resumable,
    check_same_training,
    load_checkpoint,
    load_initial_weights,
    load_with_sha256,
)
from encoders.fields.module import MembershipModule

Options = dict[str, Any]
N_DAMAGED = 150


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.victim}",)


@pytest.fixture
def content(card: Options, options: Options) -> dict[str, Any]:
    module = MembershipModule(card, **options)
    return {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}


def saved(folder: Path, content: object) -> Path:
    path = folder / "best.ckpt"
    torch.save(content, path)
    return path


def test_it_loads_alone(tmp_path: Path, content: dict[str, Any]) -> None:
    module = load_checkpoint(saved(tmp_path, content), "membership")
    assert isinstance(module, MembershipModule)
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())
    for name, value in module.state_dict().items():
        assert torch.equal(value, content["state_dict"][name])


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"does not exist.*python train\.py model=membersh"):
        load_checkpoint(tmp_path / "best.ckpt", "membership")


@pytest.mark.parametrize("form", ["archive", "pickle", "hparams"])
def test_malicious_pickle_does_not_run(tmp_path: Path, content: dict[str, Any], form: str) -> None:
    victim, path = tmp_path / "victim", tmp_path / "best.ckpt"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Malicious(victim)))
    elif form == "archive":
        torch.save({**content, "extra": Malicious(victim)}, path)
    else:
        content["hyper_parameters"]["card"]["bands"] = Malicious(victim)
        torch.save(content, path)
    for load in (lambda: load_checkpoint(path, "membership"), lambda: check_resumable(path)):
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            load()
    assert not victim.exists()


def test_refused_objects_are_explained(tmp_path: Path, content: dict[str, Any]) -> None:
    path = saved(tmp_path, {**content, "extra": Malicious(tmp_path / "victim")})
    with pytest.raises(CheckpointError, match="objects other than tensors and plain values"):
        load_checkpoint(path, "membership")


def test_targets_in_a_checkpoint_cannot_name_commands(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    victim = tmp_path / "victim"
    content["hyper_parameters"]["network"] = {"_target_": "os.system", "command": f"touch {victim}"}
    with pytest.raises(CheckpointError, match=r"does not fit.*but got _target_ = 'os\.system'"):
        load_checkpoint(saved(tmp_path, content), "membership")
    assert not victim.exists()


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.95])
def test_truncated(tmp_path: Path, content: dict[str, Any], keep: float) -> None:
    path = saved(tmp_path, content)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(CheckpointError, match="corrupt"):
        load_checkpoint(path, "membership")


def test_foreign_archive(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(CheckpointError, match="corrupt"):
        load_checkpoint(path, "membership")


def test_other_task(tmp_path: Path, content: dict[str, Any]) -> None:
    content["hyper_parameters"]["card"]["task"] = "halos"
    with pytest.raises(
        CheckpointError,
        match=r"for task = membership, but .* task = halos, "
        "which goes with model=compact_reduced and predict=halos",
    ):
        load_checkpoint(saved(tmp_path, content), "membership")


def test_other_class(tmp_path: Path, content: dict[str, Any]) -> None:
    del content["hyper_parameters"]["card"]
    with pytest.raises(CheckpointError, match="of another class: expected a card with task, bands"):
        load_checkpoint(saved(tmp_path, content), "membership")
    with pytest.raises(CheckpointError, match="holds no encoder: expected a state_dict"):
        load_checkpoint(saved(tmp_path, [1, 2]), "membership")


@pytest.mark.parametrize("name", ["calibration", "error_scale", "network.cluster.weight"])
def test_older_versions_are_refused(tmp_path: Path, content: dict[str, Any], name: str) -> None:
    del content["state_dict"][name]
    message = rf"of another version of the membership encoder: it lacks {name}; train it again"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved(tmp_path, content), "membership")
    del content["hyper_parameters"]["loss"]["cluster_weight"]
    with pytest.raises(CheckpointError, match=r"does not fit .* 'cluster_weight'; train it again"):
        load_checkpoint(saved(tmp_path, content), "membership")


def test_weights_of_another_network(tmp_path: Path, content: dict[str, Any]) -> None:
    content["hyper_parameters"]["network"]["width"] = 8
    with pytest.raises(
        CheckpointError, match=r"does not fit the membership encoder for \['g', 'r'"
    ):
        load_checkpoint(saved(tmp_path, content), "membership")


@pytest.mark.parametrize(
    "change",
    [
        {"network": None},
        {"network": "encoders.fields.network.MembershipNetwork"},
        {"network": {"_target_": "torch.nn.Identity"}},
        {"network": {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}},
        {"loss": None},
        {
            "loss": {
                "pos_weight": "1",
                "focal_gamma": 0.0,
                "redshift_weight": 0.0,
                "cluster_weight": 0.0,
            }
        },
        {"optimizer": 3, "more": 4},
        {"card": {"bands": []}},
        {"card": {"bands": "gr"}},
        {"card": {"pixel_scale": "0.263"}},
        {"card": {"pixel_scale": 0}},
        {"card": {"zero_point": float("nan")}},
        {"card": {"cell_px": 32.5}},
        {"card": {"prevalence": [0.2]}},
    ],
    ids=str,
)
def test_foreign_values_take_one_line(
    tmp_path: Path, content: dict[str, Any], change: dict[str, Any]
) -> None:
    hparams = content["hyper_parameters"]
    change = change | ({"card": {**hparams["card"], **change["card"]}} if "card" in change else {})
    path = saved(tmp_path, {**content, "hyper_parameters": {**hparams, **change}})
    with pytest.raises(CheckpointError, match=re.escape(str(path))) as caught:
        load_checkpoint(path, "membership")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_of_a_diverged_training(
    tmp_path: Path, content: dict[str, Any], value: float
) -> None:
    name = next(key for key in content["state_dict"] if key.startswith("network."))
    content["state_dict"][name][0, 0, 0, 0] = value
    with pytest.raises(CheckpointError, match=rf"diverged: {re.escape(name)} is not finite; .*lr"):
        load_checkpoint(saved(tmp_path, content), "membership")


def refusal(load: Callable[[], object]) -> str:
    """What a `CheckpointError` says; nothing if there is none."""
    try:
        load()
    except CheckpointError as error:
        return str(error)
    return ""


def test_damaged_bytes_take_one_line(tmp_path: Path, content: dict[str, Any]) -> None:
    """Some damage changes a value without harm; all else is a `CheckpointError`."""
    with zipfile.ZipFile(saved(tmp_path, {**content, "optimizer_states": []})) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in entries if name.endswith("data.pkl"))
    rng = np.random.default_rng(0)
    path, n_refused = tmp_path / "damaged.ckpt", 0
    for _ in range(N_DAMAGED):
        data = bytearray(entries[pickled])
        for place in rng.integers(len(data), size=rng.integers(1, 6)):
            data[place] = rng.integers(256)
        with zipfile.ZipFile(path, "w") as archive:
            for name, entry in (entries | {pickled: bytes(data)}).items():
                archive.writestr(name, entry)
        for load in (lambda: load_checkpoint(path, "membership"), lambda: check_resumable(path)):
            said = refusal(load)
            assert "\n" not in said
            n_refused += bool(said)
    assert n_refused > N_DAMAGED


def test_only_the_same_training_is_resumed(card: Options, options: Options) -> None:
    path = Path("last.ckpt")
    now = {"card": {**card, "splits": {"train": 1.0}, "split_seed": 1}, **options}
    check_same_training(path, now, now)
    prevalence = {**now, "card": {**now["card"], "prevalence": 0.1}}
    check_same_training(path, prevalence, {**now, "optimizer": {"lr": 1.0}})
    for key, value in (("data_hash", "f"), ("zero_point", 25.0), ("cell_px", 64)):
        other = {**now, "card": {**now["card"], key: value}}
        with pytest.raises(CheckpointError, match=f"expected {key}.* = {value}, with which last"):
            check_same_training(path, other, now)
    for foreign in ({}, {"card": None, "network": "a"}):
        with pytest.raises(CheckpointError, match=r"expected data\.bands = None"):
            check_same_training(path, foreign, now)


def test_resuming_needs_the_state_of_a_training(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="holds no state of a training"):
        check_resumable(saved(tmp_path, content))
    with pytest.raises(DataNotFoundError, match=r"expected ckpt_path .*last\.ckpt"):
        check_resumable(tmp_path / "none.ckpt")


def test_a_training_that_has_reached_its_end_is_not_resumed(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    path = saved(tmp_path, {**content, "optimizer_states": [], "global_step": 20, "epoch": 4})
    check_resumable(path, {"max_steps": 21, "max_epochs": -1})
    with pytest.raises(ConfigError, match=r"trainer.max_steps > 20 .* but got max_steps = 20"):
        check_resumable(path, {"max_steps": 20, "max_epochs": None})
    with pytest.raises(ConfigError, match=r"trainer.max_epochs > 5 .* but got max_epochs = 3"):
        check_resumable(path, {"max_steps": -1, "max_epochs": 3})


def test_encoder_and_sha256_come_from_the_same_bytes(
    tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that publishes a better checkpoint meanwhile changes neither."""
    path = saved(tmp_path, content)
    before = path.read_bytes()
    read_bytes = Path.read_bytes

    def read_and_replace(self: Path) -> bytes:
        data = read_bytes(self)
        self.write_bytes(b"something else")
        return data

    monkeypatch.setattr(Path, "read_bytes", read_and_replace)
    module, sha256 = load_with_sha256(path, "membership")
    assert sha256 == hashlib.sha256(before).hexdigest()
    for name, value in module.state_dict().items():
        assert torch.equal(value, content["state_dict"][name])


def hash_of(seed: int, splits: Mapping[str, float]) -> str:
    """Stands for a folder of other data."""
    return f"{seed} {splits}"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("bands", ["r", "g"], r"data with bands = \['g', 'r'\], .* got bands = \['r', 'g'\]; make"),
        ("cell_px", 64, "data with cell_px = 32, .* but got cell_px = 64"),
        ("pixel_scale", 0.27, "data with pixel_scale = 0.263, .* got pixel_scale = 0.27"),
        ("zero_point", 25.0, "data with zero_point = 30.0, .* got zero_point = 25.0"),
        ("pixel_scale", 0.2623, None),
        ("prevalence", 0.4, None),
    ],
)
def test_weights_begin_a_training_on_data_of_the_same_kind(
    tmp_path: Path,
    content: dict[str, Any],
    card: Options,
    options: Options,
    key: str,
    value: object,
    message: str | None,
) -> None:
    path = saved(tmp_path, content)
    model = MembershipModule(card=card | {key: value}, **options)
    if message is not None:
        with pytest.raises(CheckpointError, match=message):
            load_initial_weights(path, model, hash_of)
        return
    load_initial_weights(path, model, hash_of)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, content["state_dict"][name])
        assert weight.requires_grad is False
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.hparams["card"][key] == value


def test_weights_of_another_network_begin_nothing(
    tmp_path: Path, content: dict[str, Any], card: Options, options: Options
) -> None:
    wider = options | {"network": options["network"] | {"width": 8}}
    with pytest.raises(
        CheckpointError, match=r"does not fit the network .*: size mismatch for net"
    ):
        load_initial_weights(
            saved(tmp_path, content), MembershipModule(card=card, **wider), hash_of
        )
    with pytest.raises(DataNotFoundError, match="expected init_from to be a checkpoint, but none"):
        load_initial_weights(Path("none.ckpt"), MembershipModule(card=card, **options), hash_of)


def test_initial_weights_are_whole_and_of_the_same_weight_of_positives(
    tmp_path: Path, content: dict[str, Any], card: Options, options: Options
) -> None:
    path = saved(tmp_path, content)
    heavier = options | {"loss": options["loss"] | {"pos_weight": 4.0}}
    with pytest.raises(
        CheckpointError, match=r"expected model\.loss\.pos_weight = 1\.0, .* = 4\.0"
    ):
        load_initial_weights(path, MembershipModule(card=card, **heavier), hash_of)
    del content["state_dict"]["calibration"]
    path = saved(tmp_path, content)
    with pytest.raises(CheckpointError, match=r"of another version .* lacks calibration"):
        load_initial_weights(path, MembershipModule(card=card, **options), hash_of)


def test_initial_weights_keep_the_splits_of_their_files(
    tmp_path: Path,
    content: dict[str, Any],
    card: Options,
    options: Options,
    caplog: pytest.LogCaptureFixture,
) -> None:
    splits = {"train": 0.8, "val": 0.1, "test": 0.1}
    old = card | {"splits": splits, "split_seed": 1, "data_hash": hash_of(1, splits)}
    content["hyper_parameters"]["card"] = old
    path = saved(tmp_path, content)

    def begin(now: Options, hashes: Callable[[int, Mapping[str, float]], str] = hash_of) -> None:
        load_initial_weights(path, MembershipModule(card=now, **options), hashes)

    begin(old)
    for change in ({"split_seed": 2}, {"splits": {"train": 0.7, "val": 0.2, "test": 0.1}}):
        with pytest.raises(CheckpointError, match=r"expected data\.seed = 1, .* on the same files"):
            begin(old | change)
    assert not caplog.records
    begin(old | {"split_seed": 2}, lambda seed, splits: "others")
    assert "data.seed = 1" in caplog.text
    assert "data.seed = 2" in caplog.text
