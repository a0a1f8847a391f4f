"""Which image a file is: its name says snapshot, object, projection and perhaps the band."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datagen.errors import ConfigError, DataNotFoundError
from datagen.stamps.drops import Drop

_ENDINGS = r"\.(?:fits|fits\.fz|fits\.gz|hdf5|h5|npz)"
# Conventions in public use.
PRESETS = {
    # snap_099-1234_0.fits: data_gen=galaxies and public code for contrastive learning
    "snap": rf"snap_(?P<snapshot>\d+)-(?P<object>\d+)_(?P<projection>\d+){_ENDINGS}",
    # shalo_091-1234_v0_HSC_GRIZY.fits: HSC mocks of TNG
    "shalo": rf"shalo_(?P<snapshot>\d+)-(?P<object>\d+)_v(?P<projection>\d+)_\w+{_ENDINGS}",
    # 1234_g.fits or J0001+0002_r.fits: cut-outs of surveys, one file per band
    "object_band": rf"(?P<object>[\w.+-]+)_(?P<band>[A-Za-z]\w*){_ENDINGS}",
    # 1234.fits: all bands of an object in one file
    "object": rf"(?P<object>[\w.+-]+?){_ENDINGS}",
}
GROUPS = ("snapshot", "object", "projection", "band")
# Snapshot of images whose name tells none; of observed ones there is none.
NO_SNAPSHOT = -1


@dataclass(frozen=True, order=True)
class Identity:
    """What tells images apart.

    Args:
        snapshot: Number of the snapshot, -1 without one.
        object: Number of the galaxy, group or cluster; of names that are no numbers their hash.
        projection: Number of the viewing direction, 0 without one.
    """

    snapshot: int
    object: int
    projection: int

    def __str__(self) -> str:
        return f"snapshot {self.snapshot}, object {self.object}, projection {self.projection}"


@dataclass(frozen=True)
class Image:
    """One image and its files.

    Args:
        identity: What it shows.
        name: Its file, or the first of them, below the folder of the suite.
        files: Band -> file.
    """

    identity: Identity
    name: str
    files: dict[str, Path] = field(compare=False)


def compiled(pattern: str, where: str) -> re.Pattern[str]:
    """Return the regular expression that a preset or a user's own pattern stands for.

    Args:
        pattern: Name of a preset, or an expression with the named group `object` and, where names
            have them, `snapshot`, `projection` and `band`.
        where: The setting that holds it, for messages.

    Raises:
        ConfigError: It is neither.
    """
    text = PRESETS.get(pattern, pattern)
    try:
        # Names of folders may stand before it, or be part of it.
        found = re.compile(rf"(?:.*/)?(?:{text})")
    except re.error as error:
        raise ConfigError(
            f"expected {where} to be one of {', '.join(PRESETS)}, or a regular expression, but got "
            f"{pattern!r}: {error}",
            pattern,
            list(PRESETS),
        ) from error
    if "object" not in found.groupindex or not set(found.groupindex) <= set(GROUPS):
        raise ConfigError(
            f"expected {where} to be one of {', '.join(PRESETS)}, or a regular expression with the "
            f"group (?P<object>...) and no other than {', '.join(GROUPS)}, but got {pattern!r}",
            pattern,
            GROUPS,
        )
    return found


def object_number(text: str) -> int:
    """Return the number of an object: the text where it is a number, otherwise 56 bits of its hash.

    An object has the same number wherever its name is written the same.
    """
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def identify(match: re.Match[str]) -> Identity:
    """Return what the name of a file says."""
    groups = match.groupdict()
    return Identity(
        int(groups.get("snapshot") or NO_SNAPSHOT),
        object_number(groups["object"]),
        int(groups.get("projection") or 0),
    )


def list_images(
    folder: Path, images: str, pattern: re.Pattern[str], bands: Sequence[str]
) -> tuple[list[Image], list[Drop]]:
    """List the images of a suite, in the order of their identities.

    Args:
        folder: Of the suite.
        images: Which of its files are images, as in a shell, such as images/*.fits.
        pattern: What their names say.
        bands: What has to be there of each image.

    Returns:
        The images, and the files that are not used, with the reasons.

    Raises:
        DataNotFoundError: There is no such file.
    """
    there = sorted(path for path in folder.glob(images) if path.is_file())
    if not there:
        raise DataNotFoundError(
            f"{folder} holds no files {images}; correct folder or images of the suite, or simulate "
            "some with: python datagen/run.py data_gen=galaxies",
            str(folder),
        )
    drops: list[Drop] = []
    found: dict[Identity, dict[str, Path]] = {}
    for path in there:
        name = path.relative_to(folder).as_posix()
        match = pattern.fullmatch(name)
        if match is None:
            drops.append(Drop(name, "name", f"does not match {pattern.pattern}"))
            continue
        identity, shown = identify(match), _bands_of(match, bands)
        files = found.setdefault(identity, {})
        taken = next((files[band] for band in shown if band in files), None)
        if taken is not None:
            drops.append(Drop(name, "duplicate image", f"{taken.name} is {identity} as well"))
            continue
        # A file of a band that is not asked for says nothing.
        files |= dict.fromkeys(shown, path)
    whole, incomplete = _whole(folder, found, bands)
    return whole, drops + incomplete


def _bands_of(match: re.Match[str], bands: Iterable[str]) -> list[str]:
    """Return the bands that a file holds: that of its name, or all."""
    text = match.groupdict().get("band")
    return [band for band in bands if text is None or text.lower() == band.lower()]


def _whole(
    folder: Path, found: Mapping[Identity, dict[str, Path]], bands: Sequence[str]
) -> tuple[list[Image], list[Drop]]:
    images, drops = [], []
    for identity in sorted(found):
        files = found[identity]
        if not files:
            continue
        name = min(path.relative_to(folder).as_posix() for path in files.values())
        missing = [band for band in bands if band not in files]
        if missing:
            drops.append(Drop(name, "band", f"there is no file of band {', '.join(missing)}"))
        else:
            images.append(Image(identity, name, files))
    return images, drops
