"""Checkpoints are data: loading refuses what does not fit and never runs what they carry."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from datagen.errors import CheckpointError, DataNotFoundError
from encoders.checkpoint import check_resumable, load_checkpoint, load_with_sha256
from encoders.fields.module import MembershipModule

Options = dict[str, Any]


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
    with pytest.raises(CheckpointError, match=r"for task = membership, but .* task = halos"):
        load_checkpoint(saved(tmp_path, content), "membership")


def test_other_class(tmp_path: Path, content: dict[str, Any]) -> None:
    del content["hyper_parameters"]["card"]
    with pytest.raises(CheckpointError, match="of another class: expected a card with task, bands"):
        load_checkpoint(saved(tmp_path, content), "membership")
    with pytest.raises(CheckpointError, match="holds no encoder: expected a state_dict"):
        load_checkpoint(saved(tmp_path, [1, 2]), "membership")


def test_weights_of_another_network(tmp_path: Path, content: dict[str, Any]) -> None:
    content["hyper_parameters"]["network"]["width"] = 8
    with pytest.raises(
        CheckpointError, match=r"does not fit the membership encoder for \['g', 'r'"
    ):
        load_checkpoint(saved(tmp_path, content), "membership")


def test_resuming_needs_the_state_of_a_training(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="holds no state of a training"):
        check_resumable(saved(tmp_path, content))
    with pytest.raises(DataNotFoundError, match=r"expected ckpt_path .*last\.ckpt"):
        check_resumable(tmp_path / "none.ckpt")


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
