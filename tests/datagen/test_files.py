from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from datagen import files
from datagen.errors import DataFormatError, DataNotFoundError, OutputError


def test_atomic_path_keeps_the_suffixes_and_leaves_no_partial_file(tmp_path: Path) -> None:
    target = tmp_path / "new" / "tile.fits.fz"
    with files.atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.name.endswith("tile.fits.fz")
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_keeps_the_old_file_and_removes_the_partial_one(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail_halfway() -> None:
        with files.atomic_path(target) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_new_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a.txt", "x")
    (tmp_path / "b.txt").write_text("x")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_a_full_disk_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OutputError, match=r"cannot write .*a\.txt: no space is left on the device"):
        files.write_text(tmp_path / "a.txt", "x")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_is_needed_is_reported(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match=r"a file stands where a folder is needed|is a file"):
        files.write_text(tmp_path / "taken" / "a.txt", "x")


def test_json_round_trip_and_its_errors(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"b": 1, "a": [1.5, float("nan")]})
    assert files.read_json(tmp_path / "a.json") == {"a": [1.5, None], "b": 1}
    with pytest.raises(DataNotFoundError, match=r"b\.json does not exist"):
        files.read_json(tmp_path / "b.json")
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(DataFormatError, match=r"c\.json is not valid JSON"):
        files.read_json(tmp_path / "c.json")


def test_saved_tensors_do_not_depend_on_the_name_of_the_file(tmp_path: Path) -> None:
    content = [{"x": torch.arange(6.0)}]
    files.save_torch(tmp_path / "one.pt", content)
    files.save_torch(tmp_path / "another.pt", content)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "another.pt").read_bytes()
    loaded = torch.load(tmp_path / "one.pt", weights_only=True, mmap=True)
    assert torch.equal(loaded[0]["x"], content[0]["x"])


def test_content_hash_ignores_the_order_of_keys() -> None:
    assert files.content_hash({"a": 1, "b": 2}) == files.content_hash({"b": 2, "a": 1})
    assert files.content_hash({"a": 1}) != files.content_hash({"a": 2})
