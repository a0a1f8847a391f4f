"""Atomic, reproducible files: what stands under its final name is whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datagen.errors import DataFormatError, DataNotFoundError, OutputError

# Temporary names are hidden: `.partial-<random>-<final name>`.
PARTIAL = ".partial-"
# What a card of a FITS header holds.
Card = str | int | float

_REASONS = {
    errno.ENOSPC: "no space is left on the device",
    errno.EFBIG: "the file would become larger than is allowed",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EEXIST: "a file stands where a folder is needed",
}


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is flushed and renamed to `path`.

    Args:
        path: Final name. Missing parent folders are created.

    Yields:
        A name in the same folder with the same suffixes, so that writers which look at the
        suffix (`.fits.fz`, `.pt`) do the right thing.

    Raises:
        OutputError: The file cannot be written (permission, space, path).
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL, suffix=f"-{path.name}")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _publish(temporary, path)
    except OSError as error:
        if isinstance(error, (DataNotFoundError, OutputError)):
            raise
        raise output_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def output_error(path: Path, error: OSError) -> OutputError:
    """Translate an operating-system error met while writing `path` into one clear line."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return OutputError(
        f"cannot write {path}: {reason}; free it or choose another folder", value=str(path)
    )


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Write `content` to `path` atomically, with sorted keys.

    Numbers that are not finite become null: JSON has no others.
    """
    text = json.dumps(_with_nulls(content), indent=2, sort_keys=True, allow_nan=False)
    write_text(path, text + "\n")


def _with_nulls(content: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    if isinstance(content, Mapping):
        return {key: _with_nulls(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_with_nulls(value) for value in content]
    is_missing = isinstance(content, float) and not math.isfinite(content)
    return None if is_missing else content


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Read a JSON file.

    Raises:
        DataNotFoundError: The file is missing.
        DataFormatError: The file is not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{path} does not exist", value=str(path)) from error
    except ValueError as error:
        raise DataFormatError(f"{path} is not valid JSON: {error}", value=str(path)) from error


def save_torch(path: Path, content: Any) -> None:  # noqa: ANN401 - tensors and plain containers
    """Save `content` with `torch.save`, atomically and with bytes that do not depend on `path`.

    `torch.save(path)` stores the name of the file inside it; going through memory does not.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_hash(content: Mapping[str, Any]) -> str:
    """Return 12 hexadecimal digits that identify a mapping of plain values, in any key order."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _publish(temporary: Path, path: Path) -> None:
    """Flush a finished temporary file to disk and give it its final name."""
    # mkstemp makes files private; the umask decides for every other file that a program writes.
    mask = os.umask(0)
    os.umask(mask)
    temporary.chmod(0o666 & ~mask)
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)
