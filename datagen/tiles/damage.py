"""Says in one line what is wrong with a damaged file, whatever its decoder makes of it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

from astropy.utils.exceptions import AstropyUserWarning

from datagen.errors import DataFormatError


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever opening a damaged file provokes into one clear error."""
    with naming(path), warnings.catch_warnings():
        if path.stat().st_size == 0:
            raise DataFormatError(f"{path.name} is empty (0 bytes)", value=str(path))
        warnings.simplefilter("ignore", AstropyUserWarning)
        warnings.filterwarnings("error", message=".*truncated.*")
        yield


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file provokes into one clear error."""
    try:
        yield
    except (DataFormatError, MemoryError):
        raise
    except Exception as error:  # astropy and its decoders raise many unrelated classes here
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataFormatError(
            f"{path.name} cannot be read; it is damaged, incomplete or no FITS file: {reason}",
            value=str(path),
        ) from error
