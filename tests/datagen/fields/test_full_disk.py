"""A disk that runs full in the middle of a simulation: one clear line, and nothing is lost."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from datagen import pipeline
from datagen.errors import OutputError
from datagen.fields.config import FieldsConfig
from datagen.files import sha256_file


@contextmanager
def files_end_at(n_bytes: int) -> Iterator[None]:
    """Let the kernel refuse to make a file larger, in the middle of a write as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("n_bytes", "name"),
    [
        (500, "settings.json"),
        (4_000, "field_000000.dat"),
        (40_000, "field_000000_g.fits"),
        (100_000, "file_data_0_size_1.pt"),
    ],
)
def test_no_space_in_each_phase(
    fields_config: FieldsConfig, tmp_path: Path, n_bytes: int, name: str
) -> None:
    small = dataclasses.replace(
        fields_config, image_size=128, tile_size=32, nfiles=1, n_catalogs_per_file=1
    )
    with files_end_at(n_bytes), pytest.raises(OutputError) as caught:
        pipeline.run(small)
    message = str(caught.value)
    assert f"{name}: " in message
    assert message.startswith("cannot write ")
    assert message.endswith("; free it or choose another folder")
    assert "\n" not in message
    assert list(Path(small.data_dir).rglob(".partial-*")) == []
    pipeline.run(small)
    whole = dataclasses.replace(small, data_dir=str(tmp_path / "whole"))
    pipeline.run(whole)
    assert hashes(small.data_dir) == hashes(whole.data_dir)


def hashes(folder: str) -> dict[str, str]:
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in paths
        if not path.name.startswith("manifest")
    }
