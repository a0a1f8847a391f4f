"""Lists the survey tiles below a folder: which file holds which band of which tile."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from datagen.errors import ConfigError, DataFormatError, DataNotFoundError
from datagen.tiles.survey import BUILD_SURVEY, SurveySettings

# Tile -> band -> files.
_Files = dict[str, dict[str, list[Path]]]


@dataclass(frozen=True)
class Tile:
    """One survey tile on disk.

    Args:
        name: Its name.
        paths: One file per band, in the order of the survey's bands; empty with a problem.
        sizes: Size of each file [bytes], those of the planes after those of the images.
        mtimes_ns: When each file was last changed [ns since 1970].
        problem: Why the survey tile cannot be read, or None.
        planes: For each plane with files of its own, in the order of `SurveySettings.planes`, one
            file per band.
    """

    name: str
    paths: tuple[Path, ...]
    sizes: tuple[int, ...]
    mtimes_ns: tuple[int, ...] = ()
    problem: str | None = None
    planes: tuple[tuple[Path, ...], ...] = ()


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
    found = _files_by_tile(folder, survey, survey.pattern)
    if not found:
        raise DataNotFoundError(
            f"no file below {folder} fits survey.pattern = {survey.pattern} for the bands "
            f"{', '.join(survey.bands)}; simulated survey tiles are made by `{BUILD_SURVEY}`",
            value=survey.pattern,
        )
    planes = [
        (plane.kind, plane.pattern, _files_by_tile(folder, survey, plane.pattern))
        for plane in survey.planes
        if plane.pattern is not None
    ]
    return [_tile(name, found[name], survey, planes) for name in sorted(found)]


def shard(tiles: list[Tile], rank: int, world: int) -> list[Tile]:
    """Return the tiles of one rank: every `world`-th one, whatever the others do."""
    return tiles[rank::world]


def _files_by_tile(folder: Path, survey: SurveySettings, pattern: str) -> _Files:
    """Return the files that fit a pattern, by tile and band; without `{band}` they serve all."""
    expression = _expression(pattern, survey.bands)
    glob = pattern.replace("{tile}", "*").replace("{band}", "*")
    whole = folder.resolve().name
    found: _Files = {}
    for path in sorted(folder.glob(glob)):
        match = expression.fullmatch(path.relative_to(folder).as_posix())
        if match is None or path.name.startswith("."):
            continue
        groups = match.groupdict()
        bands = found.setdefault(groups.get("tile") or whole, {})
        for band in [groups["band"]] if "band" in groups else survey.bands:
            bands.setdefault(band, []).append(path)
    return found


def _tile(
    name: str,
    by_band: dict[str, list[Path]],
    survey: SurveySettings,
    planes: list[tuple[str, str, _Files]],
) -> Tile:
    try:
        chosen = _choose(name, by_band, survey.bands, survey.pattern, "")
        others = tuple(
            _choose(name, found.get(name, {}), survey.bands, pattern, f"{kind} plane of ")
            for kind, pattern, found in planes
        )
        stats = [path.stat() for path in (*chosen, *itertools.chain(*others))]
    except DataFormatError as error:
        return Tile(name, (), (), problem=str(error))
    except OSError as error:
        # A link to nowhere, or a file that went away since it was listed.
        return Tile(name, (), (), problem=f"{error.filename} cannot be read: {error.strerror}")
    sizes, mtimes = tuple(s.st_size for s in stats), tuple(s.st_mtime_ns for s in stats)
    return Tile(name, chosen, sizes, mtimes, planes=others)


def _choose(
    name: str, by_band: dict[str, list[Path]], bands: list[str], pattern: str, kind: str
) -> tuple[Path, ...]:
    """Return the file of each band.

    Raises:
        DataFormatError: A band has none, or several.
    """
    for band in bands:
        paths = by_band.get(band, [])
        if not paths:
            wanted = pattern.replace("{tile}", name).replace("{band}", band)
            raise DataFormatError(f"{kind}band {band} is missing: no file {wanted}", band)
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            raise DataFormatError(f"{len(paths)} files fit {kind}band {band}: {names}", names)
    return tuple(by_band[band][0] for band in bands)


def _expression(pattern: str, bands: list[str]) -> re.Pattern[str]:
    """Translate a pattern into a regular expression with groups tile and band."""
    any_band = "|".join(re.escape(band) for band in bands)
    groups = {"{tile}": r"(?P<tile>[^/]+?)", "{band}": f"(?P<band>{any_band})"}
    parts: list[str] = []
    seen: set[str] = set()
    for token in _tokens(pattern):
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
                f"expected the pattern of a survey to hold {{tile}} and {{band}}, but got {token} "
                f"in {pattern}",
                value=token,
                allowed="{tile}, {band}",
            )
    return tokens
