"""Finds folders of stacks of images; each stack is a part: a unit of work and of the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen import files
from datagen.errors import DataNotFoundError
from inference.part_data import look_at


@dataclass(frozen=True)
class StackKind:
    """What the stacks of a task are called, and how they are found.

    Args:
        images: What they hold, in the plural.
        group: What a folder of them is; `predict.<group>s` names some.
        command: Makes a folder; `{}` stands for its name.
        example: Such a name.
        exist: Tells whether a folder holds stacks.
        files: Lists them, sorted.
        truth_of: Returns the name of the truth of one.
    """

    images: str
    group: str
    command: str
    example: str
    exist: Callable[[Path], bool]
    files: Callable[[Path], list[Path]]
    truth_of: Callable[[Path], Path]


@dataclass(frozen=True)
class StackPart:
    """One file of images.

    Args:
        name: Name of the results.
        kind: What a folder of such files is.
        group: Name of the folder.
        path: The file.
        ids: What the table calls it, its path from the folder of the groups.
        wanted: Only images of this split, or None.
        sizes: Of the file and its truth [bytes].
        mtimes_ns: When each of them was changed.
    """

    name: str
    kind: str
    group: str
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
        """Return what the table calls one image."""
        return f"{self.ids[0]}[{row}]"

    def note(self) -> dict[str, Any]:
        """Return what the manifest says of the part."""
        return {self.kind: self.group}


def find_groups(folder: Path, names: Sequence[str] | None, kind: StackKind) -> dict[str, Path]:
    """Return folders of stacks by name, sorted.

    Args:
        folder: Of such folders, or a single one.
        names: Those that are wanted; None for all.
        kind: Of the stacks.

    Raises:
        DataNotFoundError: There is none, or not one that is wanted.
    """
    if kind.exist(folder):
        there = {folder.absolute().name: folder}
    else:
        there = {path.name: path for path in sorted(folder.glob("*")) if kind.exist(path)}
    if not there:
        raise DataNotFoundError(
            f"expected predict.cached_data_path to hold {kind.group}s of {kind.images}, but "
            f"{folder} holds none; make one with: {kind.command.format(kind.example)}",
            str(folder),
        )
    missing = sorted(set(names or ()) - set(there))
    if missing:
        raise DataNotFoundError(
            f"expected predict.{kind.group}s to name some of {', '.join(there)}, which are in "
            f"predict.cached_data_path = {folder}, but got {missing[0]}; make it with: "
            f"{kind.command.format(missing[0])}",
            missing[0],
            list(there),
        )
    return {name: there[name] for name in sorted(set(names or there))}


def list_parts(
    groups: dict[str, Path], kind: StackKind, wanted: str | None = None
) -> list[StackPart]:
    """Return the parts of some folders, sorted by folder and file.

    Args:
        groups: Folders by name.
        kind: Of the stacks.
        wanted: Only images of this split; None for all.
    """
    return [
        StackPart(
            f"{name}-{path.stem}",
            kind.group,
            name,
            path,
            (f"{name}/{path.relative_to(folder).as_posix()}",),
            wanted,
            *look_at([path, kind.truth_of(path)]),
        )
        for name, folder in groups.items()
        for path in kind.files(folder)
    ]
