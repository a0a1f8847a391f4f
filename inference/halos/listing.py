"""Finds sets of maps; each file of one is a part: a unit of work and of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen import files
from datagen.errors import DataNotFoundError
from datagen.halos.format import COMMAND, is_dataset, map_files, truth_of
from inference.part_data import look_at


@dataclass(frozen=True)
class MapPart:
    """One file of maps.

    Args:
        name: Name of the results.
        set_name: Name of its set.
        path: The file.
        ids: What the table calls it, its path from the folder of the sets.
        wanted: Only maps of this split, or None.
        sizes: Of the file and its truth [bytes].
        mtimes_ns: When each of them was changed.
    """

    name: str
    set_name: str
    path: Path
    ids: tuple[str]
    wanted: str | None
    sizes: tuple[int, ...]
    mtimes_ns: tuple[int, ...]

    def content_hash(self, run_hash: str) -> str:
        """Return what identifies the result: checkpoint, settings, names and sizes of the input."""
        content = {"run": run_hash, "ids": self.ids, "sizes": self.sizes, "wanted": self.wanted}
        return files.content_hash(content)

    def item_id(self, row: int) -> str:
        """Return what the table calls one map."""
        return f"{self.ids[0]}[{row}]"

    def note(self) -> dict[str, Any]:
        """Return what the manifest says of the part."""
        return {"set": self.set_name}


def find_sets(folder: Path, names: Sequence[str] | None) -> dict[str, Path]:
    """Return folders of sets by name, sorted.

    Args:
        folder: Of sets, or of a single one.
        names: Those that are wanted; None for all.

    Raises:
        DataNotFoundError: There is none, or not one that is wanted.
    """
    if is_dataset(folder):
        there = {folder.absolute().name: folder}
    else:
        there = {path.name: path for path in sorted(folder.glob("*")) if is_dataset(path)}
    if not there:
        raise DataNotFoundError(
            f"expected predict.cached_data_path to hold sets of maps, but {folder} holds none; "
            f"make one with: {COMMAND} halo=a",
            str(folder),
        )
    missing = sorted(set(names or ()) - set(there))
    if missing:
        raise DataNotFoundError(
            f"expected predict.sets to name some of {', '.join(there)}, which are in "
            f"predict.cached_data_path = {folder}, but got {missing[0]}; make it with: {COMMAND} "
            f"halo={missing[0]}",
            missing[0],
            list(there),
        )
    return {name: there[name] for name in sorted(set(names or there))}


def list_parts(sets: dict[str, Path], wanted: str | None) -> list[MapPart]:
    """Return the parts of sets, sorted by set and file.

    Args:
        sets: Folders by name.
        wanted: Only maps of this split; None for all.
    """
    return [
        MapPart(
            f"{name}-{path.stem}",
            name,
            path,
            (f"{name}/{path.relative_to(folder).as_posix()}",),
            wanted,
            *look_at([path, truth_of(path)]),
        )
        for name, folder in sets.items()
        for path in map_files(folder)
    ]
