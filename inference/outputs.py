"""The output folder of a prediction: which run it belongs to, and what is noted of each part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from datagen import files
from datagen.errors import ConfigError, DataFormatError


@dataclass(frozen=True)
class OutputFolder:
    """Names below the output folder that every prediction has.

    Args:
        root: `predict.output_dir`.
    """

    root: Path

    @property
    def run(self) -> Path:
        """Settings and checkpoint that the results belong to."""
        return self.root / "run.json"

    @property
    def manifest(self) -> Path:
        """What was read, how large it is, how long it took."""
        return self.root / "manifest.json"

    @property
    def failed(self) -> Path:
        """What could not be predicted, with reasons."""
        return self.root / "failed.ecsv"

    def record(self, name: str) -> Path:
        """Timing, or the reason of a failure, of one part of the run."""
        return self.root / "records" / f"{name}.json"


def describe_run(
    checkpoint: str, settings: Mapping[str, Any], cached_data_path: str
) -> dict[str, Any]:
    """Return what identifies a run: `run.json`.

    Args:
        checkpoint: SHA-256 of the checkpoint.
        settings: What the results depend on, under the names that users know.
        cached_data_path: Folder that is predicted on.
    """
    identity = {"checkpoint": checkpoint, "settings": dict(settings)}
    return {
        **identity,
        "format_version": 1,
        "run_hash": files.content_hash(identity),
        # An evaluation finds the truth there from any working directory.
        "cached_data_path": str(Path(cached_data_path).absolute()),
        "package_version": package_version(),
    }


def check_run(paths: OutputFolder, run: Mapping[str, Any], overwrite: bool) -> None:
    """Make sure that the output folder holds nothing of another checkpoint or other settings.

    Args:
        paths: The output folder.
        run: What `run.json` shall hold: `run_hash`, `checkpoint`, `settings`.
        overwrite: Whether other results may be replaced.

    Raises:
        ConfigError: They differ and may not be replaced.
    """
    if overwrite or not paths.run.is_file():
        return
    before = files.read_json(paths.run)
    if before.get("run_hash") == run["run_hash"]:
        return
    changes = _changes(before, run)
    raise ConfigError(
        f"predict.output_dir = {paths.root} holds results of another run ({changes}); choose "
        "another folder or replace them with predict.overwrite=true",
        value=changes,
    )


def check_writable(folder: Path) -> None:
    """Find out before hours of work that results cannot be saved."""
    with files.atomic_path(folder / "run.json.probe") as probe:
        probe.write_text("")
    remove(folder / "run.json.probe")


def write_record(paths: OutputFolder, name: str, content: Mapping[str, Any]) -> None:
    """Note what happened to one part of the run."""
    files.write_json(paths.record(name), content)


def read_record(paths: OutputFolder, name: str) -> dict[str, Any]:
    """Return what happened to one part of the run; empty when nothing is known."""
    path = paths.record(name)
    if not path.is_file():
        return {}
    record = files.read_json(path)
    if not isinstance(record, dict):
        raise DataFormatError(f"{path} is no record of a prediction; delete it", value=str(path))
    return record


def remove(path: Path) -> None:
    """Remove a file of the output folder if it is there.

    Raises:
        OutputError: It cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise files.output_error(path, error) from error


def package_version() -> str:
    """Return the version of the installed package."""
    try:
        return metadata.version("skyfold")
    except metadata.PackageNotFoundError:
        return "not installed"


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    old = {"checkpoint": str(before.get("checkpoint", ""))[:12], **before.get("settings", {})}
    new = {"checkpoint": str(now["checkpoint"])[:12], **now["settings"]}
    changed = [key for key in {**new, **old} if old.get(key) != new.get(key)]
    return "; ".join(f"{key} = {old.get(key)}, now {new.get(key)}" for key in changed)
