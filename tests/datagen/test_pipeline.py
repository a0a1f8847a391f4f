from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from datagen import files, pipeline
from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.pipeline import Job, JobSettings, Phase
from datagen.seeds import stream


@dataclass(frozen=True)
class Numbers(JobSettings):
    """A simulator of text files that hold random numbers, in two phases."""

    scale: float = 1.0

    def build_phases(self) -> Sequence[Phase]:
        folder = Path(self.data_dir)
        return [
            Phase("draw", tuple(self._job(draw, folder / "draw" / f"{k}.txt", k) for k in self._n)),
            Phase("copy", tuple(self._job(copy, folder / "copy" / f"{k}.txt", k) for k in self._n)),
        ]

    def owned(self) -> Sequence[str]:
        return ["draw/*.txt", "copy/*.txt"]

    @property
    def _n(self) -> range:
        return range(self.nfiles)

    def _job(self, function: object, path: Path, index: int) -> Job:
        call = functools.partial(function, path, self, index)  # type: ignore[arg-type]
        return Job(f"{path.parent.name}/{index}", (path,), call, index, self.seed)


def draw(path: Path, settings: Numbers, index: int) -> None:
    value = stream(settings.seed, index, "value").normal() * settings.scale
    files.write_text(path, f"{value}\n")


def copy(path: Path, settings: Numbers, index: int) -> None:
    source = Path(settings.data_dir) / "draw" / path.name
    if not source.exists():
        raise DataNotFoundError(f"{source} does not exist", value=str(source))
    files.write_text(path, source.read_text())


def gather(folder: Path) -> None:
    files.write_text(folder / "all.txt", str(len(list((folder / "copy").glob("*.txt")))))


def make(folder: Path, **changes: object) -> Numbers:
    values: dict[str, object] = {
        "data_dir": str(folder),
        "nfiles": 4,
        "seed": 7,
        "n_jobs": 1,
        "backend": "loky",
        "shard": [0, 1],
        "overwrite": False,
    }
    return Numbers(**(values | changes))  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.glob("*/*.txt")}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("expected")
    pipeline.run(make(folder))
    return contents(folder)


@pytest.mark.parametrize("backend", ["sequential", "loky", "dask"])
def test_bytes_do_not_depend_on_the_backend(
    tmp_path: Path, backend: str, expected: dict[str, str]
) -> None:
    if backend == "dask":
        pytest.importorskip("distributed")
    assert pipeline.run(make(tmp_path, backend=backend, n_jobs=2)) == {"made": 8, "skipped": 0}
    assert contents(tmp_path) == expected


def test_bytes_do_not_depend_on_how_many_files_are_asked_for(
    tmp_path: Path, expected: dict[str, str]
) -> None:
    pipeline.run(make(tmp_path, nfiles=2))
    assert contents(tmp_path).items() <= expected.items()
    assert pipeline.run(make(tmp_path)) == {"made": 4, "skipped": 4}
    assert contents(tmp_path) == expected


def test_two_shards_make_what_one_run_makes(tmp_path: Path, expected: dict[str, str]) -> None:
    for shard in (0, 1):
        made = pipeline.run(make(tmp_path, shard=[shard, 2]))
        assert made == {"made": 4, "skipped": 0}
    assert contents(tmp_path) == expected
    assert pipeline.run(make(tmp_path)) == {"made": 0, "skipped": 8}


def test_a_rerun_makes_only_what_is_missing_or_broken(
    tmp_path: Path, expected: dict[str, str]
) -> None:
    pipeline.run(make(tmp_path))
    (tmp_path / "draw" / "1.txt").unlink()
    (tmp_path / "copy" / "2.txt").write_text("")
    kept = (tmp_path / "draw" / "0.txt").stat().st_mtime_ns
    assert pipeline.run(make(tmp_path)) == {"made": 2, "skipped": 6}
    assert contents(tmp_path) == expected
    assert (tmp_path / "draw" / "0.txt").stat().st_mtime_ns == kept


def test_partial_files_of_a_killed_run_go_but_not_those_of_other_shards(
    tmp_path: Path, expected: dict[str, str]
) -> None:
    (tmp_path / "draw").mkdir()
    mine, other = (tmp_path / "draw" / f".partial-a_b1c2d3-{k}.txt" for k in (0, 1))
    mine.write_text("half")
    other.write_text("half")
    pipeline.run(make(tmp_path, shard=[0, 2]))
    assert not mine.exists()
    assert other.exists()
    pipeline.run(make(tmp_path, shard=[1, 2]))
    assert contents(tmp_path) == expected


def test_the_manifest_lists_every_file_with_seed_and_hash(tmp_path: Path) -> None:
    settings = make(tmp_path)
    pipeline.run(settings)
    records = pipeline.read_manifest(tmp_path)
    assert sorted(records) == sorted(contents(tmp_path))
    for name, record in records.items():
        assert record["sha256"] == files.sha256_file(tmp_path / name)
        assert record["bytes"] == (tmp_path / name).stat().st_size
        assert (record["seed"], record["config_hash"]) == (7, settings.content_hash())


def test_a_half_written_manifest_line_costs_one_file(
    tmp_path: Path, expected: dict[str, str]
) -> None:
    pipeline.run(make(tmp_path))
    manifest = tmp_path / "manifest-0of1.jsonl"
    text = manifest.read_text()
    manifest.write_text(text[:-20])
    assert pipeline.run(make(tmp_path)) == {"made": 1, "skipped": 7}
    assert len(pipeline.read_manifest(tmp_path)) == 8
    assert contents(tmp_path) == expected


def test_a_broken_manifest_line_is_named(tmp_path: Path) -> None:
    pipeline.run(make(tmp_path))
    manifest = tmp_path / "manifest-0of1.jsonl"
    manifest.write_text("nonsense\n" + manifest.read_text())
    with pytest.raises(DataFormatError, match=r"manifest-0of1\.jsonl, line 1 is not valid JSON"):
        pipeline.run(make(tmp_path))


def test_files_of_other_settings_are_refused_and_replaced_only_on_request(tmp_path: Path) -> None:
    pipeline.run(make(tmp_path))
    with pytest.raises(ConfigError, match=r"data_gen\.scale was 1\.0, now 2\.0.*overwrite=true"):
        pipeline.run(make(tmp_path, scale=2.0))
    pipeline.run(make(tmp_path, scale=2.0, nfiles=1, overwrite=True))
    assert sorted(contents(tmp_path)) == ["copy/0.txt", "draw/0.txt"]


def test_replacing_removes_what_a_killed_run_left_without_a_line(tmp_path: Path) -> None:
    pipeline.run(make(tmp_path))
    (tmp_path / "manifest-0of1.jsonl").unlink()
    pipeline.run(make(tmp_path, scale=2.0, nfiles=1, overwrite=True))
    assert sorted(contents(tmp_path)) == ["copy/0.txt", "draw/0.txt"]


def test_files_that_no_settings_explain_are_neither_adopted_nor_replaced(tmp_path: Path) -> None:
    own = tmp_path / "draw" / "1.txt"
    own.parent.mkdir()
    own.write_text("mine")
    with pytest.raises(ConfigError, match=r"no settings\.json tells those of .*1\.txt.*overwrite"):
        pipeline.run(make(tmp_path))
    assert own.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["draw"]
    pipeline.run(make(tmp_path, nfiles=1, overwrite=True))
    assert sorted(contents(tmp_path)) == ["copy/0.txt", "draw/0.txt"]


def test_a_shard_that_starts_while_another_one_writes_is_let_in(tmp_path: Path) -> None:
    other = make(tmp_path, shard=[1, 2])

    @dataclass(frozen=True)
    class Late(Numbers):
        def owned(self) -> Sequence[str]:
            # The other shard does all of its work while this one looks for files.
            pipeline.run(other)
            return super().owned()

    mine = make(tmp_path, shard=[0, 2])
    late = Late(**{f: getattr(mine, f) for f in Numbers.__dataclass_fields__})
    assert pipeline.run(late) == {"made": 4, "skipped": 0}


def test_nothing_is_removed_that_would_not_be_made_again(
    tmp_path: Path, expected: dict[str, str]
) -> None:
    @dataclass(frozen=True)
    class OnePhase(Numbers):
        def makes_everything(self) -> bool:
            return False

    pipeline.run(make(tmp_path))
    changed = make(tmp_path, scale=2.0, overwrite=True)
    partial = OnePhase(**{f: getattr(changed, f) for f in Numbers.__dataclass_fields__})
    with pytest.raises(ConfigError, match=r"needs all phases; leave data_gen\.phases out"):
        pipeline.run(partial)
    assert contents(tmp_path) == expected


def test_a_gathering_job_runs_each_time(tmp_path: Path) -> None:
    job = Job("all", (tmp_path / "all.txt",), functools.partial(gather, tmp_path), 0, 0, True)

    class Gathering(Numbers):
        def build_phases(self) -> Sequence[Phase]:
            return [*super().build_phases(), Phase("all", (job,))]

    for n_files in (2, 4):
        settings = make(tmp_path, nfiles=n_files)
        pipeline.run(Gathering(**{f: getattr(settings, f) for f in Numbers.__dataclass_fields__}))
        assert (tmp_path / "all.txt").read_text() == str(n_files)
    # Each shard writes the same file: the size that one of them saw says nothing.
    assert "all.txt" not in pipeline.read_manifest(tmp_path)


def test_an_error_in_a_worker_comes_home_whole(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class CopyOnly(Numbers):
        def build_phases(self) -> Sequence[Phase]:
            return super().build_phases()[1:]

    values = {f: getattr(make(tmp_path, n_jobs=2), f) for f in Numbers.__dataclass_fields__}
    with pytest.raises(DataNotFoundError, match=r"draw.*does not exist"):
        pipeline.run(CopyOnly(**values))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nfiles": -1}, r"expected data_gen\.nfiles to be an integer >= 1, but got -1"),
        ({"seed": -1}, r"expected data_gen\.seed to be an integer >= 0, but got -1"),
        ({"n_jobs": 0}, r"expected data_gen\.n_jobs to be >= 1, or -1, but got 0"),
        ({"backend": "threads"}, r"backend to be loky, dask, sequential, but got 'threads'"),
        ({"shard": [2, 2]}, r"shard to be \[i, n\] with 0 <= i < n, but got \[2, 2\]"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(tmp_path, **changes)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="permission is denied"):
        pipeline.run(make(tmp_path / "data"))


def test_settings_without_files_bind_nothing(tmp_path: Path) -> None:
    """A run that failed before its first file does not stand in the way of the next one."""
    files.write_json(tmp_path / pipeline.SETTINGS_FILE, make(tmp_path, scale=2.0).content())
    assert pipeline.run(make(tmp_path)) == {"made": 8, "skipped": 0}
    with pytest.raises(ConfigError, match=r"data_gen\.scale was 1\.0, now 3\.0"):
        pipeline.run(make(tmp_path, scale=3.0))
    for path in tmp_path.glob("*/*.txt"):
        path.unlink()
    # What the manifest lists may be elsewhere for a while.
    with pytest.raises(ConfigError, match=r"data_gen\.scale was 1\.0, now 3\.0"):
        pipeline.run(make(tmp_path, scale=3.0))
