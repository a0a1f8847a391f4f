"""Lists the survey tiles below a folder: which file holds which band of which tile."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from datagen.errors import ConfigError, DataNotFoundError
from datagen.tiles.survey import BUILD_SURVEY, SurveySettings


@dataclass(frozen=True)
class Tile:
    """One survey tile on disk.

    Args:
        name: Its name.
        paths: One file per band, in the order of the survey's bands; empty with a problem.
        sizes: Size of each file [bytes].
        mtimes_ns: When each file was last changed [ns since 1970].
        problem: Why the survey tile cannot be read, or None.
    """

    name: str
    paths: tuple[Path, ...]
    sizes: tuple[int, ...]
    mtimes_ns: tuple[int, ...] = ()
    problem: str | None = None


def list_tiles(
    folder: Path, survey: SurveySettings, key: str = "predict.cached_data_path"
) -> list[Tile]:
    """Return the survey tiles below `folder`, sorted by name.

    Args:
        folder: Where the survey tiles are.
        survey: How the survey names its files.
        key: The setting that named the folder, for messages.

    Returns:
        Every tile of which at least one band exists; incomplete ones carry their problem.

    Raises:
        DataNotFoundError: The folder is missing or holds no file that fits the pattern.
    """
    if not folder.is_dir():
        raise DataNotFoundError(
            f"{key} = {folder} is not a folder; simulated survey tiles are made by "
            f"`{BUILD_SURVEY}`",
            value=str(folder),
        )
    found = _files_by_tile(folder, survey)
    if not found:
        raise DataNotFoundError(
            f"no file below {folder} fits survey.pattern = {survey.pattern} for the bands "
            f"{', '.join(survey.bands)}; simulated survey tiles are made by `{BUILD_SURVEY}`",
            value=survey.pattern,
        )
    return [_tile(name, found[name], survey) for name in sorted(found)]


def shard(tiles: list[Tile], rank: int, world: int) -> list[Tile]:
    """Return the tiles of one rank: every `world`-th one, whatever the others do."""
    return tiles[rank::world]


def _files_by_tile(folder: Path, survey: SurveySettings) -> dict[str, dict[str, list[Path]]]:
    expression = _expression(survey)
    glob = survey.pattern.replace("{tile}", "*").replace("{band}", "*")
    whole = folder.resolve().name
    found: dict[str, dict[str, list[Path]]] = {}
    for path in sorted(folder.glob(glob)):
        match = expression.fullmatch(path.relative_to(folder).as_posix())
        if match is None or path.name.startswith("."):
            continue
        groups = match.groupdict()
        bands = found.setdefault(groups.get("tile") or whole, {})
        bands.setdefault(groups.get("band") or survey.bands[0], []).append(path)
    return found


def _tile(name: str, by_band: dict[str, list[Path]], survey: SurveySettings) -> Tile:
    for band in survey.bands:
        paths = by_band.get(band, [])
        if not paths:
            wanted = survey.pattern.replace("{tile}", name).replace("{band}", band)
            return Tile(name, (), (), problem=f"band {band} is missing: no file {wanted}")
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            return Tile(name, (), (), problem=f"{len(paths)} files fit band {band}: {names}")
    chosen = tuple(by_band[band][0] for band in survey.bands)
    try:
        stats = [path.stat() for path in chosen]
    except OSError as error:
        # A link to nowhere, or a file that went away since it was listed.
        return Tile(name, (), (), problem=f"{error.filename} cannot be read: {error.strerror}")
    sizes, mtimes = tuple(s.st_size for s in stats), tuple(s.st_mtime_ns for s in stats)
    return Tile(name, chosen, sizes, mtimes)


def _expression(survey: SurveySettings) -> re.Pattern[str]:
    """Translate the pattern of a survey into a regular expression with groups tile and band."""
    bands = "|".join(re.escape(band) for band in survey.bands)
    groups = {"{tile}": r"(?P<tile>[^/]+?)", "{band}": f"(?P<band>{bands})"}
    parts: list[str] = []
    seen: set[str] = set()
    for token in _tokens(survey.pattern):
        if token in groups:
            parts.append(f"(?P={token[1:-1]})" if token in seen else groups[token])
            seen.add(token)
        elif token == "*":
            parts.append("[^/]*")
        elif token == "?":
            parts.append("[^/]")
        elif token.startswith("[") and len(token) > 1:
            parts.append(token.replace("[!", "[^"))
        else:
            parts.append(re.escape(token))
    return re.compile("".join(parts))


def _tokens(pattern: str) -> Iterable[str]:
    tokens = re.findall(r"\{\w+\}|\[[^\]]+\]|.", pattern)
    for token in tokens:
        if token.startswith("{") and token not in ("{tile}", "{band}"):
            raise ConfigError(
                f"expected survey.pattern to hold {{tile}} and {{band}}, but got {token} in "
                f"survey.pattern = {pattern}",
                value=token,
                allowed="{tile}, {band}",
            )
    return tokens
