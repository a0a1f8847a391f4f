"""Runs the jobs of any simulator: one idempotent job per output, in parallel, resumable.

A simulator describes its work as phases of jobs. The pipeline runs what is missing, writes one
manifest line per finished file, and never mixes files that were made with different settings.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen.backends import execute
from datagen.checks import differences
from datagen.errors import ConfigError, DataFormatError
from datagen.files import (
    PARTIAL,
    content_hash,
    output_error,
    read_json,
    sha256_file,
    write_json,
    write_text,
)
from datagen.progress import counted

log = logging.getLogger(__name__)

BACKENDS = ("loky", "dask", "sequential")
SETTINGS_FILE = "settings.json"
# Settings that say how, where and how much to run, but do not change the bytes of any file.
NEUTRAL = {"data_dir", "nfiles", "n_jobs", "backend", "shard", "overwrite", "phases"}


@dataclass(frozen=True)
class JobSettings:
    """What every simulator's configuration holds.

    Args:
        data_dir: Folder of the outputs.
        nfiles: Number of output files (fields: file data; survey: tiles), >= 1.
        seed: Seed of all random streams, >= 0.
        n_jobs: Worker processes; -1 means one per core.
        backend: One of `loky`, `dask`, `sequential`.
        shard: `[i, n]`: do the i-th of n interleaved parts, for runs on several machines.
        overwrite: Make everything again, also over files made with other settings.
    """

    data_dir: str
    nfiles: int
    seed: int
    n_jobs: int
    backend: str
    shard: list[int]
    overwrite: bool

    def __post_init__(self) -> None:
        _require(self.nfiles >= 1, "nfiles", self.nfiles, "an integer >= 1")
        _require(self.seed >= 0, "seed", self.seed, "an integer >= 0")
        _require(self.n_jobs == -1 or self.n_jobs >= 1, "n_jobs", self.n_jobs, ">= 1, or -1")
        _require(self.backend in BACKENDS, "backend", self.backend, ", ".join(BACKENDS))
        is_shard = len(self.shard) == 2 and 0 <= self.shard[0] < self.shard[1]
        _require(is_shard, "shard", list(self.shard), "[i, n] with 0 <= i < n")

    def content(self) -> dict[str, Any]:
        """Return the settings that determine the bytes of the outputs."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in NEUTRAL}

    def owned(self) -> Sequence[str]:
        """Return patterns of the files that the simulator makes, relative to its folder."""
        return ()

    def expected_bytes(self) -> float:
        """Return about how much all files together take; 0 where that is not known."""
        return 0.0

    def makes_everything(self) -> bool:
        """Tell whether all phases are selected."""
        return True

    def key_of(self, name: str) -> str:
        """Return the key that a user types for an entry of `content`."""
        return f"data_gen.{name}"

    def content_hash(self) -> str:
        """Return the hash of `content`, kept in the meta of every output."""
        return content_hash(self.content())

    def parts(self) -> Sequence[JobSettings]:
        """Return the runs that these settings stand for, each with a folder of its own."""
        return (self,)

    def build_phases(self) -> Sequence[Phase]:
        """Return the work as phases; a simulator's settings implement it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Job:
    """One unit of work that writes its outputs atomically and always with the same bytes.

    Args:
        name: Unique name, for example `images/field_000003`.
        outputs: Files that the job writes.
        run: A picklable callable without arguments.
        index: Number of the output file; decides to which shard the job belongs.
        seed: Seed of the job's streams, for the manifest.
        is_gathering: It gathers what other jobs made, and runs each time, since that may have
            grown.
        inputs: Hash of the files of others that the job reads; when it changes, the outputs are
            made again.
        may_fail: What it reads is not ours: where that is damaged (`DataFormatError`), the reason
            is noted and the other jobs go on.
    """

    name: str
    outputs: tuple[Path, ...]
    run: Callable[[], None]
    index: int
    seed: int
    is_gathering: bool = False
    inputs: str = ""
    may_fail: bool = False


@dataclass(frozen=True)
class Phase:
    """Jobs that do not depend on each other; phases run one after another.

    Args:
        name: Name of the phase.
        jobs: The jobs.
        stale: Files of earlier runs that no job would make now; they are removed first.
    """

    name: str
    jobs: tuple[Job, ...]
    stale: tuple[Path, ...] = ()


def run(settings: JobSettings) -> dict[str, int]:
    """Run what is missing of all phases.

    Args:
        settings: The simulator's validated configuration.

    Returns:
        Number of jobs `{"made": ..., "skipped": ...}`, and `"failed"` if any did.

    Raises:
        ConfigError: The folder holds files made with other settings.
        DataFormatError: A file that a job reads is damaged, and the job may not fail.
        OutputError: A file cannot be written.
    """
    counts: Counter[str] = Counter()
    for part in settings.parts():
        counts.update(_run(part))
    return dict(counts)


def _run(settings: JobSettings) -> dict[str, int]:
    folder = Path(settings.data_dir)
    phases = settings.build_phases()
    _claim(folder, settings)
    if settings.expected_bytes():
        log.info("%s: %.3g GB when all is made", folder, settings.expected_bytes() / 1e9)
    manifest = Manifest(folder, settings)
    counts = {"made": 0, "skipped": 0}
    failed: dict[str, str] = {}
    for phase in phases:
        manifest.remove(phase.stale)
        mine = [job for job in phase.jobs if job.index % settings.shard[1] == settings.shard[0]]
        todo = [job for job in mine if settings.overwrite or not manifest.is_done(job)]
        _remove_partial(todo)
        n_made = 0
        for job, outcome in counted(execute(todo, settings), len(todo), phase.name):
            if isinstance(outcome, str):
                log.warning("%s failed: %s", job.name, outcome)
                failed[job.name] = outcome
                # What an earlier run made of it is not what would be made now.
                manifest.remove(job.outputs)
                continue
            manifest.record(job, outcome)
            n_made += 1
        log.info("%s: %d made, %d already there", phase.name, n_made, len(mine) - len(todo))
        counts["made"] += n_made
        counts["skipped"] += len(mine) - len(todo)
    _note_failures(folder, settings, failed)
    return counts | ({"failed": len(failed)} if failed else {})


class Manifest:
    """What has been made: one JSON line per file in `manifest-{i}of{n}.jsonl`, one file per shard.

    Only the parent process appends. A file without a line (the run was killed in between) is made
    again, which gives the same bytes.

    Args:
        folder: The simulator's data folder.
        settings: The configuration of this run.
    """

    def __init__(self, folder: Path, settings: JobSettings) -> None:
        self.folder = folder
        self.hash = settings.content_hash()
        self.path = folder / "manifest-{}of{}.jsonl".format(*settings.shard)
        self.records = read_manifest(folder)
        _end_last_line(self.path)

    def is_done(self, job: Job) -> bool:
        """Tell whether all outputs of a job stand there, whole and made with these settings."""
        if job.is_gathering or not job.outputs:
            return False
        return all(self._is_whole(path, job.inputs) for path in job.outputs)

    def record(self, job: Job, seconds: float) -> None:
        """Append one line per output of a finished job.

        A gathering job has none: it is run each time, and each shard gathers into the same file.
        """
        if job.is_gathering:
            return
        lines = [self._line(job, path, seconds) for path in job.outputs]
        try:
            with self.path.open("a") as stream:
                stream.writelines(line + "\n" for line in lines)
        except OSError as error:
            raise output_error(self.path, error) from error

    def remove(self, paths: Sequence[Path]) -> None:
        """Delete files and their lines, those first: a file without a line is made again."""
        names = {path.relative_to(self.folder).as_posix() for path in paths if path.exists()}
        if not names:
            return
        for manifest in sorted(self.folder.glob("manifest-*.jsonl")):
            lines = manifest.read_text().splitlines(keepends=True)
            kept = [line for line in lines if _path_in(line) not in names]
            if len(kept) < len(lines):
                write_text(manifest, "".join(kept))
        for name in sorted(names):
            log.info("%s is removed: it is out of date", self.folder / name)
            self.records.pop(name, None)
            (self.folder / name).unlink(missing_ok=True)

    def _is_whole(self, path: Path, inputs: str) -> bool:
        record = self.records.get(path.relative_to(self.folder).as_posix())
        if record is None or record["config_hash"] != self.hash or not path.is_file():
            return False
        is_current = record.get("inputs", "") == inputs
        return bool(is_current and path.stat().st_size == record["bytes"])

    def _line(self, job: Job, path: Path, seconds: float) -> str:
        record = {
            "path": path.relative_to(self.folder).as_posix(),
            "sha256": sha256_file(path),
            "bytes": path.stat().st_size,
            "job": job.name,
            "index": job.index,
            "seed": job.seed,
            "config_hash": self.hash,
            "seconds": round(seconds, 3),
        }
        if job.inputs:
            record["inputs"] = job.inputs
        return json.dumps(record, sort_keys=True)


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the manifest lines of all shards in a data folder by relative path.

    A last line that a killed run left half-written is passed over.

    Raises:
        DataFormatError: Another line is not valid JSON.
    """
    records: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("manifest-*.jsonl")):
        lines = path.read_text().split("\n")
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                if number == len(lines):
                    continue
                raise DataFormatError(
                    f"{path}, line {number} is not valid JSON; delete the line to make its file "
                    "again",
                    value=line,
                ) from error
            records[record["path"]] = record
    return records


def _path_in(line: str) -> str | None:
    """Return the file of a manifest line; None if it is half-written."""
    try:
        return str(json.loads(line)["path"])
    except ValueError:
        return None


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ConfigError(
            f"expected data_gen.{name} to be {allowed}, but got {value!r}", value, allowed
        )


def _claim(folder: Path, settings: JobSettings) -> None:
    """Bind the folder to these settings, or refuse if it holds files made with others."""
    path = folder / SETTINGS_FILE
    wanted = json.loads(json.dumps(settings.content()))
    # Looked for before the settings, which stand there before any file of a run: another shard,
    # started at the same time, may write both in between.
    left = next(_owned_files(folder, settings), None)
    found = read_json(path) if path.exists() else None
    if found == wanted:
        return
    if left is not None or read_manifest(folder):
        if not settings.overwrite:
            unlike = f"no {SETTINGS_FILE} tells those of {left or 'the files in its manifest'}"
            if isinstance(found, dict):
                unlike = ", ".join(differences(found, wanted, settings.key_of))
            raise ConfigError(
                f"{folder} holds files made with other settings ({unlike}); choose another "
                "data_gen.data_dir, or add data_gen.overwrite=true to replace them",
                value=str(folder),
            )
        _remove_outputs(folder, settings)
    write_json(path, wanted)


def _owned_files(folder: Path, settings: JobSettings) -> Iterator[Path]:
    """Yield the files that the simulator made, or that stand where it would put its own."""
    for pattern in settings.owned():
        yield from (p for p in sorted(folder.glob(pattern)) if not p.name.startswith(PARTIAL))


def _remove_outputs(folder: Path, settings: JobSettings) -> None:
    """Delete everything that the simulator made, so that nothing of other settings remains.

    Raises:
        ConfigError: Not all phases are selected, so that what is deleted would not be made again.
    """
    if not settings.makes_everything():
        raise ConfigError(
            f"{folder} holds files made with other settings, and replacing them needs all phases; "
            "leave data_gen.phases out, or choose another data_gen.data_dir",
            value=str(folder),
        )
    for name in read_manifest(folder):
        (folder / name).unlink(missing_ok=True)
    # A killed run leaves files that no manifest lists.
    for path in _owned_files(folder, settings):
        path.unlink()
    for path in folder.glob("manifest-*.jsonl"):
        path.unlink()


def _remove_partial(jobs: Sequence[Job]) -> None:
    """Delete what a killed run left of these jobs; other shards may be writing theirs."""
    outputs = {path for job in jobs for path in job.outputs}
    for folder in {path.parent for path in outputs}:
        for left in folder.glob(f"{PARTIAL}*"):
            name = left.name.removeprefix(PARTIAL).partition("-")[2]
            if folder / name in outputs:
                left.unlink(missing_ok=True)


def _end_last_line(path: Path) -> None:
    """Drop a last line that a killed run left half-written, so that the next one stands alone."""
    if path.exists():
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            path.write_bytes(whole)


def _note_failures(folder: Path, settings: JobSettings, failed: dict[str, str]) -> None:
    """Write which jobs of this run failed and why; without any, no file remains."""
    path = folder / "failed-{}of{}.json".format(*settings.shard)
    if failed:
        write_json(path, failed)
        log.warning("%d jobs failed: see %s", len(failed), path)
    else:
        path.unlink(missing_ok=True)
